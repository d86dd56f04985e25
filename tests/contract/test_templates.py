from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from mvirt_zfs_dbus.errors import AlreadyExists, DeviceBusy, HasClones, InvalidSize, NotFound
from mvirt_zfs_dbus.store.base import Store

from .backends import StoreBackend
from .builders import (
    BLOCK,
    MIB,
    NOW,
    clone,
    id_is_free,
    ignore_progress,
    new_id,
    snapshot,
    template,
    volume,
)
from .conftest import Stores

NOBODY = "00000000-0000-4000-8000-000000000000"


async def test_a_template_from_a_snapshot_is_what_was_asked_for(
    store: Store, backend: StoreBackend
) -> None:
    made = await volume(store, size=2 * MIB)
    backend.write(made.device, MIB, b"golden")
    taken = await snapshot(store, made)
    backend.write(made.device, MIB, b"later!")
    asked = replace(clone("debian"), labels={"os": "debian"})
    found = await store.template_from_snapshot(taken.id, asked)
    assert (found.id, found.name, found.size) == (asked.id, "debian", 2 * MIB)
    assert (found.block_size, found.created_at, found.labels) == (BLOCK, NOW, {"os": "debian"})
    assert (found.origin_id, found.source_volume_id) == (taken.id, made.id)
    assert found.snapshot == f"{store.pool_name}/{found.id}@img"
    assert backend.read(found.device, MIB, 6) == b"golden"
    assert (await store.scan()).templates == {found.id: found}


async def test_a_template_can_be_renamed_and_labelled(store: Store, stores: Stores) -> None:
    made = await template(store, await volume(store))
    await store.rename(made.id, "renamed")
    await store.set_labels(made.id, {"tier": "gold"})
    store = await stores.reopen(store)
    expected = replace(made, name="renamed", labels={"tier": "gold"})
    assert (await store.scan()).templates == {made.id: expected}


async def test_a_clone_has_the_templates_data_and_size(store: Store, backend: StoreBackend) -> None:
    made = await volume(store, size=2 * MIB)
    backend.write(made.device, 0, b"golden")
    golden = await template(store, made)
    asked = replace(clone("web"), labels={"owner": "anna"})
    cloned = await store.clone(golden.id, asked)
    assert (cloned.id, cloned.name, cloned.size) == (asked.id, "web", 2 * MIB)
    assert (cloned.block_size, cloned.created_at) == (BLOCK, NOW)
    assert cloned.labels == {"owner": "anna"}
    assert cloned.origin_id == golden.id
    assert backend.read(cloned.device, 0, 6) == b"golden"
    assert backend.device_size(cloned.device) == 2 * MIB
    assert (await store.scan()).volumes == {made.id: made, cloned.id: cloned}


async def test_clones_and_their_template_do_not_see_each_others_writes(
    store: Store, backend: StoreBackend
) -> None:
    made = await volume(store)
    backend.write(made.device, 0, b"golden")
    golden = await template(store, made)
    one, two = [await store.clone(golden.id, clone(name)) for name in ("one", "two")]
    backend.write(one.device, 0, b"first!")
    backend.write(made.device, 0, b"source")
    assert backend.read(one.device, 0, 6) == b"first!"
    assert backend.read(two.device, 0, 6) == b"golden"
    assert backend.read(golden.device, 0, 6) == b"golden"


async def test_a_clone_may_be_larger_than_its_template(store: Store, backend: StoreBackend) -> None:
    golden = await template(store, await volume(store, size=MIB))
    cloned = await store.clone(golden.id, clone(size=3 * MIB))
    assert cloned.size == backend.device_size(cloned.device) == 3 * MIB
    assert backend.read(cloned.device, 2 * MIB, MIB) == bytes(MIB)


async def test_a_clone_is_never_smaller_than_its_template(store: Store) -> None:
    golden = await template(store, await volume(store, size=2 * MIB))
    asked = clone(size=MIB)
    with pytest.raises(InvalidSize):
        await store.clone(golden.id, asked)
    assert asked.id not in (await store.scan()).volumes
    assert await id_is_free(store, asked.id)


async def test_a_clone_with_an_id_that_is_taken_is_refused(store: Store) -> None:
    made = await volume(store)
    golden = await template(store, made)
    for operation in (
        store.clone(golden.id, clone(id=made.id)),
        store.clone(golden.id, clone(id=golden.id)),
        store.template_from_snapshot(golden.origin_id, clone(id=made.id)),
        store.copy_to_template(golden.origin_id, clone(id=made.id), ignore_progress),
    ):
        with pytest.raises(AlreadyExists):
            await operation
    found = await store.scan()
    assert (found.volumes, found.templates) == ({made.id: made}, {golden.id: golden})


