from __future__ import annotations

import pytest

from mvirt_zfs_dbus.errors import (
    AlreadyExists,
    DeviceBusy,
    HasClones,
    NewerSnapshots,
    NotFound,
)
from mvirt_zfs_dbus.store.base import Store

from .backends import StoreBackend
from .builders import MIB, NOW, clone, id_is_free, new, new_id, snapshot, volume
from .conftest import Stores

NOBODY = "00000000-0000-4000-8000-000000000000"


async def test_a_snapshot_is_what_was_asked_for_and_in_the_inventory(store: Store) -> None:
    made = await volume(store, size=2 * MIB)
    snapshot_id = new_id()
    taken = await store.create_snapshot(made.id, snapshot_id, "before", NOW + 5)
    assert (taken.id, taken.name, taken.volume_id) == (snapshot_id, "before", made.id)
    assert (taken.size, taken.created_at) == (2 * MIB, NOW + 5)
    found = await store.scan()
    assert found.snapshots == {taken.id: taken}
    assert found.volumes == {made.id: made}


async def test_snapshots_are_in_the_order_they_were_taken_in(store: Store, stores: Stores) -> None:
    made = await volume(store)
    names = ["z", "a", "m", "b", "y"]
    taken = [await snapshot(store, made, name) for name in names]
    assert len({one.created_at for one in taken}) == 1, "times that tie are what this is about"
    assert [one.name for one in (await store.scan()).snapshots.values()] == names
    store = await stores.reopen(store)
    assert list((await store.scan()).snapshots.values()) == taken


async def test_order_holds_when_snapshots_between_are_destroyed(store: Store) -> None:
    made = await volume(store)
    first, second, third = [await snapshot(store, made, name) for name in ("c", "b", "a")]
    await store.destroy_snapshot(third.id, defer=False)
    await store.destroy_snapshot(second.id, defer=False)
    last = await snapshot(store, made, "0")
    assert list((await store.scan()).snapshots.values()) == [first, last]
    with pytest.raises(NewerSnapshots, match="'0'"):
        await store.rollback(first.id, destroy_newer=False)


async def test_a_snapshot_id_that_is_taken_is_refused(store: Store) -> None:
    made = await volume(store)
    taken = await snapshot(store, made, "first")
    with pytest.raises(AlreadyExists):
        await store.create_snapshot(made.id, taken.id, "second", NOW)
    assert (await store.scan()).snapshots == {taken.id: taken}


async def test_a_destroyed_snapshot_is_gone_and_its_id_free(store: Store, stores: Stores) -> None:
    made = await volume(store)
    taken = await snapshot(store, made)
    await store.destroy_snapshot(taken.id, defer=False)
    assert not (await store.scan()).snapshots
    store = await stores.reopen(store)
    assert (await store.scan()).volumes == {made.id: made}
    assert not (await store.scan()).snapshots
    await store.create_snapshot(made.id, taken.id, "again", NOW)
    with pytest.raises(NotFound):
        await store.destroy_snapshot(NOBODY, defer=False)


async def test_a_snapshot_with_clones_is_not_destroyed(store: Store) -> None:
    made = await volume(store)
    taken = await snapshot(store, made)
    await store.template_from_snapshot(taken.id, clone("golden"))
    with pytest.raises(HasClones, match="golden"):
        await store.destroy_snapshot(taken.id, defer=False)
    assert (await store.scan()).snapshots == {taken.id: taken}


async def test_a_deferred_snapshot_goes_with_its_last_clone(store: Store, stores: Stores) -> None:
    made = await volume(store)
    taken = await snapshot(store, made)
    clones = [await store.template_from_snapshot(taken.id, clone(name)) for name in ("a", "b")]
    await store.destroy_snapshot(taken.id, defer=True)
    assert not (await store.scan()).snapshots
    with pytest.raises(NotFound):
        await store.rollback(taken.id, destroy_newer=True)
    store = await stores.reopen(store)
    assert not (await store.scan()).snapshots
    await store.destroy_template(clones[0].id, defer=False)
    with pytest.raises(AlreadyExists):
        await store.create_snapshot(made.id, taken.id, "again", NOW)
    await store.destroy_template(clones[1].id, defer=False)
    await store.create_snapshot(made.id, taken.id, "again", NOW)


async def test_a_deferred_snapshot_without_clones_goes_at_once(store: Store) -> None:
    made = await volume(store)
    taken = await snapshot(store, made)
    await store.destroy_snapshot(taken.id, defer=True)
    await store.create_snapshot(made.id, taken.id, "again", NOW)


# Rollback


