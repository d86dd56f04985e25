"""A ZFS store of this process's own, and what tests make in it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import host

from mvirt_zfs_dbus.model import Volume
from mvirt_zfs_dbus.store.base import Inventory, NewClone, NewDataset
from mvirt_zfs_dbus.store.zfs import ZfsStore

BLOCK = 16 * 1024


class Steps(list[str]):
    """What a store did to the pool, step by step."""

    def __call__(self, what: str) -> None:
        self.append(what)

    def of(self, root: str) -> list[str]:
        """Without names, and what others' work is."""
        return [step.partition(" ")[0] for step in self if root in step]


@asynccontextmanager
async def opened(
    root: str, runtime_directory: Path, step: Callable[[str], None] = lambda _: None
) -> AsyncIterator[ZfsStore]:
    store = ZfsStore(root, runtime_directory=runtime_directory, step=step)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def restarted(root: str, runtime_directory: Path) -> Inventory:
    """What another service finds there, having cleared away what it clears away."""
    async with opened(root, runtime_directory) as store:
        return await store.scan()


class Listener:
    """Notes when a store's watcher is told of a change."""

    def __init__(self, store: ZfsStore) -> None:
        self._told = asyncio.Event()
        self._task = asyncio.create_task(self._listen(store))

    async def _listen(self, store: ZfsStore) -> None:
        async for _ in store.watch():
            self._told.set()

    async def told(self) -> float:
        """The moment in which the next change was told."""
        async with asyncio.timeout(30):
            await self._told.wait()
        self._told.clear()
        return time.monotonic()

    async def quiet(self) -> None:
        """Until nothing was told for a second."""
        while True:
            self._told.clear()
            try:
                async with asyncio.timeout(1):
                    await self._told.wait()
            except TimeoutError:
                return

    async def until(self, store: ZfsStore, found: Callable[[Inventory], bool]) -> Inventory:
        """The inventory that a client of the service would see once a change was told."""
        while not found(inventory := await store.rescan()):
            await self.told()
        return inventory

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


def new(
    name: str = "disk",
    size: int = 8 * host.MIB,
    *,
    dataset_id: str = "",
    block_size: int = BLOCK,
    thin: bool = True,
    compression: str = "",
) -> NewDataset:
    made_as = dataset_id or str(uuid.uuid4())
    return NewDataset(made_as, name, size, block_size, thin, compression, created_at=1)


def clone(name: str = "clone", size: int = 0, *, dataset_id: str = "") -> NewClone:
    return NewClone(dataset_id or str(uuid.uuid4()), name, size, created_at=1)


async def golden(store: ZfsStore, of: Volume) -> tuple[str, str]:
    """The ids of a snapshot of the volume and of a template cloned from it."""
    taken = await store.create_snapshot(of.id, str(uuid.uuid4()), "snapshot", 1)
    return taken.id, (await store.template_from_snapshot(taken.id, clone("golden"))).id


async def a_template(store: ZfsStore) -> str:
    """Its id."""
    return (await golden(store, await store.create_volume(new())))[1]
