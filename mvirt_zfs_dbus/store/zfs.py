"""The ZFS store: zvols through libzfs_core, OpenZFS's own interface for programs.

    POOL/UUID              a volume or a template
    POOL/UUID@UUID         a snapshot of a volume
    POOL/UUID@img          what volumes are cloned from a template by
    POOL/.tmp/UUID         one that is being made in several steps
    POOL/.tmp/volumes/UUID the same, of a volume that is published at once
    POOL/.tmp              a file system for temporary files

POOL may be a dataset inside a pool (``tank/vm``). What carries no property of ours is not ours.

Who does what, in ``openzfs/``: ``programs`` (reading) and ``changes`` are channel programs, run by
``kernel`` and understood by ``rows`` and ``reading``; ``properties`` is what datasets carry;
``place`` is ``.tmp``, ``staging`` makes there and publishes, ``inplace`` makes what one step makes,
under ids that ``intents`` has written down, ``deletion`` destroys and rolls back, ``stream``
copies; ``device``, ``events``, ``spool`` and ``zpool`` are the system around.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from ..errors import Error, NotFound, PoolUnavailable, WouldShrink
from ..model import Kind, Pool, Snapshot, Template, Usage, User, Volume
from .base import Inventory, NewClone, NewDataset
from .openzfs import changes, device, properties, rows
from .openzfs.deletion import Deletion
from .openzfs.events import Follower
from .openzfs.inplace import InPlace
from .openzfs.intents import Intents
from .openzfs.kernel import Kernel, Step, no_step
from .openzfs.opening import check_root, lock
from .openzfs.place import Place
from .openzfs.reading import Reading
from .openzfs.rows import IMAGE_SNAPSHOT, DatasetRow
from .openzfs.settled import settled
from .openzfs.staging import Staging
from .openzfs.stream import Copier

RUNTIME_DIRECTORY: Final = Path("/run/mvirt-zfs-dbus")


class ZfsStore:
    """See :class:`~mvirt_zfs_dbus.store.base.Store`, which says what each method does."""

    def __init__(
        self, pool: str, *, runtime_directory: Path = RUNTIME_DIRECTORY, step: Step = no_step
    ) -> None:
        """``step`` is for tests: it is called before each change of the pool with what it is."""
        self.pool_name = pool
        self._runtime_directory = runtime_directory
        self._kernel = Kernel(_binding(), pool, step)
        self._copier = Copier(self._kernel)
        self._place = Place(self._kernel, runtime_directory)
        self._reading = Reading(self._kernel, self._place.is_live)
        self._staging = Staging(self._kernel, self._copier, self._place)
        self._deletion = Deletion(self._kernel)
        self._intents = Intents(self._kernel, self._place)
        self._in_place = InPlace(self._kernel, self._place, self._intents)
        self._follower = Follower(pool, self._reading.touch, self._recover, self._in_place.doubt)
        self._lock = -1

    # Life

    async def start(self) -> None:
        try:
            self._lock = lock(self._runtime_directory, self.pool_name)
            await check_root(self._kernel)
            await self._intents.recover()  # first: .tmp, which has them, may be made anew
            await self._place.prepare()
            await self._intents.renew()
            await self._in_place.look()
            await self._deletion.finish(await self._reading.deleted())
            self._follower.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._follower.close()
        self._copier.close()
        await asyncio.to_thread(self._kernel.close)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def watch(self) -> AsyncIterator[None]:
        return self._follower.watchers.add()

    # Reading

    async def scan(self) -> Inventory:
        inventory, self._deletion.deleted = await self._reading.scan()
        return inventory

    async def rescan(self) -> Inventory:
        await self._in_place.look()
        inventory, self._deletion.deleted = await self._reading.rescan()
        return inventory

    async def pool(self) -> Pool:
        return await self._reading.pool()

    async def usage(self, dataset_id: str, snapshot_id: str = "") -> Usage:
        return await self._reading.usage(dataset_id, snapshot_id)

    async def users(self, dataset_id: str) -> list[User]:
        found = await self._reading.dataset(dataset_id)
        return await self._kernel.run(device.users_of, found.dataset)

    # Volumes

    def new_id(self) -> str:
        return self._intents.new_id()

    @settled
    async def create_volume(self, new: NewDataset) -> Volume:
        make = partial(self._in_place.create, new)
        if not new.thin or (made := await self._at_once(new.id, make)) is None:
            await self._staging.create_volume(new)
            made = await self._publish(new.id)
        return rows.volume(made)

    @settled
    async def resize(self, volume_id: str, size: int) -> Volume:
        found = await self._reading.row(Kind.VOLUME, volume_id)
        if size < found.size:
            raise WouldShrink(f"volume {volume_id} has {found.size} bytes; {size} would cut it")
        if size == found.size:
            return rows.volume(found)
        if found.thick:  # zfs(8) raises a reservation only if it fits the size up to the byte
            await self._kernel.set(found.dataset, refreservation="auto")
        await self._kernel.set(found.dataset, volsize=str(size))
        if found.thick:
            found = await self._reading.row(Kind.VOLUME, volume_id)
        return rows.volume(replace(found, size=size))

    @settled
    async def destroy_volume(self, volume_id: str, *, snapshots: bool, defer: bool) -> None:
        await self._deletion.destroy(Kind.VOLUME, volume_id, snapshots=snapshots, defer=defer)

    @settled
    async def rename(self, dataset_id: str, name: str) -> None:
        await self._set(dataset_id, {"name": name})

    @settled
    async def set_labels(self, dataset_id: str, labels: Mapping[str, str]) -> None:
        await self._set(dataset_id, {"labels": properties.labels_text(labels)})

    async def _set(self, dataset_id: str, values: Mapping[str, str]) -> None:
        name, encoded = f"{self.pool_name}/{dataset_id}", properties.encode(values)
        what = f"set {', '.join(values)} of {name}"
        outcome = await self._kernel.change(what, changes.SET, dataset=name, set=encoded)
        if outcome.refused:
            raise NotFound(f"there is no volume or template {dataset_id}")

    # Snapshots

    @settled
    async def create_snapshot(
        self, volume_id: str, snapshot_id: str, name: str, created_at: int
    ) -> Snapshot:
        await self._reading.size(Kind.VOLUME, volume_id)
        carried = properties.of_snapshot(name, created_at)
        await self._kernel.snapshot(f"{self.pool_name}/{volume_id}@{snapshot_id}", carried)
        return await self._reading.snapshot(snapshot_id, volume_id)

    @settled
    async def rollback(self, snapshot_id: str, *, destroy_newer: bool) -> Volume:
        home = await self._reading.home(snapshot_id)
        volume_id = home.rpartition("/")[2]
        before = await self._reading.row(Kind.VOLUME, volume_id)
        await self._deletion.rollback(home, snapshot_id, destroy_newer=destroy_newer)
        after = await self._reading.row(Kind.VOLUME, volume_id)
        if before.thick and after.size != before.size:  # it still reserves for the other size
            await self._kernel.set(home, refreservation="auto")
            after = await self._reading.row(Kind.VOLUME, volume_id)
        return rows.volume(after)

    @settled
    async def destroy_snapshot(self, snapshot_id: str, *, defer: bool) -> None:
        home = await self._reading.home(snapshot_id)
        await self._deletion.destroy_snapshot(home, snapshot_id, defer=defer)

    # Templates

    @settled
    async def clone(self, template_id: str, new: NewClone) -> Volume:
        size = await self._reading.template_size(template_id)
        origin = f"{self.pool_name}/{template_id}@{IMAGE_SNAPSHOT}"
        make = partial(self._in_place.clone, origin, new)
        grows = new.size_of(f"template {template_id}", size) > size
        if grows or (made := await self._at_once(new.id, make)) is None:
            await self._staging.clone(Kind.VOLUME, origin, new)
            made = await self._publish(new.id)
        return rows.volume(made)

    @settled
    async def template_from_snapshot(self, snapshot_id: str, new: NewClone) -> Template:
        snapshot = await self._reading.snapshot(snapshot_id)
        new.size_of(f"snapshot {snapshot.name!r}", snapshot.size)
        origin = f"{self.pool_name}/{snapshot.volume_id}@{snapshot_id}"
        await self._staging.clone(Kind.TEMPLATE, origin, new, snapshot.volume_id)
        return rows.template(await self._publish(new.id))

    async def copy_to_template(
        self, snapshot_id: str, new: NewClone, progress: Callable[[int, int], None]
    ) -> Template:
        snapshot = await self._reading.snapshot(snapshot_id)
        new.size_of(f"snapshot {snapshot.name!r}", snapshot.size)
        origin = f"{self.pool_name}/{snapshot.volume_id}@{snapshot_id}"
        await self._staging.copy(origin, new, snapshot.volume_id, progress)
        return rows.template(await self._publish(new.id))

    @settled
    async def destroy_template(self, template_id: str, *, defer: bool) -> None:
        await self._deletion.destroy(Kind.TEMPLATE, template_id, snapshots=True, defer=defer)

    # Import targets

    @settled
    async def create_target(self, kind: Kind, new: NewDataset) -> None:
        await self._staging.create_target(kind, new)

    async def open_target(self, dataset_id: str) -> int:
        return await self._staging.open(dataset_id)

    @settled
    async def resize_target(self, dataset_id: str, size: int) -> None:
        await self._staging.resize(dataset_id, size)

    @settled
    async def publish(self, dataset_id: str) -> Volume | Template:
        await self._staging.publish(dataset_id)
        found = await self._reading.dataset(dataset_id)
        is_volume = found.metadata.kind == Kind.VOLUME
        return rows.volume(found) if is_volume else rows.template(found)

    async def abandon(self, dataset_id: str) -> None:
        await self._staging.abandon(dataset_id)

    @settled
    async def open_spool(self) -> int:
        return await self._place.open_spool()

    @settled
    async def collect(self) -> None:
        await self._deletion.collect()

    # Inside

    async def _recover(self) -> None:
        """The pool was imported again."""
        await self._intents.recover()
        await self._place.sweep()
        await self._intents.renew()
        await self._deletion.finish(await self._reading.deleted())

    async def _at_once(self, new_id: str, make: Callable[[], Awaitable[None]]) -> DatasetRow | None:
        """What is made in place; None where that is not possible now."""
        with self._place.reserved(new_id), self._follower.aside(new_id):
            if not await self._in_place.can_make(new_id):
                return None
            await make()
            async with self._in_place.taken_back(new_id):
                found = await self._reading.dataset(new_id)  # while udev is at work
                await self._in_place.wait_for_device(new_id)
        return found

    @settled
    async def _publish(self, dataset_id: str) -> DatasetRow:
        """Publish what was just made here; what cannot be published is not left behind."""
        try:
            await self._staging.publish(dataset_id)
        except Error:
            await self._staging.give_up(dataset_id)
            raise
        return await self._reading.dataset(dataset_id)


def _binding() -> Any:
    """libzfs_core, OpenZFS's own binding; what is on PyPI as pyzfs is of 2016 and does not do."""
    try:
        import libzfs_core
    except ImportError as error:
        raise PoolUnavailable(
            f"libzfs_core cannot be imported ({error}): Debian has it in python3-pyzfs"
        ) from error
    if not hasattr(libzfs_core, "lzc_channel_program_nosync"):
        raise PoolUnavailable(
            f"{libzfs_core.__file__} is too old: it knows no channel programs. Remove the pyzfs"
            " that pip installed, and use OpenZFS's own (Debian: python3-pyzfs)"
        )
    return libzfs_core
