"""What fails around the service on a real host, and what the service makes of it.

After each fault: the documented error, nothing half-made, and a service that works on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import host
import pytest
from host import MIB, POOL, UNIT

from mvirt_zfs_dbus.client import Client
from mvirt_zfs_dbus.errors import DeviceTimeout, Error, NoSpace, PoolUnavailable

CONFIG = Path("/etc/mvirt-zfs-dbus.toml")
SMALL = "small"
SMALL_SIZE = 128 * MIB
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
def serving(pool: str) -> Iterator[None]:
    """The service is restarted on another pool, and on the machine's own afterwards."""
    before = CONFIG.read_text()
    CONFIG.write_text(before.replace(f'pool = "{POOL}"', f'pool = "{pool}"'))
    host.run("systemctl", "restart", UNIT)
    try:
        yield
    finally:
        CONFIG.write_text(before)
        host.run("systemctl", "restart", UNIT)


@contextmanager
def small_pool(device: str) -> Iterator[None]:
    host.run("zpool", "create", "-O", "mountpoint=none", SMALL, device)
    try:
        yield
    finally:
        host.run("udevadm", "settle")
        host.run("zpool", "destroy", SMALL)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[None]:
    """The service serves a pool of 128 MiB."""
    file = tmp_path / "vdev"
    with file.open("wb") as vdev:
        vdev.truncate(SMALL_SIZE)
    with small_pool(str(file)), serving(SMALL):
        yield


@contextmanager
def fed(amount: int) -> Iterator[int]:
    """The reading end of a pipe with so many random bytes."""
    reading, writing = os.pipe()

    def feed() -> None:
        host.feed(writing, amount)
        os.close(writing)

    feeding = threading.Thread(target=feed, daemon=True)
    feeding.start()
    try:
        yield reading
    finally:
        os.close(reading)
        feeding.join()


async def works_on(client: Client, pool: str) -> None:
    """Nothing is left, and the service makes and destroys a volume."""
    host.run("zpool", "sync", pool)  # ZFS gives space back with the next transaction group
    host.run("zpool", "wait", "-t", "free", pool)
    assert host.datasets(pool) == set()
    volume = await client.manager.create_volume("after-the-fault", MIB)
    host.write(volume.device, b"fine")
    await volume.delete()
    assert host.datasets(pool) == set()


async def test_a_pool_that_fills_during_an_import_is_no_space_and_leaves_nothing(
    small: None,
) -> None:
    pid = host.unit("MainPID")
    async with Client.connect("system") as client:
        with fed(2 * SMALL_SIZE) as pipe:
            job = await client.manager.import_image("too-much", pipe, format="raw")
            with pytest.raises(NoSpace):
                await job.wait()
        await works_on(client, SMALL)
    assert host.unit("MainPID") == pid


async def test_a_pool_that_fills_with_what_has_to_wait_leaves_nothing(
    small: None, tmp_path: Path
) -> None:
    """A VMDK that cannot be read twice is kept in the pool's own place first."""
    raw, image = tmp_path / "raw", tmp_path / "image.vmdk"
    with raw.open("wb") as file:
        for _ in range(0, SMALL_SIZE, MIB):
            file.write(os.urandom(MIB))
    host.run("qemu-img", "convert", "-O", "vmdk", raw, image)
    async with Client.connect("system") as client:
        with image.open("rb") as file, subprocess.Popen(["cat"], stdin=file, stdout=-1) as cat:
            assert cat.stdout is not None
            job = await client.manager.import_image("too-much", cat.stdout.fileno())
            cat.stdout.close()
            with pytest.raises(NoSpace):
                await job.wait()
        await works_on(client, SMALL)


async def test_what_does_not_fit_is_refused_before_anything_is_made(small: None) -> None:
    async with Client.connect("system") as client:
        with pytest.raises(NoSpace):
            await client.manager.create_volume("thick", 2 * SMALL_SIZE, thin=False)
        await works_on(client, SMALL)


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
        for _ in range(10):
            await client.inventory()
        assert not creating.done()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (await creating).name == "waiting"


async def test_a_clock_that_jumps_changes_no_job(working: None, client: Client) -> None:
    """A day forwards and back, while an import runs."""
    with fed(4 * MIB) as pipe:
        job = await client.manager.import_image("timeless", pipe, format="raw", size=4 * MIB)
        for jump in ("+1 day", "-1 day"):
            host.run("date", "--set", jump)
        await job.wait()
    finished = await job.refresh()
    assert (finished["State"], finished["Progress"]) == ("done", 1.0)


class Disk:
    """A disk below a pool, that dies and comes back."""

    def __init__(self) -> None:
        spare = "/dev/disk/by-id/virtio-spare"
        self._sectors = int(host.run("blockdev", "--getsz", spare))
        self._good = f"0 {self._sectors} linear {spare} 0"
        host.run("dmsetup", "create", "mortal", "--table", self._good)

    def die(self) -> None:
        self._load(f"0 {self._sectors} error")

    def revive(self) -> None:
        self._load(self._good)

    def _load(self, table: str) -> None:
        host.run("dmsetup", "suspend", "--nolockfs", "--noflush", "mortal")
        host.run("dmsetup", "load", "mortal", "--table", table)
        host.run("dmsetup", "resume", "mortal")


@pytest.fixture
def disk() -> Iterator[Disk]:
    mortal = Disk()
    with small_pool("/dev/mapper/mortal"), serving(SMALL):
        yield mortal
        mortal.revive()
        host.run("zpool", "clear", SMALL)
    host.run("udevadm", "settle")
    host.run("dmsetup", "remove", "mortal")


async def health(client: Client, wanted: str) -> None:
    """Returns when the bus says so; ZFS itself notices with its next transaction group."""
    async with asyncio.timeout(120), client.watch() as watch:
        [pool] = watch.inventory.pools
        events = aiter(watch)
        while pool.health != wanted:
            await anext(events)


async def test_a_disk_that_dies_during_an_import_loses_nothing(disk: Disk) -> None:
    """ZFS suspends the pool: what was under way waits in the kernel until the disk is back.

    That holds for writes: a target that must grow meanwhile cannot, and its import fails. So this
    image's size is known.
    """
    pid = host.unit("MainPID")
    host.IMAGES.mkdir(parents=True, exist_ok=True)
    image = host.IMAGES / "caught.raw"
    image.write_bytes(os.urandom(64 * MIB))
    async with Client.connect("system") as client:
        kept = await client.manager.create_volume("kept", MIB)
        host.write(kept.device, b"still here")
        host.run("zpool", "sync", SMALL)
        job = await client.manager.import_image("caught", str(image))
        async for progress in job:
            if progress.bytes_done:
                break
        disk.die()
        await health(client, "SUSPENDED")
        with pytest.raises(PoolUnavailable):
            await client.manager.create_volume("impossible", MIB)
        assert (await job.refresh())["State"] == "running"
        disk.revive()
        host.run("zpool", "clear", SMALL)
        await job.wait()
        await health(client, "ONLINE")
        imported = await client.manager.volume("caught")
        assert host.read(imported.device, 64 * MIB) == image.read_bytes()
        image.unlink()
        assert host.read((await client.manager.volume("kept")).device, 10) == b"still here"
        assert host.run("zpool", "list", "-H", "-o", "health", SMALL) == "ONLINE"
    assert host.unit("MainPID") == pid
