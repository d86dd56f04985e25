"""What the tests make, with the values that do not matter filled in."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from mvirt_zfs_dbus.model import Snapshot, Template, Volume
from mvirt_zfs_dbus.store.base import NewClone, NewDataset, Store

MIB = 1024 * 1024
BLOCK = 16 * 1024
NOW = 1_790_000_000_000_000


def new_id() -> str:
    return str(uuid.uuid4())


def new(
    name: str = "disk",
    size: int = MIB,
    *,
    id: str = "",
    thin: bool = True,
    labels: Mapping[str, str] | None = None,
    source: str = "",
    checksum: str = "",
) -> NewDataset:
    return NewDataset(
        id=id or new_id(),
        name=name,
        size=size,
        block_size=BLOCK,
        thin=thin,
        labels=labels or {},
        source=source,
        checksum=checksum,
        created_at=NOW,
    )


def clone(name: str = "clone", size: int = 0, *, id: str = "") -> NewClone:
    return NewClone(id=id or new_id(), name=name, size=size, created_at=NOW)


async def volume(store: Store, name: str = "disk", size: int = MIB) -> Volume:
    return await store.create_volume(new(name, size))


async def snapshot(store: Store, of: Volume, name: str = "snapshot") -> Snapshot:
    return await store.create_snapshot(of.id, new_id(), name, NOW)


async def template(store: Store, of: Volume, name: str = "template") -> Template:
    """A template that is a clone of a new snapshot of a volume."""
    taken = await snapshot(store, of, f"for-{name}")
    return await store.template_from_snapshot(taken.id, clone(name))


async def id_is_free(store: Store, dataset_id: str) -> bool:
    """Whether nothing of a dataset is left, found by making another with its id."""
    await store.create_volume(new("again", id=dataset_id))
    await store.destroy_volume(dataset_id, snapshots=False, defer=False)
    return True


def ignore_progress(_done: int, _total: int) -> None:
    """For those who do not look."""
