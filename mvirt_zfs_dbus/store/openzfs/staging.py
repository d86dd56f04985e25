"""Volumes and templates in the making: they stand below ``POOL/.tmp`` until they are whole.

ZFS cannot make a dataset together with its properties: ``zfs create`` and ``zfs clone`` are one
transaction group for the dataset and further ones for the properties (zfs_ioc_create: "It would be
nice to do this atomically"). What a power cut leaves between them carries no sign of whose it is.
So the place is the sign: all that is below ``.tmp`` is unfinished from its first moment and
inherits ``org.mvirt:state=importing``, and one atomic rename out of there publishes it. At start
what is still there is destroyed.

The place also hides it: below ``.tmp`` nothing gets a device node (``volmode=none``) before it asks
for one of a kind whose partitions the host does not look for.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from ...errors import AlreadyExists, DeviceTimeout, Error, NotFound, PoolUnavailable
from ...model import Kind
from ..base import NewClone, NewDataset
from . import changes, device, programs, properties, spool
from .busy import PATIENCE, when_free
from .kernel import Kernel, error_of
from .rows import IMAGE_SNAPSHOT, DatasetRow, read_datasets
from .settled import settled
from .stream import Copier, Progress

_log = logging.getLogger(__name__)

T = TypeVar("T")

_HIDING: Final = 5
"""How often a device is asked to go. It stays when a scanner has it open at that moment."""
_GOING: Final = 1.0
"""Seconds for it to go each time."""


_EMPTY: Final = 1024 * 1024
"""Bytes that the place may hold without files in it: what a file system has of its own."""


class Staging:
    def __init__(self, kernel: Kernel, copier: Copier, runtime_directory: Path) -> None:
        self._kernel = kernel
        self._copier = copier
        self._runtime_directory = runtime_directory
        self._place = f"{kernel.root}/.tmp"
        self._live: set[str] = set()

    def name_of(self, dataset_id: str) -> str:
        return f"{self._place}/{dataset_id}"

    # The place

    async def prepare(self) -> None:
        """At start: destroy what a crash left, datasets and temporary files."""
        found = await self._kernel.read(programs.PLACE, dataset=self._place)
        if found.get(b"exists") and found.get(b"kind") == properties.SPOOL.encode():
            await self.sweep()
            if found[b"referenced"] > _EMPTY:
                await self._renew()
        elif found.get(b"exists"):
            if programs.names(found) or not await self._is_empty():
                raise PoolUnavailable(
                    f"{self._place} holds what is not of this service, which needs that name for"
                    " itself: rename it"
                )
            await self._adopt()
        await self._ensure()

    async def sweep(self) -> None:
        """Destroy what is unfinished and nobody here is working on."""
        if not await self._kernel.exists(self._place):
            return
        for name in programs.names(await self._kernel.read(programs.PLACE, dataset=self._place)):
            if name.rpartition("/")[2] not in self._live:
                try:
                    await self._destroy(name)
                except Error as error:
                    _log.warning("%s was left unfinished and cannot be destroyed: %s", name, error)

    async def open_spool(self) -> int:
        await self._ensure()
        return await self._mounted("opening a temporary file in", spool.open_file)

    async def _is_empty(self) -> bool:
        return await self._mounted("looking into", spool.is_empty)

    async def _mounted(self, what: str, work: Callable[[str, Path], T]) -> T:
        try:
            return await self._kernel.run(work, self._place, self._runtime_directory)
        except OSError as error:
            number = error.errno or 0
            raise error_of(number, f"{what} {self._place}", self._kernel.pool) from error

    async def _renew(self) -> None:
        """Unnamed files that a crash left would keep their space until the next mount."""
        try:
            await self._kernel.destroy(self._place)
        except Error as error:
            _log.warning("%s is kept as it is: %s", self._place, error)

    async def _adopt(self) -> None:
        """A power cut came between the making of the place and its properties."""
        await self._kernel.set(
            self._place,
            volmode="none",
            canmount="noauto",
            mountpoint="legacy",
            **{
                f"{properties.PREFIX}kind": properties.SPOOL,
                f"{properties.PREFIX}state": properties.IMPORTING,
            },
        )

    async def _ensure(self) -> None:
        if not await self._kernel.exists(self._place):
            with suppress(AlreadyExists):  # another caller was quicker
                await self._kernel.create(self._place, "zfs", properties.of_spool())

    # Making

    async def create(self, kind: Kind, new: NewDataset) -> None:
        async with self._making(new.id) as staged:
            await self._kernel.create(staged, "zvol", properties.of_dataset(kind, new))
            if not new.thin:  # what zfs create -V reserves, which depends on the pool's vdevs
                await self._kernel.set(staged, refreservation="auto")

    async def clone(
        self, kind: Kind, origin: str, new: NewClone, source_volume_id: str = ""
    ) -> None:
        async with self._making(new.id) as staged:
            carried = properties.of_clone(kind, new, source_volume_id)
            await self._kernel.clone(staged, origin, carried)
            if kind is Kind.VOLUME and new.size:
                # Making a disk and setting its size both own the dataset in the kernel: one loses.
                await device.wait_for_device(staged)
            await self._grow(staged, new.size)

    async def copy(
        self, origin: str, new: NewClone, source_volume_id: str, progress: Progress
    ) -> None:
        """A template that shares nothing with the snapshot."""
        async with self._making(new.id) as staged:
            carried = properties.of_clone(Kind.TEMPLATE, new, source_volume_id)
            await self._copier.copy(origin, f"{staged}@{_RECEIVED}", carried, progress)
            await self._grow(staged, new.size)

    async def resize(self, dataset_id: str, size: int) -> None:
        await self.row(dataset_id)
        await self._kernel.set(self.name_of(dataset_id), volsize=str(size))

    async def open(self, dataset_id: str) -> int:
        await self.row(dataset_id)
        return await device.open_device(self.name_of(dataset_id), PATIENCE)

    async def row(self, dataset_id: str) -> DatasetRow:
        """An unfinished dataset. NotFound."""
        staged = self.name_of(dataset_id)
        answer = await self._kernel.read(programs.SCAN, root=self._kernel.root, names=[staged])
        rows = read_datasets(answer)
        if not rows:
            raise NotFound(f"there is no import target {dataset_id}")
        return rows[0]

    @asynccontextmanager
    async def _making(self, dataset_id: str) -> AsyncIterator[str]:
        """The name to make it under; it is gone again if that fails."""
        staged = self.name_of(dataset_id)
        with self._reserved(dataset_id):
            final = f"{self._kernel.root}/{dataset_id}"
            if await self._kernel.exists(final):
                raise AlreadyExists(f"{final} exists already")
            if await self._kernel.exists(staged):  # it was busy when its maker gave it up
                await self._destroy(staged)
            await self._ensure()
            try:
                yield staged
            except BaseException:
                await self.give_up(dataset_id)
                raise

    @contextmanager
    def _reserved(self, dataset_id: str) -> Iterator[None]:
        """Keep the id for one caller, who has it as long as the target is unfinished."""
        if dataset_id in self._live:
            raise AlreadyExists(f"{dataset_id} is being made already")
        self._live.add(dataset_id)
        try:
            yield
        except BaseException:
            self._live.discard(dataset_id)
            raise

    async def _grow(self, staged: str, size: int) -> None:
        if not size:
            return
        found = await self.row(staged.rpartition("/")[2])
        if size > found.size:
            await self._kernel.set(staged, volsize=str(size))

    # The end

    async def publish(self, dataset_id: str) -> None:
        found = await self.row(dataset_id)
        if found.metadata.kind == Kind.VOLUME:
            await self._publish_volume(dataset_id)
        else:
            await self._publish_template(found)
        self._live.discard(dataset_id)

    @settled
    async def abandon(self, dataset_id: str) -> None:
        """Destroy what is unfinished; what does not exist is no error."""
        await self._destroy(self.name_of(dataset_id))
        self._live.discard(dataset_id)

    async def give_up(self, dataset_id: str) -> None:
        """Abandon on the way out of a failure, which is what the caller has to hear of."""
        try:
            await self.abandon(dataset_id)
        except Error as error:
            _log.warning("%s is destroyed later: %s", self.name_of(dataset_id), error)
            self._live.discard(dataset_id)

    async def _publish_volume(self, dataset_id: str) -> None:
        staged, final = self.name_of(dataset_id), f"{self._kernel.root}/{dataset_id}"
        # The kernel makes the device some time after it was asked to, under the name it was asked
        # for: renamed before that, the volume would get none.
        await device.wait_for_device(staged)
        await self._kernel.rename(staged, final)
        try:
            await device.wait_for_device(final)
        except DeviceTimeout:
            await self._kernel.rename(final, staged)
            raise

    async def _publish_template(self, found: DatasetRow) -> None:
        await self._hide(found.dataset)
        await self._kernel.snapshot(f"{found.dataset}@{IMAGE_SNAPSHOT}", properties.of_image())
        if any(snapshot.name == _RECEIVED for snapshot in found.snapshots):
            await self._kernel.destroy_snapshot(f"{found.dataset}@{_RECEIVED}")
        await self._kernel.rename(found.dataset, f"{self._kernel.root}/{found.id}")

    async def _hide(self, dataset: str) -> None:
        """Take the device of a template away: nothing is to find a guest's file systems there.

        With it goes what a thick target had reserved for its writer: a snapshot would double that.
        """
        answer = await self._kernel.read(programs.PROPERTY, dataset=dataset, property="volmode")
        if answer.get(b"value") == b"none":
            return
        for _ in range(_HIDING):
            await self._kernel.set(dataset, volmode="none", refreservation="none")
            if await device.wait_until_gone(dataset, _GOING):
                return
        _log.warning(
            "%s is held by %s and stays until the pool is imported again",
            device.device_path(dataset),
            device.holder_of(dataset) or "something",
        )

    async def _destroy(self, staged: str) -> None:
        what = f"destroy {staged}"
        await when_free(self._kernel, what, changes.DESTROY_STAGED, dataset=staged)


_RECEIVED: Final = "received"
"""The snapshot a copy arrives as."""
