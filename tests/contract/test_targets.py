from __future__ import annotations

import os
from dataclasses import replace

import pytest

from mvirt_zfs_dbus.errors import AlreadyExists, NoSpace, NotFound
from mvirt_zfs_dbus.model import Kind, Template, Volume
from mvirt_zfs_dbus.store.base import Store

from .backends import StoreBackend
from .builders import BLOCK, MIB, NOW, clone, id_is_free, new, new_id, volume
from .conftest import Stores

KINDS = list(Kind)


async def write_target(store: Store, dataset_id: str, offset: int, data: bytes) -> None:
    fd = await store.open_target(dataset_id)
    try:
        os.pwrite(fd, data, offset)
        os.fsync(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_target_does_not_exist_for_others_until_it_is_published(
    store: Store, kind: Kind
) -> None:
    asked = new("import", 2 * MIB)
    await store.create_target(kind, asked)
    found = await store.scan()
    assert not found.volumes and not found.templates and not found.snapshots
    for operation in (
        store.rename(asked.id, "name"),
        store.set_labels(asked.id, {}),
        store.resize(asked.id, 4 * MIB),
        store.destroy_volume(asked.id, snapshots=True, defer=True),
        store.destroy_template(asked.id, defer=True),
        store.clone(asked.id, clone()),
        store.create_snapshot(asked.id, new_id(), "name", NOW),
        store.usage(asked.id),
    ):
        with pytest.raises(NotFound):
            await operation
    assert (await store.publish(asked.id)).id == asked.id


async def test_a_published_volume_is_what_was_asked_for_and_written(
    store: Store, stores: Stores, backend: StoreBackend
) -> None:
    asked = new(
        "import",
        2 * MIB,
        labels={"os": "debian"},
        source="https://example.org/disk.qcow2",
        checksum="sha256:" + "0" * 64,
    )
    await store.create_target(Kind.VOLUME, asked)
    await write_target(store, asked.id, MIB, b"image")
    made = await store.publish(asked.id)
    assert isinstance(made, Volume)
    assert (made.id, made.name, made.size, made.block_size) == (asked.id, "import", 2 * MIB, BLOCK)
    assert (made.source, made.checksum) == (asked.source, asked.checksum)
    assert (made.labels, made.created_at, made.thin) == ({"os": "debian"}, NOW, True)
    assert made.origin_id == ""
    store = await stores.reopen(store)
    assert (await store.scan()).volumes == {made.id: made}
    assert backend.read(made.device, MIB, 5) == b"image"
    assert backend.read(made.device, 0, MIB) == bytes(MIB)


async def test_a_published_template_can_be_cloned(
    store: Store, stores: Stores, backend: StoreBackend
) -> None:
    asked = new("import", MIB, labels={"os": "debian"}, source="/images/disk.raw")
    await store.create_target(Kind.TEMPLATE, asked)
    await write_target(store, asked.id, 0, b"image")
    made = await store.publish(asked.id)
    assert isinstance(made, Template)
    assert (made.id, made.name, made.size, made.source) == (
        asked.id,
        "import",
        MIB,
        "/images/disk.raw",
    )
    assert made.snapshot == f"{store.pool_name}/{made.id}@img"
    assert made.origin_id == made.source_volume_id == ""
    store = await stores.reopen(store)
    assert (await store.scan()).templates == {made.id: made}
    cloned = await store.clone(made.id, clone())
    assert backend.read(cloned.device, 0, 5) == b"image"


async def test_a_target_reads_as_zeros_and_as_it_was_written(store: Store) -> None:
    asked = new()
    await store.create_target(Kind.VOLUME, asked)
    await write_target(store, asked.id, BLOCK, b"written")
    fd = await store.open_target(asked.id)
    try:
        assert os.lseek(fd, 0, os.SEEK_END) == MIB
        assert os.pread(fd, BLOCK, 0) == bytes(BLOCK)
        assert os.pread(fd, 7, BLOCK) == b"written"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
    await store.abandon(asked.id)


@pytest.mark.parametrize("size", [4 * MIB, BLOCK], ids=["grown", "cut"])
async def test_a_target_gets_the_size_its_source_turned_out_to_have(
    store: Store, backend: StoreBackend, size: int
) -> None:
    asked = new(size=MIB)
    await store.create_target(Kind.VOLUME, asked)
    await write_target(store, asked.id, 0, b"start")
    await store.resize_target(asked.id, size)
    made = await store.publish(asked.id)
    assert made.size == backend.device_size(made.device) == size
    assert backend.read(made.device, 0, 5) == b"start"


async def test_a_thick_target_stays_thick(store: Store) -> None:
    await store.create_target(Kind.VOLUME, asked := new(thin=False))
    await store.resize_target(asked.id, 2 * MIB)
    assert not (await store.publish(asked.id)).thin


async def test_a_thick_target_that_does_not_fit_leaves_nothing(store: Store) -> None:
    available = (await store.pool()).usage.available
    asked = new(size=(2 * available // BLOCK) * BLOCK, thin=False)
    with pytest.raises(NoSpace):
        await store.create_target(Kind.VOLUME, asked)
    with pytest.raises(NotFound):
        await store.open_target(asked.id)
    assert await id_is_free(store, asked.id)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_abandoned_target_is_gone(store: Store, kind: Kind) -> None:
    asked = new()
    await store.create_target(kind, asked)
    await write_target(store, asked.id, 0, b"half an image")
    await store.abandon(asked.id)
    for operation in (
        store.open_target(asked.id),
        store.publish(asked.id),
        store.resize_target(asked.id, 2 * MIB),
    ):
        with pytest.raises(NotFound):
            await operation
    assert await id_is_free(store, asked.id)


async def test_abandoning_what_does_not_exist_is_no_error(store: Store) -> None:
    asked = new()
    await store.abandon(asked.id)
    await store.create_target(Kind.VOLUME, asked)
    await store.abandon(asked.id)
    await store.abandon(asked.id)


async def test_abandoning_spares_what_is_published(store: Store) -> None:
    made = await volume(store)
    await store.abandon(made.id)
    assert (await store.scan()).volumes == {made.id: made}


async def test_what_is_published_is_no_target_any_more(store: Store) -> None:
    made = await volume(store)
    for operation in (
        store.open_target(made.id),
        store.resize_target(made.id, BLOCK),
        store.publish(made.id),
    ):
        with pytest.raises(NotFound):
            await operation
    assert (await store.scan()).volumes == {made.id: made}


async def test_a_target_with_an_id_that_is_taken_is_refused(store: Store) -> None:
    made = await volume(store)
    target = new()
    await store.create_target(Kind.TEMPLATE, target)
    for taken in (made.id, target.id):
        with pytest.raises(AlreadyExists):
            await store.create_target(Kind.VOLUME, new(id=taken))
    assert isinstance(await store.publish(target.id), Template)
    assert (await store.scan()).volumes == {made.id: made}


@pytest.mark.parametrize("kind", KINDS)
async def test_targets_left_unpublished_are_gone_after_a_start(
    store: Store, stores: Stores, kind: Kind
) -> None:
    made = await volume(store)
    asked = new("half")
    await store.create_target(kind, asked)
    await write_target(store, asked.id, 0, b"half an image")
    store = await stores.reopen(store)
    found = await store.scan()
    assert found.volumes == {made.id: made} and not found.templates
    with pytest.raises(NotFound):
        await store.publish(asked.id)
    assert await id_is_free(store, asked.id)


async def test_targets_keep_apart(store: Store, backend: StoreBackend) -> None:
    first, second = new("first"), new("second")
    for asked in (first, second):
        await store.create_target(Kind.VOLUME, asked)
        await write_target(store, asked.id, 0, asked.name.encode())
    await store.abandon(first.id)
    made = await store.publish(second.id)
    assert (await store.scan()).volumes == {made.id: made}
    assert made == replace(made, name="second")
    assert backend.read(made.device, 0, 6) == b"second"


async def test_a_spool_is_a_file_of_its_own_that_nobody_sees(store: Store, stores: Stores) -> None:
    before = await store.scan()
    one, two = await store.open_spool(), await store.open_spool()
    try:
        os.pwrite(one, b"spooled", 1000)
        assert os.pread(one, 1007, 0) == bytes(1000) + b"spooled"
        assert os.fstat(two).st_size == 0
        assert os.fstat(one).st_nlink == 0
        assert os.fstat(one).st_mode & 0o077 == 0
        assert not os.get_inheritable(one)
        assert await store.scan() == before
    finally:
        os.close(one)
        os.close(two)
    store = await stores.reopen(store)
    assert await store.scan() == before
