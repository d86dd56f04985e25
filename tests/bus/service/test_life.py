"""Starting, stopping, reloading, crashing, and the bus going away under the service."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mvirt_zfs_dbus import __version__, names
from mvirt_zfs_dbus.bus.wire import Variant
from mvirt_zfs_dbus.names import ErrorName, Interface

from .held import descendants, gone
from .process import MIB, Client, ServiceProcess, client_on

JOB = Interface.JOB


def daemon(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mvirt_zfs_dbus", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_wrong_option_is_one_line_and_exit_status_2() -> None:
    ended = daemon("--directory", "/x", "--max-imports", "many")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "'many'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_version_and_help_are_said() -> None:
    assert __version__ in daemon("--version").stdout
    assert "--max-image-size" in daemon("--help").stdout


def test_no_bus_is_a_clear_failure(tmp_path: Path) -> None:
    ended = daemon("--directory", str(tmp_path), "--bus", f"unix:path={tmp_path}/absent")
    assert ended.returncode == 1
    assert "absent" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_second_service_on_one_directory_or_bus_ends_with_the_reason(
    client: Client, service: ServiceProcess, tmp_path: Path
) -> None:
    for directory, said in ((service.directory, "another"), (tmp_path / "other", "org.mvirt.Zfs1")):
        directory.mkdir(exist_ok=True)
        ended = await asyncio.to_thread(
            daemon, "--directory", str(directory), "--bus", service.address
        )
        assert ended.returncode == 1
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr
    await client.create("still-served")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_and_interrupts_what_runs(
    client: Client, service: ServiceProcess, directory: Path, number: int
) -> None:
    reader, writer = os.pipe()
    job = await client.manager("ImportVolumeFromFd", "sha{sv}", "web", 0, {}, fds=[reader])
    os.close(reader)
    os.write(writer, b"\xeb" * 65536)
    assert await service.stop(number) == 0
    os.close(writer)
    assert [file.name for file in directory.iterdir() if not file.name.startswith(".")] == []
    await service.start(client.connection)
    properties = await client.get_all(job, JOB)
    assert (properties["State"], properties["ErrorName"]) == ("failed", ErrorName.INTERRUPTED)


async def test_kill_during_an_import_leaves_no_process_and_no_file(
    client: Client, service: ServiceProcess, directory: Path
) -> None:
    assert service.process
    reader, writer = os.pipe()
    job = await client.manager("ImportVolumeFromFd", "sha{sv}", "web", 0, {}, fds=[reader])
    os.close(reader)
    os.write(writer, b"\xeb" * 65536)
    async with client.signals() as heard:
        while await client.get(job, JOB, "BytesDone") == 0:
            await heard.get()
    children = descendants(service.process.pid)
    assert children
    await service.stop(signal.SIGKILL)
    os.close(writer)
    for pid in children:
        await gone(pid)
    await service.start(client.connection)
    left = [file.name for file in directory.iterdir() if not file.name.startswith(".")]
    assert left == []
    assert list((directory / ".tmp").glob("*")) == []
    properties = await client.get_all(job, JOB)
    assert (properties["State"], properties["ErrorName"]) == ("failed", ErrorName.INTERRUPTED)
    await client.create("web")


async def test_the_bus_dying_ends_the_service_cleanly(
    client: Client, service: ServiceProcess, bus_daemon: Any
) -> None:
    assert service.process
    await client.create("web")
    bus_daemon.kill()
    assert await service.process.wait() == 1
    assert "Traceback" not in service.log.read_text()


async def test_a_bus_that_stands_still_for_a_while_is_waited_for(
    client: Client, service: ServiceProcess, bus_daemon: Any
) -> None:
    volume = await client.create("web")
    os.kill(bus_daemon.pid, signal.SIGSTOP)
    pending = [
        asyncio.create_task(
            client.call(volume, Interface.VOLUME, "SetLabels", "a{ss}a{sv}", {"n": str(n)}, {})
        )
        for n in range(200)
    ]
    await asyncio.sleep(1)  # the time the contract says the bus may stand still
    os.kill(bus_daemon.pid, signal.SIGCONT)
    await asyncio.gather(*pending)
    assert "n" in await client.get(volume, Interface.VOLUME, "Labels")


class Notified:
    """Stands in for systemd's end of sd_notify(3)."""

    def __init__(self, receiver: socket.socket) -> None:
        self._receiver = receiver

    async def until(self, state: bytes) -> bytes:
        """The next message that begins with ``state``."""
        loop = asyncio.get_running_loop()
        while not (message := await loop.sock_recv(self._receiver, 1000)).startswith(state):
            pass
        return message


@pytest.fixture
def notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notified]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.setblocking(False)
        receiver.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield Notified(receiver)


