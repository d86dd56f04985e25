"""A pool that is exported, loses a disk, or has no room: a mirror of two files."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import host
import pytest
from stores import Listener, clone, golden, new

from mvirt_zfs_dbus.errors import NoSpace, PoolUnavailable
from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.zfs import ZfsStore

ROOT = "fragile"


@pytest.fixture
def root() -> Iterator[str]:
    """A mirror of two files: a pool that may be lost."""
    files = [Path(f"/var/tmp/fragile-{number}") for number in (1, 2)]
    for file in files:
        with file.open("wb") as disk:
            disk.truncate(256 * host.MIB)
    host.run("zpool", "create", "-O", "mountpoint=none", ROOT, "mirror", *files)
    yield ROOT
    subprocess.run(["zpool", "import", "-d", "/var/tmp", ROOT], capture_output=True)
    host.run("udevadm", "settle")
    host.run("zpool", "destroy", "-f", ROOT)
    for file in files:
        file.unlink()


async def test_what_comes_unfinished_with_an_imported_pool_goes(
    store: ZfsStore, root: str, listener: Listener
) -> None:
    left = f"{root}/.tmp/{uuid.uuid4()}"
    host.run("zfs", "create", "-s", "-V", "1M", left)
    host.run("udevadm", "settle")
    host.run("zpool", "export", root)
    await listener.until(store, lambda found: found.pool.health == "UNAVAIL")
    host.run("zpool", "import", "-d", "/var/tmp", root)
    await listener.until(store, lambda found: found.pool.health == "ONLINE")
    while left.removeprefix(f"{root}/") in host.datasets(root):
        await listener.told()


async def test_a_pool_that_is_exported_is_unavailable_and_comes_back_whole(
    store: ZfsStore, root: str, listener: Listener
) -> None:
    made = await store.create_volume(new())
    host.write(made.device, b"kept")
    _, template = await golden(store, made)
    half = new("half")
    await store.create_target(Kind.VOLUME, half)
    before = await store.scan()

    host.run("udevadm", "settle")
    host.run("zpool", "export", root)
    lost = await listener.until(store, lambda found: found.pool.health == "UNAVAIL")
    assert not lost.volumes and not lost.templates and not lost.snapshots
    assert (await store.pool()).health == "UNAVAIL"
    for operation in (
        store.create_volume(new()),
        store.clone(template, clone()),
        store.destroy_volume(made.id, snapshots=True, defer=True),
        store.rename(made.id, "name"),
        store.resize(made.id, 2 * made.size),
        store.open_target(half.id),
        store.open_spool(),
        store.usage(made.id),
    ):
        with pytest.raises(PoolUnavailable, match="UNAVAIL"):
            await operation

    host.run("zpool", "import", "-d", "/var/tmp", root)
    assert await listener.until(store, lambda found: found.pool.health == "ONLINE") == before
    host.run("udevadm", "settle")
    assert host.read(made.device, 4) == b"kept"
    assert (await store.publish(half.id)).id == half.id, "what was being made goes on"


async def test_a_rollback_whose_reservation_does_not_fit_destroys_no_snapshot(
    store: ZfsStore, root: str
) -> None:
    made = await store.create_volume(new(size=32 * host.MIB, thin=False))
    snapshots = [
        (await store.create_snapshot(made.id, str(uuid.uuid4()), name, 1)).id
        for name in ("target", "newer")
    ]
    host.write(made.device, os.urandom(30 * host.MIB))
    host.run("zpool", "sync", root)
    other = await store.create_volume(new("other"))
    left = int(host.get("available", root)) - 12 * host.MIB
    host.run("zfs", "set", f"refreservation={left}", f"{root}/{other.id}")
    with pytest.raises(NoSpace):
        await store.rollback(snapshots[0], destroy_newer=True)
    assert set((await store.scan()).snapshots) == set(snapshots)


async def test_a_disk_that_goes_offline_is_in_the_pools_health(
    store: ZfsStore, root: str, listener: Listener
) -> None:
    host.run("zpool", "offline", root, "/var/tmp/fragile-2")
    await listener.until(store, lambda found: found.pool.health == "DEGRADED")
    host.run("zpool", "online", root, "/var/tmp/fragile-2")
    await listener.until(store, lambda found: found.pool.health == "ONLINE")
