"""Images from a path, a descriptor and HTTP, into volumes and templates, bit for bit."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.bus.wire import Variant, unpacked
from mvirt_zfs_dbus.errors import AlreadyExists, NotCancelable, NotFound
from mvirt_zfs_dbus.names import Interface

from .process import MIB, Client, ServiceProcess
from .web import serving

JOB, VOLUME, TEMPLATE = Interface.JOB, Interface.VOLUME, Interface.TEMPLATE


async def imported(client: Client, job: str) -> tuple[dict[str, Any], bytes]:
    """The finished job and the bytes of the volume it made."""
    properties = await client.completed(job)
    assert properties["State"] == "done", properties
    return properties, (await client.device(properties["Result"])).read_bytes()


@pytest.fixture
async def server(images: dict[str, Path]) -> AsyncIterator[str]:
    """An HTTP server that has the images, and one that comes slowly for ever."""

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(64 * MIB)})
        await response.prepare(request)
        try:
            while True:
                await response.write(b"\xeb" * 4096)
                await asyncio.sleep(0.05)
        except ConnectionError:
            return response

    application = web.Application()
    application.router.add_get("/slow/", slow)
    application.router.add_static("/", images["raw"].parent)
    async with serving(application) as url:
        yield url


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
@pytest.mark.parametrize("way", ["path", "fd", "pipe", "http"])
async def test_an_image_arrives_bit_for_bit(
    client: Client, images: dict[str, Path], server: str, kind: str, way: str
) -> None:
    image, content = images[kind], images["raw"].read_bytes()
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    options = {"checksum": Variant("s", f"sha256:{digest}")}
    if way in ("path", "http"):
        source = str(image) if way == "path" else f"{server}/{image.name}"
        job = await client.manager("ImportVolume", "ssa{sv}", "web", source, options)
    else:
        source = "fd"
        with image.open("rb") if way == "fd" else os.popen(f"cat {image}") as passed:
            job = await client.manager(
                "ImportVolumeFromFd", "sha{sv}", "web", 0, options, fds=[passed.fileno()]
            )
            properties, found = await imported(client, job)
    properties, found = await imported(client, job)
    assert found == content
    assert (properties["Operation"], properties["Name"]) == ("import-volume", "web")
    assert (properties["Progress"], properties["ProgressValid"]) == (1.0, True)
    volume = await client.get_all(properties["Result"], VOLUME)
    assert (volume["Source"], volume["Checksum"]) == (source, f"sha256:{digest}")


async def test_an_image_becomes_a_template(client: Client, images: dict[str, Path]) -> None:
    job = await client.manager("ImportTemplate", "ssa{sv}", "gold", str(images["qcow2"]), {})
    properties = await client.completed(job)
    clone = await client.clone(properties["Result"])
    assert (await client.device(clone)).read_bytes() == images["raw"].read_bytes()
    with images["raw"].open("rb") as file:
        job = await client.manager(
            "ImportTemplateFromFd", "sha{sv}", "raw", 0, {}, fds=[file.fileno()]
        )
    assert (await client.completed(job))["Result"].startswith("/org/mvirt/Zfs1/template/")


async def test_a_larger_size_is_given_and_the_rest_reads_as_zeros(
    client: Client, image: Path
) -> None:
    job = await client.import_path("web", image, size=Variant("t", 4 * MIB))
    _, found = await imported(client, job)
    assert found == image.read_bytes() + bytes(2 * MIB)


async def test_zeros_of_the_image_take_no_space(client: Client, image: Path) -> None:
    job = await client.import_path("web", image)
    properties, _ = await imported(client, job)
    device = await client.device(properties["Result"])
    assert device.stat().st_blocks * 512 <= MIB + 65536


async def test_progress_is_real_and_the_last_is_exact(client: Client, server: str) -> None:
    async with client.signals() as heard:
        job = await client.manager("ImportVolume", "ssa{sv}", "web", f"{server}/slow/", {})
        seen: dict[str, Any] = {}
        # The first rate is 0 where the service heard of the first bytes all at once.
        while (done := seen.get("BytesDone", 0)) < 16384 or (done < MIB and not seen.get("Rate")):
            message = await heard.get()
            if message.member == "PropertiesChanged" and message.path == job:
                seen |= unpacked(message.body[1])
        assert (seen["State"], seen["Phase"]) == ("running", "downloading")
        assert (seen["BytesTotal"], seen["ProgressValid"]) == (64 * MIB, True)
        assert 0 < seen["Progress"] < 1
        assert seen["Rate"] > 0
        assert seen["ExpectedEndAt"] > seen["StartedAt"]
        await client.call(job, JOB, "Cancel", "a{sv}", {})
        while message.member != "Completed":
            message = await heard.get()
            if message.member == "PropertiesChanged" and message.path == job:
                seen |= unpacked(message.body[1])
        assert seen["State"] == "cancelled"
        assert message.body[:2] == ["cancelled", names.ErrorName.CANCELLED]


async def test_progress_is_told_at_most_four_times_a_second(client: Client, server: str) -> None:
    async with client.signals("PropertiesChanged") as heard:
        job = await client.manager("ImportVolume", "ssa{sv}", "web", f"{server}/slow/", {})
        while (await heard.get()).path != job:
            pass
        began = time.monotonic()
        await client.get(job, JOB, "State")
        while not heard.empty():
            heard.get_nowait()  # was told before the answer
        for _ in range(9):
            while (await heard.get()).path != job:
                pass
        assert time.monotonic() - began > 1.9
        await client.call(job, JOB, "Cancel", "a{sv}", {})


async def test_a_name_is_reserved_while_its_import_runs_and_free_after(
    client: Client, server: str, directory: Path
) -> None:
    job = await client.manager("ImportVolume", "ssa{sv}", "web", f"{server}/slow/", {})
    with pytest.raises(AlreadyExists, match="'web'"):
        await client.create("web")
    with pytest.raises(NotFound):
        await client.manager("GetVolume", "s", "web")
    assert await client.get(names.ROOT, Interface.MANAGER, "Jobs") == [job]
    await client.call(job, JOB, "Cancel", "a{sv}", {})
    assert await client.get(names.ROOT, Interface.MANAGER, "Jobs") == []
    left = [file.name for file in directory.iterdir() if not file.name.startswith(".")]
    assert left == []
    await client.create("web")


async def test_more_imports_than_allowed_wait_in_order(
    bus_address: str, directory: Path, connected: Client, server: str
) -> None:
    process = ServiceProcess(bus_address, directory, "--max-imports", "1")
    await process.start(connected.connection)
    jobs = [
        await connected.manager("ImportVolume", "ssa{sv}", f"web-{n}", f"{server}/slow/", {})
        for n in range(3)
    ]
    for number, job in enumerate(jobs):
        async with connected.signals("PropertiesChanged") as heard:
            while await connected.get(job, JOB, "State") == "pending":
                await heard.get()
        states = [await connected.get(other, JOB, "State") for other in jobs[number + 1 :]]
        assert set(states) <= {"pending"}
        await connected.call(job, JOB, "Cancel", "a{sv}", {})
    await process.stop()


async def test_finished_jobs_are_listed_found_and_removed(client: Client, image: Path) -> None:
    job = await client.import_path("web", image)
    await client.completed(job)
    assert await client.manager("ListJobs", "a{sv}", {}) == [job]
    assert await client.manager("ListJobs", "a{sv}", {"finished": Variant("b", False)}) == []
    assert await client.manager("GetJob", "s", await client.get(job, JOB, "Id")) == job
    await client.call(job, JOB, "Remove", "a{sv}", {})
    assert job not in await client.objects()


async def test_a_running_job_is_not_removed(client: Client, server: str) -> None:
    job = await client.manager("ImportVolume", "ssa{sv}", "web", f"{server}/slow/", {})
    with pytest.raises(NotCancelable):
        await client.call(job, JOB, "Remove", "a{sv}", {})
    await client.call(job, JOB, "Cancel", "a{sv}", {})


async def test_passwords_in_a_url_are_shown_to_nobody(
    client: Client, server: str, service: ServiceProcess, images: dict[str, Path]
) -> None:
    url = server.replace("://", "://user:secret@") + f"/{images['raw'].name}"
    job = await client.manager("ImportVolume", "ssa{sv}", "web", url, {})
    properties = await client.completed(job)
    assert "secret" not in str(await client.objects())
    assert properties["Source"] == f"{server}/{images['raw'].name}"
    assert "secret" not in service.log.read_text()
    assert "secret" not in "".join(
        file.read_text() for file in (service.directory / ".state").rglob("*.json")
    )


async def test_fds_of_refused_imports_are_closed(client: Client, service: ServiceProcess) -> None:
    assert service.process
    folder = Path(f"/proc/{service.process.pid}/fd")
    await client.manager("ListJobs", "a{sv}", {})

    def pipes() -> int:
        found = 0
        for fd in folder.iterdir():
            with suppress(FileNotFoundError):  # closed by now
                found += str(fd.readlink()).startswith("pipe:")
        return found

    before = pipes()
    for _ in range(20):
        reader, writer = os.pipe()
        with pytest.raises(Exception, match="1 to 128"):
            await client.manager("ImportVolumeFromFd", "sha{sv}", "", 0, {}, fds=[reader])
        os.close(reader)
        os.close(writer)
    assert pipes() == before
