"""What fails around the service on a real host, and what the service makes of it.

After each fault: the documented error, nothing half-made, and a service that works on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import host
import pytest
from host import MIB

from mvirt_zfs_dbus.client import Client
from mvirt_zfs_dbus.errors import DeviceTimeout, Error

UDEV = ("systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-udevd.service")


@pytest.fixture
def working(service: None) -> Iterator[None]:
    """The same service, not restarted, makes and destroys a volume when the fault is over."""
    pid = host.unit("MainPID")
    yield
    host.run("mvirt-zfsctl", "volume", "create", "after-the-fault", "1M")
    host.run("mvirt-zfsctl", "volume", "delete", "--yes", "after-the-fault")
    assert host.unit("MainPID") == pid


@contextmanager
def udev_stopped() -> Iterator[None]:
    host.run("udevadm", "settle")
    host.run("systemctl", "stop", *UDEV)
    try:
        yield
    finally:
        host.run("systemctl", "start", *UDEV)
        host.run("udevadm", "trigger", "--settle", "--subsystem-match=block")


async def test_without_udev_there_is_no_volume_rather_than_one_without_a_device(
    working: None, client: Client
) -> None:
    with udev_stopped(), pytest.raises(DeviceTimeout, match="is udev running"):
        await client.manager.create_volume("nowhere", MIB)
    assert host.datasets() == set()


async def test_a_slow_udev_is_waited_for(working: None, client: Client) -> None:
    host.run("udevadm", "settle")
    pid = int(host.run("systemctl", "show", "--value", "-p", "MainPID", UDEV[-1]))
    os.kill(pid, signal.SIGSTOP)
    try:
        creating = asyncio.create_task(client.manager.create_volume("late", MIB))
        done, _ = await asyncio.wait([creating], timeout=3)  # a slow udev is one that takes time
        assert not done
    finally:
        os.kill(pid, signal.SIGCONT)
    volume = await creating
    host.write(volume.device, b"here")
    assert host.read(volume.device, 4) == b"here"


async def test_without_the_zfs_program_a_volume_keeps_its_size(
    working: None, client: Client
) -> None:
    """Growing is the one thing that libzfs_core cannot do, and takes the zfs program."""
    volume = await client.manager.create_volume("same", MIB)
    program = Path(host.run("sh", "-c", "command -v zfs")).resolve()
    away = program.with_suffix(".away")
    program.rename(away)
    try:
        with pytest.raises(Error, match="zfs"):
            await volume.resize(2 * MIB)
        await client.manager.create_volume("another", MIB)
    finally:
        away.rename(program)
    assert (await volume.refresh()).size_bytes == MIB
    assert (await volume.resize(2 * MIB)) is None
    assert (await volume.refresh()).size_bytes == 2 * MIB


def ctl(user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["runuser", "-u", user, "--", "mvirt-zfsctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_polkit_only_root_changes_anything(working: None) -> None:
    host.run("systemctl", "mask", "--now", "polkit.service")
    try:
        refused = ctl("nobody", "volume", "create", "nobodys", "1M")
        assert refused.returncode != 0 and "nobodys" not in host.run("zfs", "list", "-H")
        host.run("mvirt-zfsctl", "volume", "create", "roots", "1M")
        assert ctl("nobody", "volume", "list").returncode == 0
    finally:
        host.run("systemctl", "unmask", "polkit.service")
        host.run("systemctl", "start", "polkit.service")
    assert ctl("nobody", "volume", "create", "nobodys", "1M").returncode != 0


async def test_a_polkit_that_hangs_holds_up_nobody_who_only_reads(
    working: None, client: Client
) -> None:
    pid = int(host.run("systemctl", "show", "--value", "-p", "MainPID", "polkit.service"))
    os.kill(pid, signal.SIGSTOP)
    try:
        creating = asyncio.create_task(client.manager.create_volume("waiting", MIB))
        for _ in range(3):
            await client.inventory()
        assert not creating.done()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (await creating).name == "waiting"


async def test_a_clock_that_jumps_changes_no_job(working: None, client: Client) -> None:
    """A day forwards and back, while an import runs."""
    with host.fed(4 * MIB) as pipe:
        job = await client.manager.import_image("timeless", pipe, format="raw", size=4 * MIB)
        for jump in ("+1 day", "-1 day"):
            host.run("date", "--set", jump)
        await job.wait()
    finished = await job.refresh()
    assert (finished["State"], finished["Progress"]) == ("done", 1.0)
