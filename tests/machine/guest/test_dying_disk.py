"""The disk below a pool dies and comes back; whoever writes waits, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

import host
import pytest
from host import MIB, SMALL, serving, small_pool

from mvirt_zfs_dbus.client import Client
from mvirt_zfs_dbus.errors import PoolUnavailable


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
    first, second = os.urandom(32 * MIB), os.urandom(32 * MIB)
    async with Client.connect("system") as client:
        kept = await client.manager.create_volume("kept", MIB)
        host.write(kept.device, b"still here")
        host.run("zpool", "sync", SMALL)
        reading, writing = os.pipe()
        suspended = threading.Event()

        def feed() -> None:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(first)
                suspended.wait()
                pipe.write(second)

        threading.Thread(target=feed, daemon=True).start()
        job = await client.manager.import_image("caught", reading, size=64 * MIB, format="raw")
        os.close(reading)
        async for progress in job:
            if progress.bytes_done:
                break
        disk.die()
        await health(client, "SUSPENDED")
        suspended.set()
        with pytest.raises(PoolUnavailable):
            await client.manager.create_volume("impossible", MIB)
        assert (await job.refresh())["State"] == "running"
        disk.revive()
        host.run("zpool", "clear", SMALL)
        await job.wait()
        await health(client, "ONLINE")
        imported = await client.manager.volume("caught")
        assert host.read(imported.device, 64 * MIB) == first + second
        assert host.read((await client.manager.volume("kept")).device, 10) == b"still here"
        assert host.run("zpool", "list", "-H", "-o", "health", SMALL) == "ONLINE"
    assert host.unit("MainPID") == pid
