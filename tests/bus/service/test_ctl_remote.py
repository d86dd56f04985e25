"""mvirt-zfsctl --host: the service of another machine, over a real SSH connection."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mvirt_zfs_dbus.client import Client
from mvirt_zfs_dbus.errors import InvalidArgs, NotFound

from .ctl import Ctl
from .process import MIB, ServiceProcess
from .sshd import Machine, machine_with
from .terminal import CTRL_C


@pytest.fixture
async def machine(service: ServiceProcess, tmp_path: Path) -> AsyncIterator[Machine]:
    async with machine_with(service.address, tmp_path) as found:
        yield found


@pytest.fixture
def there(machine: Machine) -> Ctl:
    """mvirt-zfsctl on a machine that has no service of its own."""
    ctl = Ctl("unix:path=/absent")
    ctl.environment = {**machine.environment, "MVIRT_ZFS_BUS": "unix:path=/absent"}
    ctl.command += ["--host", machine.host]
    return ctl


async def test_commands_change_and_show_what_is_on_the_other_machine(there: Ctl, ctl: Ctl) -> None:
    made = await there("volume", "create", "web", "1M", "--label", "vm=a")
    assert made.startswith("created volume web of 1 MiB: ")
    await there("snapshot", "create", "web", "fresh")
    assert (await there.json("volume", "show", "web")) == (await ctl.json("volume", "show", "web"))
    await there.refused(5, "HasSnapshots", "volume", "delete", "web", "--yes")
    await there("volume", "delete", "web", "--snapshots", "--yes")
    assert await ctl.json("volume", "list") == []


async def test_progress_comes_over_the_connection(there: Ctl, image: Path) -> None:
    lines = (await there("import", "disk", image)).splitlines()
    assert "2 MiB of 2 MiB" in lines[-2]
    assert lines[-1].startswith("imported volume disk of 2 MiB")


async def test_what_happens_there_is_monitored_here(there: Ctl, ctl: Ctl) -> None:
    process = await there.start("monitor")
    assert process.stdout
    assert b"watching" in await process.stdout.readline()
    await ctl("volume", "create", "web", "1M")
    assert b"added    volume     web" in await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    await process.communicate()


async def test_open_files_are_refused_with_the_command_that_works(
    there: Ctl, ctl: Ctl, machine: Machine
) -> None:
    line = await there.refused(2, "InvalidArgs", "import", "disk", "-")
    assert f"ssh {machine.host} mvirt-zfsctl import disk -" in line
    await there.refused(2, "InvalidArgs", "import", "disk", "image.raw")
    assert await ctl.json("job", "list") == []


async def test_a_path_is_the_other_machines(there: Ctl) -> None:
    assert "/absent.img" in await there.refused(3, "NotFound", "import", "disk", "/absent.img")


async def test_ctrl_c_reaches_the_question_and_not_the_connection(
    there: Ctl, ctl: Ctl, slow_url: str
) -> None:
    async with there.on_terminal("import", "disk", slow_url) as shown:
        await shown.until("downloading")
        await shown.type(CTRL_C)
        await shown.until("[y/N] ")
        await shown.type("y\n")
        assert await shown.end() == 130
    assert "is cancelled" in shown.shown
    assert (await ctl.json("job", "show", "disk"))["State"] == "cancelled"


async def test_a_machine_that_is_not_there_is_told(there: Ctl) -> None:
    there.command[-1] = "nobody@127.0.0.1:1"
    outcome = await there.run("volume", "list")
    assert outcome.status == 10
    said = outcome.err.splitlines()
    assert "Connection refused" in said[0]  # ssh's own words
    assert said[1].startswith("mvirt-zfsctl: no bus of nobody@127.0.0.1:1: ssh ended with ")


async def test_a_machine_without_systemds_bridge_is_told(there: Ctl, machine: Machine) -> None:
    machine.bridge.write_text("#!/bin/sh\nexit 127\n")
    line = await there.refused(10, "ServiceUnreachable", "volume", "list")
    assert "systemd-stdio-bridge is not installed" in line


async def test_without_ssh_it_is_told(there: Ctl, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    there.environment["PATH"] = str(empty)
    assert "ssh" in await there.refused(10, "ServiceUnreachable", "volume", "list")


async def test_a_connection_that_breaks_under_a_watched_import_is_told(
    there: Ctl, slow_url: str, machine: Machine, tmp_path: Path
) -> None:
    log = tmp_path / "bridge.pid"
    machine.bridge.write_text(machine.bridge.read_text().replace("exec", f"echo $$ >{log}; exec"))
    process = await there.start("import", "disk", slow_url)
    assert process.stdout
    assert b"downloading" in await process.stdout.readline()
    os.kill(int(log.read_text()), signal.SIGKILL)
    _, said = await process.communicate()
    assert process.returncode == 10
    assert "(ServiceUnreachable)" in said.decode()


async def test_a_program_uses_another_machine_and_leaves_no_ssh_behind(
    machine: Machine, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", machine.environment["PATH"])
    async with Client.connect(host=machine.host) as client:
        volume = await client.manager.create_volume("web", MIB)
        assert [each.name for each in await client.volumes()] == ["web"]
        with pytest.raises(NotFound):
            await client.manager.volume("absent")
        job = await client.manager.import_image("disk", str(image))
        await job.wait()
        with image.open("rb") as opened, pytest.raises(InvalidArgs, match="cannot be passed"):
            await client.manager.import_image("other", opened.fileno())
        assert await volume.users() == []
    assert not ssh_processes()


async def test_who_gives_up_connecting_leaves_no_ssh_behind(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.bridge.write_text("#!/bin/sh\nexec sleep 1000\n")
    monkeypatch.setenv("PATH", machine.environment["PATH"])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2), Client.connect(host=machine.host):
            pass
    assert not ssh_processes()


def ssh_processes() -> list[str]:
    """Those that this process has started."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in children if "ssh-config" in Path(f"/proc/{pid}/cmdline").read_text()]