async def test_a_template_with_clones_is_not_destroyed_and_they_are_named(store: Store) -> None:
    golden = await template(store, await volume(store))
    for name in ("web", "db"):
        await store.clone(golden.id, clone(name))
    with pytest.raises(HasClones) as refused:
        await store.destroy_template(golden.id, defer=False)
    assert "'web'" in str(refused.value) and "'db'" in str(refused.value)
    assert (await store.scan()).templates == {golden.id: golden}


async def test_a_template_without_clones_is_destroyed_and_its_snapshot_let_go(store: Store) -> None:
    golden = await template(store, await volume(store))
    cloned = await store.clone(golden.id, clone())
    await store.destroy_volume(cloned.id, snapshots=False, defer=False)
    await store.destroy_template(golden.id, defer=False)
    assert not (await store.scan()).templates
    await store.destroy_snapshot(golden.origin_id, defer=False)
    assert await id_is_free(store, golden.id)


async def test_a_deferred_template_is_gone_at_once_and_its_space_with_the_last_clone(
    store: Store, stores: Stores, backend: StoreBackend
) -> None:
    made = await volume(store)
    backend.write(made.device, 0, b"golden")
    golden = await template(store, made)
    one, two = [await store.clone(golden.id, clone(name)) for name in ("one", "two")]
    await store.destroy_template(golden.id, defer=True)
    with pytest.raises(NotFound):
        await store.clone(golden.id, clone())
    with pytest.raises(NotFound):
        await store.destroy_template(golden.id, defer=True)
    with pytest.raises(HasClones):
        await store.destroy_snapshot(golden.origin_id, defer=False)
    store = await stores.reopen(store)
    found = await store.scan()
    assert not found.templates
    assert backend.read(found.volumes[two.id].device, 0, 6) == b"golden"
    await store.destroy_volume(one.id, snapshots=False, defer=False)
    with pytest.raises(AlreadyExists):
        await store.clone((await template(store, made)).id, clone(id=golden.id))
    await store.destroy_volume(two.id, snapshots=False, defer=False)
    await store.destroy_snapshot(golden.origin_id, defer=False)
    assert await id_is_free(store, golden.id)


async def test_a_deferred_template_without_clones_goes_at_once(store: Store) -> None:
    golden = await template(store, await volume(store))
    await store.destroy_template(golden.id, defer=True)
    await store.destroy_snapshot(golden.origin_id, defer=False)
    assert await id_is_free(store, golden.id)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_chain_of_deferred_deletions_goes_with_its_last_link(
    store: Store, stores: Stores, restarted: bool
) -> None:
    """volume → snapshot → template → volume → snapshot → template → volume."""
    first = await volume(store, "first")
    golden = await template(store, first, "golden")
    second = await store.clone(golden.id, clone("second"))
    silver = await template(store, second, "silver")
    third = await store.clone(silver.id, clone("third"))
    for destroy in (
        store.destroy_volume(first.id, snapshots=True, defer=True),
        store.destroy_template(golden.id, defer=True),
        store.destroy_volume(second.id, snapshots=True, defer=True),
        store.destroy_template(silver.id, defer=True),
    ):
        await destroy
    found = await store.scan()
    assert set(found.volumes) == {third.id}
    assert not found.snapshots and not found.templates
    if restarted:
        store = await stores.reopen(store)
        assert set((await store.scan()).volumes) == {third.id}
    await store.destroy_volume(third.id, snapshots=False, defer=False)
    for gone in (first, golden, second, silver, third):
        assert await id_is_free(store, gone.id)


async def test_a_hidden_clone_keeps_its_template(store: Store) -> None:
    golden = await template(store, await volume(store), "golden")
    hidden = await store.clone(golden.id, clone("hidden"))
    silver = await template(store, hidden, "silver")
    await store.destroy_volume(hidden.id, snapshots=True, defer=True)
    with pytest.raises(HasClones):
        await store.destroy_template(golden.id, defer=False)
    await store.destroy_template(silver.id, defer=False)
    await store.destroy_template(golden.id, defer=False)
    assert await id_is_free(store, hidden.id)


async def test_collecting_takes_what_a_removal_behind_the_store_set_free(
    store: Store, backend: StoreBackend
) -> None:
    golden = await template(store, await volume(store))
    cloned = await store.clone(golden.id, clone())
    await store.destroy_template(golden.id, defer=True)
    await backend.remove_behind(cloned.id)
    await store.collect()
    assert await id_is_free(store, golden.id)
    await store.destroy_snapshot(golden.origin_id, defer=False)