async def test_a_rollback_brings_the_data_back(store: Store, backend: StoreBackend) -> None:
    made = await volume(store)
    backend.write(made.device, 0, b"before")
    taken = await snapshot(store, made)
    backend.write(made.device, 0, b"after!")
    backend.write(made.device, MIB // 2, b"more")
    rolled = await store.rollback(taken.id, destroy_newer=False)
    assert rolled == made
    assert backend.read(rolled.device, 0, 6) == b"before"
    assert backend.read(rolled.device, MIB // 2, 4) == bytes(4)
    found = await store.scan()
    assert found.volumes == {made.id: made}
    assert found.snapshots == {taken.id: taken}


async def test_a_volume_can_be_written_and_rolled_back_again(
    store: Store, backend: StoreBackend
) -> None:
    made = await volume(store)
    backend.write(made.device, 0, b"kept")
    taken = await snapshot(store, made)
    for _ in range(2):
        backend.write(made.device, 0, b"lost")
        await store.rollback(taken.id, destroy_newer=False)
        assert backend.read(made.device, 0, 4) == b"kept"


async def test_a_rollback_brings_the_size_back(store: Store, backend: StoreBackend) -> None:
    made = await volume(store, size=MIB)
    taken = await snapshot(store, made)
    await store.resize(made.id, 4 * MIB)
    rolled = await store.rollback(taken.id, destroy_newer=False)
    assert rolled.size == MIB
    assert backend.device_size(rolled.device) == MIB
    assert (await store.scan()).volumes[made.id].size == MIB


async def test_a_snapshot_keeps_the_size_its_volume_had(store: Store) -> None:
    made = await volume(store, size=MIB)
    taken = await snapshot(store, made)
    await store.resize(made.id, 2 * MIB)
    assert (await store.scan()).snapshots[taken.id].size == MIB


async def test_a_rollback_does_not_destroy_newer_snapshots_by_default(
    store: Store, backend: StoreBackend
) -> None:
    made = await volume(store)
    first = await snapshot(store, made, "first")
    for name in ("second", "third"):
        await snapshot(store, made, name)
    backend.write(made.device, 0, b"now")
    before = await store.scan()
    with pytest.raises(NewerSnapshots, match=r"second.*third"):
        await store.rollback(first.id, destroy_newer=False)
    assert await store.scan() == before
    assert backend.read(made.device, 0, 3) == b"now"


async def test_a_rollback_destroys_newer_snapshots_when_asked(
    store: Store, stores: Stores, backend: StoreBackend
) -> None:
    made = await volume(store)
    backend.write(made.device, 0, b"1")
    older = await snapshot(store, made, "older")
    first = await snapshot(store, made, "first")
    for name in ("second", "third"):
        backend.write(made.device, 0, b"2")
        await snapshot(store, made, name)
    await store.rollback(first.id, destroy_newer=True)
    assert backend.read(made.device, 0, 1) == b"1"
    store = await stores.reopen(store)
    assert list((await store.scan()).snapshots.values()) == [older, first]


@pytest.mark.parametrize("hidden", [False, True])
async def test_a_rollback_does_not_destroy_newer_snapshots_with_clones(
    store: Store, backend: StoreBackend, hidden: bool
) -> None:
    made = await volume(store)
    first = await snapshot(store, made, "first")
    second = await snapshot(store, made, "second")
    await store.template_from_snapshot(second.id, clone("golden"))
    if hidden:
        await store.destroy_snapshot(second.id, defer=True)
    backend.write(made.device, 0, b"now")
    before = await store.scan()
    with pytest.raises(HasClones, match="golden"):
        await store.rollback(first.id, destroy_newer=True)
    assert await store.scan() == before
    assert backend.read(made.device, 0, 3) == b"now"


async def test_a_volume_somebody_has_open_is_not_rolled_back(
    store: Store, backend: StoreBackend
) -> None:
    made = await volume(store)
    taken = await snapshot(store, made)
    backend.write(made.device, 0, b"now")
    async with backend.held_open(made.device) as pid:
        with pytest.raises(DeviceBusy, match=str(pid)):
            await store.rollback(taken.id, destroy_newer=False)
    assert backend.read(made.device, 0, 3) == b"now"


async def test_a_snapshots_clones_outlive_a_rollback_to_it(
    store: Store, backend: StoreBackend
) -> None:
    made = await volume(store)
    backend.write(made.device, 0, b"golden")
    taken = await snapshot(store, made)
    cloned = await store.template_from_snapshot(taken.id, clone())
    await store.rollback(taken.id, destroy_newer=False)
    assert backend.read(cloned.device, 0, 6) == b"golden"
    with pytest.raises(HasClones):
        await store.destroy_snapshot(taken.id, defer=False)


async def test_a_rolled_back_volume_can_be_destroyed(store: Store) -> None:
    made = await volume(store)
    taken = await snapshot(store, made)
    await store.rollback(taken.id, destroy_newer=False)
    await store.destroy_volume(made.id, snapshots=True, defer=False)
    assert await id_is_free(store, made.id)


async def test_a_thick_volume_stays_thick_over_a_rollback(store: Store) -> None:
    made = await store.create_volume(new(thin=False))
    taken = await snapshot(store, made)
    assert not (await store.rollback(taken.id, destroy_newer=False)).thin


async def test_a_snapshot_has_usage_of_its_own(store: Store, backend: StoreBackend) -> None:
    made = await volume(store)
    backend.write(made.device, 0, b"x" * (MIB // 2))
    taken = await snapshot(store, made)
    await backend.settle()
    assert (await store.usage(made.id, taken.id)).referenced > 0
    with pytest.raises(NotFound):
        await store.usage(made.id, NOBODY)


async def test_a_snapshot_that_does_not_exist_is_not_found(store: Store) -> None:
    for operation in (
        store.rollback(NOBODY, destroy_newer=True),
        store.destroy_snapshot(NOBODY, defer=True),
        store.template_from_snapshot(NOBODY, clone()),
        store.copy_to_template(NOBODY, clone(), lambda done, total: None),
    ):
        with pytest.raises(NotFound):
            await operation
