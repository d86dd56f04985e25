from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from mvirt_zfs_dbus.errors import NotFound, PoolUnavailable
from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.base import Inventory, Store

from .backends import StoreBackend
from .builders import clone, id_is_free, new, new_id, snapshot, template, volume
from .conftest import Stores


async def test_a_store_without_its_pool_does_not_start(backend: StoreBackend) -> None:
    with pytest.raises(PoolUnavailable):
        await backend.store_without_pool().start()


async def test_two_services_cannot_have_one_pool(
    store: Store, backend: StoreBackend, stores: Stores
) -> None:
    made = await volume(store)
    with pytest.raises(PoolUnavailable, match="another service"):
        await backend.store().start()
    assert (await store.scan()).volumes == {made.id: made}
    store = await stores.reopen(store)
    assert (await store.scan()).volumes == {made.id: made}


async def test_everything_is_as_it_was_after_a_restart(store: Store, stores: Stores) -> None:
    made = await store.create_volume(new("web", labels={"größe": "klein"}))
    golden = await template(store, made)
    await store.clone(golden.id, clone("clone", 2 * made.size))
    await snapshot(store, made, "second")
    before = await store.scan()
    store = await stores.reopen(store)
    assert await store.scan() == before
    assert list((await store.scan()).snapshots) == list(before.snapshots)


async def test_what_is_no_dataset_of_the_stores_is_neither_listed_nor_touched(
    store: Store, stores: Stores, backend: StoreBackend
) -> None:
    stranger = new_id()
    await backend.add_stranger(stranger)
    store = await stores.reopen(store)
    await store.collect()
    found = await store.scan()
    assert not found.volumes and not found.templates
    for operation in (
        store.destroy_volume(stranger, snapshots=True, defer=True),
        store.destroy_template(stranger, defer=True),
        store.rename(stranger, "mine"),
        store.publish(stranger),
        store.abandon(stranger),
    ):
        with suppress(NotFound):
            await operation
    assert await backend.stranger_exists(stranger)


# Changes from outside


async def test_a_removal_behind_the_store_is_told_and_seen(
    store: Store, backend: StoreBackend
) -> None:
    made = await volume(store)
    other = await volume(store, "other")
    changes = store.watch()
    await backend.remove_behind(made.id)
    async with asyncio.timeout(30):
        while made.id in (await store.scan()).volumes:
            await anext(changes)
    assert (await store.scan()).volumes == {other.id: other}
    with pytest.raises(NotFound):
        await store.rename(made.id, "gone")
    assert await id_is_free(store, made.id)


async def test_every_watcher_is_told(store: Store, backend: StoreBackend) -> None:
    made = await volume(store)
    watchers = [store.watch(), store.watch()]
    await backend.remove_behind(made.id)
    async with asyncio.timeout(30):
        for changes in watchers:
            await anext(changes)


async def test_a_clone_removed_behind_the_store_holds_nothing_back(
    store: Store, backend: StoreBackend
) -> None:
    golden = await template(store, await volume(store))
    cloned = await store.clone(golden.id, clone())
    await backend.remove_behind(cloned.id)
    await store.destroy_template(golden.id, defer=False)
    assert not (await store.scan()).templates


async def test_watching_ends_when_the_store_is_closed(store: Store, stores: Stores) -> None:
    changes = store.watch()

    async def watch() -> None:
        async for _ in changes:
            continue

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await stores.close(store)
    async with asyncio.timeout(30):
        await watching


# Cancellation


async def make_volume(store: Store) -> str:
    return (await store.create_volume(new("cancelled"))).id


async def make_clone(store: Store) -> str:
    templates = (await store.scan()).templates
    return (await store.clone(next(iter(templates)), clone("cancelled"))).id


async def make_template(store: Store) -> str:
    snapshots = (await store.scan()).snapshots
    return (await store.template_from_snapshot(next(iter(snapshots)), clone("cancelled"))).id


async def make_snapshot(store: Store) -> str:
    found = next(iter((await store.scan()).volumes.values()))
    return (await snapshot(store, found, "cancelled")).id


async def make_target(store: Store) -> str:
    asked = new("cancelled")
    await store.create_target(Kind.VOLUME, asked)
    return (await store.publish(asked.id)).id


@pytest.mark.parametrize(
    "make", [make_volume, make_clone, make_template, make_snapshot, make_target]
)
async def test_a_cancelled_operation_is_done_or_undone(
    store: Store, stores: Stores, make: Callable[[Store], Awaitable[str]]
) -> None:
    """Cancelled after each of its turns of the event loop, however many it takes."""
    await template(store, await volume(store))
    for turns in range(1, 30, 3):
        before = await store.scan()
        making = asyncio.ensure_future(make(store))
        for _ in range(turns):
            await asyncio.sleep(0)
        making.cancel()
        with suppress(asyncio.CancelledError):
            await making
        after = await store.scan()
        assert all_ids(before) <= all_ids(after)
        assert len(all_ids(after) - all_ids(before)) <= 1
    before = await store.scan()
    store = await stores.reopen(store)
    assert await store.scan() == before


def all_ids(found: Inventory) -> set[str]:
    return {*found.volumes, *found.snapshots, *found.templates}