async def test_starting_takes_what_a_removal_behind_the_store_set_free(
    store: Store, stores: Stores, backend: StoreBackend
) -> None:
    golden = await template(store, await volume(store))
    cloned = await store.clone(golden.id, clone())
    await store.destroy_template(golden.id, defer=True)
    await stores.close(store)
    await backend.remove_behind(cloned.id)
    store = await stores.open()
    assert await id_is_free(store, golden.id)


async def test_collecting_leaves_what_has_clones(store: Store, backend: StoreBackend) -> None:
    made = await volume(store)
    backend.write(made.device, 0, b"golden")
    golden = await template(store, made)
    cloned = await store.clone(golden.id, clone())
    await store.destroy_template(golden.id, defer=True)
    before = await store.scan()
    await store.collect()
    assert await store.scan() == before
    assert backend.read(cloned.device, 0, 6) == b"golden"


async def test_a_template_somebody_has_open_is_not_destroyed(
    store: Store, backend: StoreBackend
) -> None:
    golden = await template(store, await volume(store))
    async with backend.held_open(golden.device) as pid:
        with pytest.raises(DeviceBusy, match=str(pid)):
            await store.destroy_template(golden.id, defer=False)
    assert (await store.scan()).templates == {golden.id: golden}


async def test_a_template_has_usage_and_users(store: Store, backend: StoreBackend) -> None:
    made = await volume(store)
    backend.write(made.device, 0, b"x" * (MIB // 2))
    golden = await template(store, made)
    await backend.settle()
    assert (await store.usage(golden.id)).referenced > 0
    assert await store.users(golden.id) == []


# Full copies


async def test_a_copied_template_depends_on_nothing(store: Store, backend: StoreBackend) -> None:
    made = await volume(store, size=2 * MIB)
    backend.write(made.device, 0, b"first")
    backend.write(made.device, 2 * MIB - BLOCK, b"last")
    taken = await snapshot(store, made)
    backend.write(made.device, 0, b"later")
    asked = replace(clone("copy"), labels={"os": "debian"})
    copied = await store.copy_to_template(taken.id, asked, ignore_progress)
    assert (copied.id, copied.name, copied.size) == (asked.id, "copy", 2 * MIB)
    assert (copied.labels, copied.created_at) == ({"os": "debian"}, NOW)
    assert (copied.origin_id, copied.source_volume_id) == ("", made.id)
    assert copied.snapshot == f"{store.pool_name}/{copied.id}@img"
    assert (await store.scan()).templates == {copied.id: copied}
    await store.destroy_volume(made.id, snapshots=True, defer=False)
    cloned = await store.clone(copied.id, clone())
    assert backend.read(cloned.device, 0, 5) == b"first"
    assert backend.read(cloned.device, 2 * MIB - BLOCK, 4) == b"last"
    assert backend.read(cloned.device, BLOCK, MIB) == bytes(MIB)


async def test_a_copy_tells_how_far_it_is(store: Store, backend: StoreBackend) -> None:
    made = await volume(store, size=2 * MIB)
    backend.write(made.device, 0, b"data" * 1000)
    taken = await snapshot(store, made)
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        assert asyncio.get_running_loop() is loop
        told.append((done, total))

    loop = asyncio.get_running_loop()
    await store.copy_to_template(taken.id, clone(), progress)
    assert told
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 0


async def test_a_cancelled_copy_leaves_nothing(store: Store, backend: StoreBackend) -> None:
    made = await volume(store, size=64 * MIB)
    backend.write(made.device, 0, random.Random(1).randbytes(48 * MIB))
    taken = await snapshot(store, made)
    before = await store.scan()
    asked = clone()
    started = asyncio.Event()
    copying = asyncio.create_task(
        store.copy_to_template(taken.id, asked, lambda done, total: started.set())
    )
    await started.wait()
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert await store.scan() == before
    assert await id_is_free(store, asked.id)
    await store.destroy_volume(made.id, snapshots=True, defer=False)


async def test_a_template_from_a_volume_that_is_gone_still_names_it(
    store: Store, backend: StoreBackend
) -> None:
    made = await volume(store)
    taken = await snapshot(store, made)
    copied = await store.copy_to_template(taken.id, clone(), ignore_progress)
    await store.destroy_volume(made.id, snapshots=True, defer=False)
    assert (await store.scan()).templates[copied.id].source_volume_id == made.id


async def test_a_template_that_does_not_exist_is_not_found(store: Store) -> None:
    asked = clone(id=new_id())
    for operation in (
        store.clone(NOBODY, asked),
        store.destroy_template(NOBODY, defer=True),
    ):
        with pytest.raises(NotFound):
            await operation
    assert await id_is_free(store, asked.id)
