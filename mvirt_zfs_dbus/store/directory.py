"""The directory store: sparse raw files, with reflinked clones and snapshots where the file system
can, and sparse copies where not. It needs neither root nor ZFS.

It keeps the dependencies ZFS has and refuses what ZFS refuses, though its files depend on nothing:
to a client both stores are the same. In one thing it refuses more: on a file system without
reflinks, a snapshot of a volume that another process has open is DeviceBusy, since the copy would
mix moments.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from ..model import Kind, Pool, Snapshot, Template, Usage, User, Volume
from .base import Inventory, NewClone, NewDataset
from .files.disks import Disks
from .files.failures import failures_of
from .files.folder import Folder
from .files.inotify import DirectoryWatch
from .files.ledger import Ledger
from .files.making import Making
from .files.removal import Removal
from .files.views import Views
from .watchers import Watchers

T = TypeVar("T")

QUICK_THREADS: Final = 2
COPYING_THREADS: Final = 4
"""Copies at a time. More would only make the disk seek."""


class DirectoryStore:
    """See :class:`~mvirt_zfs_dbus.store.base.Store`, which says what each method does."""

    def __init__(self, path: Path, *, step: Callable[[str], None] | None = None) -> None:
        """``step`` is for tests: it is called before each change of a file with what it will be."""
        self._path = Path(os.path.realpath(path))
        self.pool_name = self._path.name
        self._folder = Folder(self._path, step) if step else Folder(self._path)
        ledger = Ledger(self._folder)
        views = Views(self._folder, self.pool_name)
        self._removal = Removal(self._folder, ledger)
        self._disks = Disks(self._folder, ledger, views, self._removal)
        self._making = Making(self._folder, ledger, views, self._removal)
        self._quick = ThreadPoolExecutor(QUICK_THREADS, "directory-store")
        self._copying = ThreadPoolExecutor(COPYING_THREADS, "directory-copy")
        self._volume_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._watch: DirectoryWatch | None = None
        self._watchers = Watchers()

    # Life

    async def start(self) -> None:
        try:
            await self._do(self._folder.open)
            with failures_of(self._path):
                self._watch = DirectoryWatch(self._path, self._watchers.tell)
            await self._do(self._disks.recover)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._watchers.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        self._copying.shutdown()
        self._quick.shutdown()
        self._folder.close()

    def watch(self) -> AsyncIterator[None]:
        return self._watchers.add()

    # Reading

    async def scan(self) -> Inventory:
        return await self._do(self._disks.inventory)

    async def rescan(self) -> Inventory:
        """Looks at those files alone that inotify told of, which are this store's own too."""
        if (watch := self._watch) is None:
            return await self.scan()
        names = watch.take()
        keys = None if names is None else {name.rpartition(".")[0] for name in names}
        try:
            return await self._do(lambda: self._disks.inventory(keys))
        except BaseException:
            watch.distrust()
            raise

    async def pool(self) -> Pool:
        return await self._do(self._disks.pool)

    async def usage(self, dataset_id: str, snapshot_id: str = "") -> Usage:
        return await self._do(lambda: self._disks.usage(dataset_id, snapshot_id))

    async def users(self, dataset_id: str) -> list[User]:
        return await self._do(lambda: self._disks.users(dataset_id))

    # Volumes

    def new_id(self) -> str:
        return str(uuid.uuid4())

    async def create_volume(self, new: NewDataset) -> Volume:
        return await self._do(lambda: self._making.create_volume(new))

    async def resize(self, volume_id: str, size: int) -> Volume:
        async with self._volume_lock(volume_id):
            return await self._do(lambda: self._disks.resize(volume_id, size))

    async def destroy_volume(self, volume_id: str, *, snapshots: bool, defer: bool) -> None:
        async with self._volume_lock(volume_id):
            await self._do(
                lambda: self._removal.destroy_volume(volume_id, snapshots=snapshots, defer=defer)
            )

    async def rename(self, dataset_id: str, name: str) -> None:
        await self._do(lambda: self._disks.rename(dataset_id, name))

    async def set_labels(self, dataset_id: str, labels: Mapping[str, str]) -> None:
        await self._do(lambda: self._disks.set_labels(dataset_id, labels))

    # Snapshots

    async def create_snapshot(
        self, volume_id: str, snapshot_id: str, name: str, created_at: int
    ) -> Snapshot:
        async with self._volume_lock(volume_id):
            return await self._copy(
                lambda stop: self._making.create_snapshot(
                    volume_id, snapshot_id, name, created_at, stop
                )
            )

    async def rollback(self, snapshot_id: str, *, destroy_newer: bool) -> Volume:
        volume_id = await self._do(lambda: self._disks.volume_of(snapshot_id))
        async with self._volume_lock(volume_id):
            return await self._copy(
                lambda stop: self._disks.rollback(snapshot_id, stop, destroy_newer=destroy_newer)
            )

    async def destroy_snapshot(self, snapshot_id: str, *, defer: bool) -> None:
        volume_id = await self._do(lambda: self._disks.volume_of(snapshot_id))
        async with self._volume_lock(volume_id):
            await self._do(lambda: self._removal.destroy_snapshot(snapshot_id, defer=defer))

    # Templates

    async def clone(self, template_id: str, new: NewClone) -> Volume:
        return await self._copy(lambda stop: self._making.clone(template_id, new, stop))

    async def template_from_snapshot(self, snapshot_id: str, new: NewClone) -> Template:
        return await self._copy(
            lambda stop: self._making.template_from_snapshot(snapshot_id, new, stop)
        )

    async def copy_to_template(
        self, snapshot_id: str, new: NewClone, progress: Callable[[int, int], None]
    ) -> Template:
        loop = asyncio.get_running_loop()

        def report(done: int, total: int) -> None:
            loop.call_soon_threadsafe(progress, done, total)

        return await self._copy(
            lambda stop: self._making.copy_to_template(snapshot_id, new, stop, report),
            undo=lambda template: self._removal.destroy_template(template.id, defer=True),
        )

    async def destroy_template(self, template_id: str, *, defer: bool) -> None:
        await self._do(lambda: self._removal.destroy_template(template_id, defer=defer))

    # Import targets

    async def create_target(self, kind: Kind, new: NewDataset) -> None:
        await self._do(lambda: self._making.create_target(kind, new))

    async def open_target(self, dataset_id: str) -> int:
        return await self._do(lambda: self._making.open_target(dataset_id), undo=os.close)

    async def resize_target(self, dataset_id: str, size: int) -> None:
        await self._do(lambda: self._making.resize_target(dataset_id, size))

    async def publish(self, dataset_id: str) -> Volume | Template:
        return await self._do(lambda: self._making.publish(dataset_id))

    async def abandon(self, dataset_id: str) -> None:
        await self._do(lambda: self._making.abandon(dataset_id))

    async def open_spool(self) -> int:
        return await self._do(self._folder.spool, undo=os.close)

    async def collect(self) -> None:
        await self._do(self._removal.collect)

    # Threads

    async def _do(self, work: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
        """What takes a moment."""
        return await self._in_thread(self._quick, work, Event(), undo)

    async def _copy(self, work: Callable[[Event], T], undo: Callable[[T], None] | None = None) -> T:
        """What may copy a whole disk, and stops when it is cancelled."""
        stop = Event()
        return await self._in_thread(self._copying, lambda: work(stop), stop, undo)

    async def _in_thread(
        self,
        threads: ThreadPoolExecutor,
        work: Callable[[], T],
        stop: Event,
        undo: Callable[[T], None] | None,
    ) -> T:
        """Cancelled, it ends when the thread did: nothing goes on behind its caller's back."""
        job = threads.submit(self._explaining, work)
        future = asyncio.wrap_future(job)
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            stop.set()
            if not job.cancel():
                await _settled(future)
                failed = future.exception()  # looked at, so that nobody is told it was not
                if undo is not None and failed is None:
                    result = future.result()
                    await _settled(asyncio.wrap_future(threads.submit(undo, result)))
            raise
        return future.result()

    def _explaining(self, work: Callable[[], T]) -> T:
        with failures_of(self._path):
            return work()

    def _volume_lock(self, volume_id: str) -> asyncio.Lock:
        """What reads or replaces a volume's bytes happens one after the other."""
        return self._volume_locks.setdefault(volume_id, asyncio.Lock())


async def _settled(future: asyncio.Future[Any]) -> None:
    """Wait for a thread whatever happens to this task, which is being cancelled already."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([future])
