"""Datasets, snapshots, clones, holds and bookmarks that others made are left alone."""

from __future__ import annotations

import uuid

import host
import pytest
from stores import new

from mvirt_zfs_dbus.errors import (
    DeviceBusy,
    HasClones,
    HasSnapshots,
    NewerSnapshots,
    NotFound,
)
from mvirt_zfs_dbus.store.zfs import ZfsStore


async def test_a_snapshot_of_somebody_else_is_never_destroyed_along(
    store: ZfsStore, root: str
) -> None:
    made = await store.create_volume(new())
    taken = await store.create_snapshot(made.id, str(uuid.uuid4()), "ours", 1)
    host.run("zfs", "snapshot", f"{root}/{made.id}@autosnap")
    with pytest.raises(HasSnapshots, match="@autosnap"):
        await store.destroy_volume(made.id, snapshots=True, defer=True)
    with pytest.raises(NewerSnapshots, match="@autosnap"):
        await store.rollback(taken.id, destroy_newer=True)
    found = await store.scan()
    assert set(found.snapshots) == {taken.id}
    assert f"{made.id}@autosnap" in host.datasets(root)


async def test_properties_that_are_inherited_make_nothing_ours(store: ZfsStore, root: str) -> None:
    made = await store.create_volume(new())
    stranger, taken = str(uuid.uuid4()), str(uuid.uuid4())
    host.run("zfs", "create", "-s", "-V", "1M", f"{root}/{stranger}")
    host.run("zfs", "snapshot", f"{root}/{made.id}@{taken}")
    for kind in ("volume", "snapshot"):
        host.run("zfs", "set", f"org.mvirt:kind={kind}", root)
        found = await store.scan()
        assert (set(found.volumes), set(found.snapshots)) == ({made.id}, set())
    with pytest.raises(NotFound):
        await store.destroy_volume(stranger, snapshots=True, defer=True)
    with pytest.raises(NotFound):
        await store.set_labels(stranger, {"ours": "yes"})
    with pytest.raises(NotFound):
        await store.destroy_snapshot(taken, defer=True)
    assert {stranger, f"{made.id}@{taken}"} <= host.datasets(root)


async def test_a_clone_of_somebody_else_keeps_a_snapshot(store: ZfsStore, root: str) -> None:
    made = await store.create_volume(new())
    taken = await store.create_snapshot(made.id, str(uuid.uuid4()), "ours", 1)
    host.run("zfs", "clone", f"{root}/{made.id}@{taken.id}", f"{root}/theirs")
    with pytest.raises(HasClones, match=f"{root}/theirs"):
        await store.destroy_snapshot(taken.id, defer=False)
    assert set((await store.scan()).volumes) == {made.id}


async def test_a_held_snapshot_is_not_destroyed(store: ZfsStore, root: str) -> None:
    made = await store.create_volume(new())
    taken = await store.create_snapshot(made.id, str(uuid.uuid4()), "ours", 1)
    host.run("zfs", "hold", "backup", f"{root}/{made.id}@{taken.id}")
    try:
        with pytest.raises(DeviceBusy, match="held"):
            await store.destroy_volume(made.id, snapshots=True, defer=False)
        assert set((await store.scan()).snapshots) == {taken.id}
    finally:
        host.run("zfs", "release", "backup", f"{root}/{made.id}@{taken.id}")


async def test_a_bookmark_newer_than_the_snapshot_stands_in_the_way_of_a_rollback(
    store: ZfsStore, root: str
) -> None:
    made = await store.create_volume(new())
    older, target, newer = [
        (await store.create_snapshot(made.id, str(uuid.uuid4()), name, 1)).id
        for name in ("older", "target", "newer")
    ]
    for snapshot in (older, target, newer):
        host.run("zfs", "bookmark", f"{root}/{made.id}@{snapshot}", f"{root}/{made.id}#{snapshot}")
    with pytest.raises(NewerSnapshots, match=f"#{newer}; zfs destroy") as refused:
        await store.rollback(target, destroy_newer=True)
    assert f"#{target}" not in refused.value.message
    assert set((await store.scan()).snapshots) == {older, target, newer}
    host.run("zfs", "destroy", f"{root}/{made.id}#{newer}")
    await store.rollback(target, destroy_newer=True)
    assert set((await store.scan()).snapshots) == {older, target}
    await store.destroy_volume(made.id, snapshots=True, defer=False)
