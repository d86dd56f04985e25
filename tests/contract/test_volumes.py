from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mvirt_zfs_dbus.errors import (
    AlreadyExists,
    DeviceBusy,
    HasClones,
    HasSnapshots,
    NoSpace,
    NotFound,
    WouldShrink,
)
from mvirt_zfs_dbus.model import User
from mvirt_zfs_dbus.store.base import Store

from .backends import StoreBackend
from .builders import (
    BLOCK,
    MIB,
    NOW,
    clone,
    id_is_free,
    new,
    new_id,
    snapshot,
    template,
    volume,
)
from .conftest import Stores

NOBODY = "00000000-0000-4000-8000-000000000000"


async def test_a_new_pool_is_empty_and_online(store: Store) -> None:
    found = await store.scan()
    assert found.pool.name == store.pool_name
    assert found.pool.health == "ONLINE"
    assert not found.volumes and not found.snapshots and not found.templates


async def test_a_created_volume_is_what_was_asked_for(store: Store) -> None:
    asked = new("web", 2 * MIB, labels={"owner": "anna"})
    made = await store.create_volume(asked)
    assert (made.id, made.name, made.size, made.block_size) == (asked.id, "web", 2 * MIB, BLOCK)
    assert made.created_at == NOW
    assert made.labels == {"owner": "anna"}
    assert made.thin
    assert made.origin_id == made.source == made.checksum == ""


async def test_a_created_volume_is_in_the_inventory(store: Store) -> None:
    made = await volume(store)
    assert (await store.scan()).volumes == {made.id: made}


async def test_a_new_volume_reads_as_zeros_in_all_its_size(
    store: Store, backend: StoreBackend
) -> None:
    made = await volume(store, size=MIB)
    assert backend.device_size(made.device) == MIB
    assert backend.read(made.device, 0, MIB) == bytes(MIB)


async def test_a_volume_keeps_what_is_written_to_its_device(
    store: Store, stores: Stores, backend: StoreBackend
) -> None:
    made = await volume(store)
    backend.write(made.device, BLOCK, b"guest" * 100)
    store = await stores.reopen(store)
    device = (await store.scan()).volumes[made.id].device
    assert backend.read(device, BLOCK, 500) == b"guest" * 100


async def test_an_id_that_is_taken_is_refused_and_its_volume_untouched(store: Store) -> None:
    made = await volume(store)
    with pytest.raises(AlreadyExists):
        await store.create_volume(new("other", 2 * MIB, id=made.id))
    assert (await store.scan()).volumes == {made.id: made}


async def test_of_two_calls_with_one_id_at_the_same_time_one_makes_the_volume(store: Store) -> None:
    shared = new_id()
    answers = await asyncio.gather(
        *(store.create_volume(new(name, id=shared)) for name in ("one", "two")),
        return_exceptions=True,
    )
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [type(failure) for failure in failures] == [AlreadyExists]
    assert list((await store.scan()).volumes) == [shared]


async def test_volumes_are_made_in_parallel(store: Store) -> None:
    made = await asyncio.gather(*(volume(store, f"disk-{n}") for n in range(6)))
    assert set((await store.scan()).volumes) == {one.id for one in made}


async def test_a_name_that_is_a_strangers_is_refused_and_left_alone(
    store: Store, backend: StoreBackend
) -> None:
    dataset_id = new_id()
    await backend.add_stranger(dataset_id)
    with pytest.raises(AlreadyExists):
        await store.create_volume(new(id=dataset_id))
    assert await backend.stranger_exists(dataset_id)


async def test_a_thick_volume_says_so(store: Store) -> None:
    made = await store.create_volume(new(thin=False))
    assert not made.thin
    assert not (await store.scan()).volumes[made.id].thin


