"""mvirt-zfsctl monitor: what comes, changes and goes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from .ctl import Ctl
from .process import ServiceProcess


class Monitor:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout
        return (await self.process.stdout.readline()).decode()

    async def until(self, text: str) -> str:
        while text not in (line := await self.line()):
            assert line, f"ended without {text!r}"
        return line

    async def event(self, kind: str, happened: str) -> dict[str, Any]:
        while True:
            event: dict[str, Any] = json.loads(await self.line())
            if (event["Kind"], event["Event"]) == (kind, happened):
                return event


@asynccontextmanager
async def monitor(ctl: Ctl, *options: str) -> AsyncIterator[Monitor]:
    process = await ctl.start("monitor", *options)
    try:
        yield Monitor(process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.communicate()


async def test_what_comes_changes_and_goes_is_a_line_each(ctl: Ctl) -> None:
    async with monitor(ctl) as shown:
        await shown.until("watching")
        await ctl("volume", "create", "web", "1M")
        assert "added    volume     web\n" in await shown.until("volume ")
        await ctl("volume", "resize", "web", "2M")
        assert "web  SizeBytes=2 MiB\n" in await shown.until("changed  volume")
        await ctl("snapshot", "create", "web", "fresh")
        assert "web@fresh\n" in await shown.until("added    snapshot")
        assert "Snapshots=fresh\n" in await shown.until("changed  volume")
        await ctl("template", "create", "gold", "web", "fresh")
        await ctl("template", "clone", "gold", "vm")
        assert "Clones=vm" in await shown.until("changed  template")
        await ctl("volume", "delete", "vm", "--yes")
        assert "vm\n" in await shown.until("removed  volume")
    assert shown.process.returncode == 130


async def test_a_jobs_phases_are_lines_and_its_end(ctl: Ctl, image: Path) -> None:
    async with monitor(ctl) as shown:
        await shown.until("watching")
        await ctl("import", "disk", image)
        assert "2 MiB of 2 MiB" in await shown.until("disk  done")


async def test_json_is_a_document_a_line_with_the_whole_object(ctl: Ctl, slow_url: str) -> None:
    async with monitor(ctl, "--json") as shown:
        # Nothing is printed before the first event, so its first one tells that it watches.
        while True:
            await ctl("volume", "create", "web", "1M", "--label", "a=b")
            if await first_line(shown):
                break
            await ctl("volume", "delete", "web", "--yes")
        job = (await ctl("import", "disk", slow_url, "--no-wait")).strip()
        assert (await shown.event("job", "added"))["Object"]["Id"] == job
        while "BytesDone" not in (event := await shown.event("job", "changed"))["Changed"]:
            pass
        assert event["Object"]["BytesDone"] == event["Changed"]["BytesDone"]
        await ctl("job", "cancel", "disk")
        await ctl("volume", "label", "web", "--remove", "a")
        changed = await shown.event("volume", "changed")
        assert changed["Changed"] == {"Labels": {}}
        assert changed["Object"]["Name"] == "web"
        assert set(changed) == {"Time", "Event", "Kind", "Changed", "Object"}


async def first_line(shown: Monitor) -> bool:
    try:
        async with asyncio.timeout(1):
            return bool(await shown.line())
    except TimeoutError:
        return False


async def test_a_service_that_leaves_ends_the_monitor(ctl: Ctl, service: ServiceProcess) -> None:
    async with monitor(ctl) as shown:
        await shown.until("watching")
        await service.stop()
        _, said = await shown.process.communicate()
        assert b"the service has left the bus (ServiceUnreachable)" in said
        assert shown.process.returncode == 10