async def test_sighup_reads_the_configuration_again(
    bus_address: str,
    directory: Path,
    connected: Client,
    image: Path,
    tmp_path: Path,
    notified: Notified,
) -> None:
    file = tmp_path / "config.toml"
    file.write_text('max-image-size = "1TiB"\n')
    service = ServiceProcess(bus_address, directory, "--config", str(file))
    await service.start(connected.connection)
    assert service.process
    await notified.until(b"READY=1")
    file.write_text(f"max-image-size = {MIB}\n")
    service.process.send_signal(signal.SIGHUP)
    assert await notified.until(b"RELOADING=1") and await notified.until(b"READY=1")
    job = await connected.import_path("web", image)
    properties = await connected.completed(job)
    assert properties["ErrorName"] == ErrorName.INVALID_SIZE
    assert "max-image-size" in properties["ErrorMessage"]
    file.write_text("nonsense")
    service.process.send_signal(signal.SIGHUP)
    assert await notified.until(b"RELOADING=1") and await notified.until(b"READY=1")
    assert "stays as it was" in service.log.read_text()
    assert await service.stop() == 0


async def test_systemd_is_told_when_it_is_ready_alive_and_stopping(
    bus_address: str,
    directory: Path,
    connected: Client,
    notified: Notified,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    service = ServiceProcess(bus_address, directory)
    await service.start(connected.connection)
    assert b"STATUS=" in await notified.until(b"READY=1")
    assert await notified.until(b"WATCHDOG=1")
    assert await service.stop() == 0
    assert await notified.until(b"STOPPING=1")


async def test_every_change_is_one_audit_line(client: Client, service: ServiceProcess) -> None:
    volume = await client.create("web")
    with pytest.raises(Exception, match="taken"):
        await client.create("web")
    await client.get(volume, Interface.VOLUME, "Name")
    lines = [line for line in service.log.read_text().splitlines() if "CreateVolume" in line]
    assert len(lines) == 2
    assert re.search(rf"uid.*{os.getuid()}", lines[0])
    assert "ok" in lines[0]
    assert "AlreadyExists" in lines[1]


async def test_a_caller_of_another_user_changes_nothing_on_a_private_bus(
    client: Client, service: ServiceProcess, tmp_path: Path
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    volume = await client.create("web")
    as_nobody = await asyncio.create_subprocess_exec(
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
        "busctl", f"--address={service.address}", "call", names.BUS_NAME, volume,
        Interface.VOLUME, "Delete", "a{sv}", "0",
        stderr=subprocess.PIPE,
    )  # fmt: skip
    _, said = await as_nobody.communicate()
    assert as_nobody.returncode == 1
    assert b"denied" in said.lower() or b"not allowed" in said.lower(), said
    assert await client.get(volume, Interface.VOLUME, "Name") == "web"


async def test_two_thousand_volumes_are_served(
    client: Client, service: ServiceProcess, bus_address: str
) -> None:
    for start in range(0, 2000, 100):
        batch = range(start, start + 100)
        await asyncio.gather(*(client.create(f"v{n}", 16384) for n in batch))
    assert len(await client.manager("ListVolumes", "a{sv}", {})) == 2000
    assert len(await client.objects()) == 2001
    tree = await asyncio.create_subprocess_exec(
        "busctl", f"--address={bus_address}", "--no-pager", "tree", "--list", names.BUS_NAME,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    output, _ = await tree.communicate()
    assert tree.returncode == 0
    assert output.decode().count("/volume/") == 2000


async def test_ten_thousand_pipelined_calls_are_survived(
    client: Client, service: ServiceProcess
) -> None:
    volume = await client.create("web")

    async def call() -> str:
        try:
            return str(await client.get(volume, Interface.VOLUME, "Name"))
        except Exception as error:
            return str(getattr(error, "name", error))

    answers = await asyncio.gather(*(call() for _ in range(10_000)))
    assert set(answers) <= {"web", ErrorName.LIMITS_EXCEEDED}
    async with client_on(service.address) as other:
        assert await other.get(volume, Interface.VOLUME, "Name") == "web"


async def test_a_thousand_changes_at_once_are_done_or_refused_by_name(
    client: Client, service: ServiceProcess
) -> None:
    async def create(number: int) -> str:
        try:
            await client.create(f"v{number}", 16384)
        except Exception as error:
            return str(getattr(error, "name", error))
        return "made"

    answers = await asyncio.gather(*(create(number) for number in range(1000)))
    assert set(answers) <= {"made", ErrorName.LIMITS_EXCEEDED}
    assert answers.count("made") == len(await client.manager("ListVolumes", "a{sv}", {}))
    await client.create("afterwards", labels=Variant("a{ss}", {}))