async def test_a_thick_volume_that_does_not_fit_is_refused_and_leaves_nothing(store: Store) -> None:
    available = (await store.pool()).usage.available
    asked = new(size=(2 * available // BLOCK) * BLOCK, thin=False)
    with pytest.raises(NoSpace):
        await store.create_volume(asked)
    assert not (await store.scan()).volumes
    assert await id_is_free(store, asked.id)


async def test_a_thin_volume_may_be_larger_than_the_pool(store: Store) -> None:
    available = (await store.pool()).usage.available
    made = await volume(store, size=(2 * available // BLOCK) * BLOCK)
    assert made.size > available


# Labels and names


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"k": ""},
        {"größe": "ÄÖÜ €", "絵": "🖥", "with space": "a\nb\tc", "quote'\"\\": "${x} %s =:,;@"},
        {f"key-{n}": "v" * 80 for n in range(64)},
    ],
    ids=["none", "empty value", "unicode", "many"],
)
async def test_labels_come_back_as_they_were(
    store: Store, stores: Stores, labels: dict[str, str]
) -> None:
    made = await store.create_volume(new(labels=labels))
    assert made.labels == labels
    store = await stores.reopen(store)
    assert (await store.scan()).volumes[made.id].labels == labels


async def test_setting_labels_replaces_them_all(store: Store, stores: Stores) -> None:
    made = await store.create_volume(new(labels={"a": "1", "b": "2"}))
    await store.set_labels(made.id, {"b": "3"})
    assert (await store.scan()).volumes == {made.id: replace(made, labels={"b": "3"})}
    store = await stores.reopen(store)
    assert (await store.scan()).volumes[made.id].labels == {"b": "3"}


async def test_renaming_changes_the_name_alone(
    store: Store, stores: Stores, backend: StoreBackend
) -> None:
    made = await store.create_volume(new("before", labels={"a": "1"}))
    backend.write(made.device, 0, b"same")
    await store.rename(made.id, "after")
    store = await stores.reopen(store)
    found = (await store.scan()).volumes
    assert found == {made.id: replace(made, name="after")}
    assert backend.read(found[made.id].device, 0, 4) == b"same"


# Resize


async def test_a_volume_grows_and_keeps_its_data(store: Store, backend: StoreBackend) -> None:
    made = await volume(store, size=MIB)
    backend.write(made.device, 0, b"first")
    grown = await store.resize(made.id, 3 * MIB)
    assert grown == replace(made, size=3 * MIB)
    assert (await store.scan()).volumes[made.id].size == 3 * MIB
    assert backend.device_size(grown.device) == 3 * MIB
    assert backend.read(grown.device, 0, 5) == b"first"
    assert backend.read(grown.device, MIB, 2 * MIB) == bytes(2 * MIB)


async def test_a_volume_does_not_shrink(store: Store, backend: StoreBackend) -> None:
    made = await volume(store, size=2 * MIB)
    with pytest.raises(WouldShrink):
        await store.resize(made.id, MIB)
    assert (await store.scan()).volumes[made.id].size == 2 * MIB
    assert backend.device_size(made.device) == 2 * MIB


async def test_resizing_to_the_present_size_changes_nothing(store: Store) -> None:
    made = await volume(store)
    assert await store.resize(made.id, made.size) == made


async def test_a_thick_volume_does_not_grow_over_the_pools_space(store: Store) -> None:
    made = await store.create_volume(new(thin=False))
    available = (await store.pool()).usage.available
    with pytest.raises(NoSpace):
        await store.resize(made.id, (2 * available // BLOCK) * BLOCK)
    assert (await store.scan()).volumes[made.id].size == made.size


# Destroy


async def test_a_destroyed_volume_is_gone_and_its_id_free(store: Store, stores: Stores) -> None:
    made = await volume(store)
    await store.destroy_volume(made.id, snapshots=False, defer=False)
    assert not (await store.scan()).volumes
    store = await stores.reopen(store)
    assert not (await store.scan()).volumes
    assert await id_is_free(store, made.id)


@pytest.mark.parametrize("defer", [False, True])
async def test_a_volume_with_snapshots_is_not_destroyed_by_default(
    store: Store, defer: bool
) -> None:
    made = await volume(store)
    taken = await snapshot(store, made, "before-upgrade")
    with pytest.raises(HasSnapshots, match="before-upgrade"):
        await store.destroy_volume(made.id, snapshots=False, defer=defer)
    found = await store.scan()
    assert found.volumes == {made.id: made}
    assert found.snapshots == {taken.id: taken}


@pytest.mark.parametrize("defer", [False, True])
async def test_a_volume_is_destroyed_with_its_snapshots_when_asked(
    store: Store, defer: bool
) -> None:
    made = await volume(store)
    for name in ("one", "two"):
        await snapshot(store, made, name)
    await store.destroy_volume(made.id, snapshots=True, defer=defer)
    found = await store.scan()
    assert not found.volumes and not found.snapshots
    assert await id_is_free(store, made.id)


async def test_a_volume_whose_snapshot_has_clones_is_not_destroyed(store: Store) -> None:
    made = await volume(store)
    cloned = await template(store, made, "golden")
    before = await store.scan()
    with pytest.raises(HasClones, match="golden"):
        await store.destroy_volume(made.id, snapshots=True, defer=False)
    after = await store.scan()
    assert (after.volumes, after.snapshots) == (before.volumes, before.snapshots)
    assert after.templates == {cloned.id: cloned}


async def test_a_deferred_volume_is_gone_at_once_and_its_space_with_the_last_clone(
    store: Store, stores: Stores, backend: StoreBackend
) -> None:
    made = await volume(store)
    backend.write(made.device, 0, b"golden image")
    cloned = await template(store, made)
    await store.destroy_volume(made.id, snapshots=True, defer=True)
    found = await store.scan()
    assert not found.volumes and not found.snapshots
    store = await stores.reopen(store)
    found = await store.scan()
    assert not found.volumes and not found.snapshots
    assert backend.read(found.templates[cloned.id].device, 0, 12) == b"golden image"
    with pytest.raises(AlreadyExists):
        await store.create_volume(new(id=made.id))
    await store.destroy_template(cloned.id, defer=False)
    assert await id_is_free(store, made.id)


async def test_a_deferred_snapshot_keeps_its_volume_from_being_destroyed(store: Store) -> None:
    made = await volume(store)
    taken = await snapshot(store, made)
    cloned = await store.template_from_snapshot(taken.id, clone())
    await store.destroy_snapshot(taken.id, defer=True)
    with pytest.raises(HasSnapshots):
        await store.destroy_volume(made.id, snapshots=False, defer=False)
    with pytest.raises(HasClones, match=cloned.name):
        await store.destroy_volume(made.id, snapshots=True, defer=False)
    assert list((await store.scan()).volumes) == [made.id]
    await store.destroy_volume(made.id, snapshots=True, defer=True)
    await store.destroy_template(cloned.id, defer=False)
    assert await id_is_free(store, made.id)


async def test_a_volume_somebody_has_open_is_not_destroyed_and_the_holder_is_named(
    store: Store, backend: StoreBackend
) -> None:
    made = await volume(store)
    async with backend.held_open(made.device) as pid:
        with pytest.raises(DeviceBusy, match=str(pid)):
            await store.destroy_volume(made.id, snapshots=False, defer=False)
        assert (await store.scan()).volumes == {made.id: made}
    await store.destroy_volume(made.id, snapshots=False, defer=False)
    assert not (await store.scan()).volumes


async def test_users_are_the_processes_that_have_the_device_open(
    store: Store, backend: StoreBackend
) -> None:
    made = await volume(store)
    other = await volume(store, "other")
    assert await store.users(made.id) == []
    async with backend.held_open(made.device) as pid:
        assert [user.pid for user in await store.users(made.id)] == [pid]
        assert all(isinstance(user, User) and user.command for user in await store.users(made.id))
        assert await store.users(other.id) == []
    assert await store.users(made.id) == []


# Usage


async def test_usage_counts_what_was_written(store: Store, backend: StoreBackend) -> None:
    made = await volume(store, size=4 * MIB)
    before = await store.usage(made.id)
    backend.write(made.device, 0, bytes(range(1, 256)) * (MIB // 255))
    await backend.settle()
    after = await store.usage(made.id)
    assert after.used >= before.used
    assert after.referenced > before.referenced
    assert after.compression_ratio >= 1.0


async def test_the_pool_has_a_size_and_knows_what_is_free(store: Store) -> None:
    usage = (await store.pool()).usage
    assert usage.size > 0
    assert 0 < usage.available <= usage.size
    assert usage.allocated + usage.free <= usage.size
    assert usage.compression_ratio >= 1.0


# What does not exist


async def test_a_volume_that_does_not_exist_is_not_found(store: Store) -> None:
    for operation in (
        store.resize(NOBODY, MIB),
        store.destroy_volume(NOBODY, snapshots=True, defer=True),
        store.rename(NOBODY, "name"),
        store.set_labels(NOBODY, {}),
        store.create_snapshot(NOBODY, new_id(), "name", NOW),
        store.usage(NOBODY),
        store.users(NOBODY),
    ):
        with pytest.raises(NotFound):
            await operation


async def test_a_volume_is_no_template_and_a_template_no_volume(store: Store) -> None:
    made = await volume(store)
    cloned = await template(store, made)
    for operation in (
        store.destroy_template(made.id, defer=True),
        store.clone(made.id, clone()),
        store.destroy_volume(cloned.id, snapshots=True, defer=True),
        store.resize(cloned.id, 2 * MIB),
        store.create_snapshot(cloned.id, new_id(), "name", NOW),
    ):
        with pytest.raises(NotFound):
            await operation
    found = await store.scan()
    assert set(found.volumes) == {made.id} and set(found.templates) == {cloned.id}


async def test_a_destroyed_volume_is_not_found(store: Store) -> None:
    made = await volume(store)
    await store.destroy_volume(made.id, snapshots=False, defer=False)
    with pytest.raises(NotFound):
        await store.destroy_volume(made.id, snapshots=False, defer=False)
