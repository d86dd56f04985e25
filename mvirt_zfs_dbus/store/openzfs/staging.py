"""Volumes and templates in the making: they stand below ``POOL/.tmp`` until they are whole.

ZFS cannot make a dataset together with its properties: ``zfs create`` and ``zfs clone`` are one
transaction group for the dataset and further ones for the properties (zfs_ioc_create: "It would be
nice to do this atomically"). What a power cut leaves between them carries no sign of whose it is.
So the place is the sign: all that is below ``.tmp`` is unfinished from its first moment and
inherits ``org.mvirt:state=importing``, and one atomic rename out of there publishes it. At start
what is still there is destroyed.

The place also hides it: directly below ``.tmp`` no device node is made (``volmode=none``) before
one asks for one of a kind whose partitions the host does not look for (``volmode=dev``). The kernel
makes such a node some time after it was asked to, under the name it was asked for: renamed before
that, a dataset gets none. It makes the one that a dataset inherits together with the dataset (ZFS
2.1, dmu_objset_create). So volumes that are published at once are made below ``.tmp/volumes``,
which has ``volmode=dev``, and nothing has to wait for udev before the rename.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

from ...errors import AlreadyExists, DeviceTimeout, NotFound
from ...model import Kind
from ..base import NewClone, NewDataset
from . import device, programs, properties
from .busy import PATIENCE
from .kernel import Kernel
from .place import Place
from .properties import VolMode
from .rows import IMAGE_SNAPSHOT, DatasetRow, read_datasets
from .settled import settled
from .stream import Copier, Progress

_log = logging.getLogger(__name__)

_HIDING: Final = 5
"""How often a device is asked to go. It stays when a scanner has it open at that moment."""
_GOING: Final = 1.0
"""Seconds for it to go each time."""


@dataclass(frozen=True, slots=True)
class _Staged:
    """What somebody here is making."""

    dataset: str
    kind: Kind
    has_device: bool
    """From its first moment on, see above."""


class Staging:
    def __init__(self, kernel: Kernel, copier: Copier, place: Place) -> None:
        self._kernel = kernel
        self._copier = copier
        self._place = place
        self._live: dict[str, _Staged] = {}

    def _staged(self, dataset_id: str) -> _Staged:
        try:
            return self._live[dataset_id]
        except KeyError:
            raise NotFound(f"there is no import target {dataset_id}") from None

    # Making

    async def create_volume(self, new: NewDataset) -> None:
        """One that is to be published at once."""
        await self._create(self._place.volumes, Kind.VOLUME, new)

    async def create_target(self, kind: Kind, new: NewDataset) -> None:
        await self._create(self._place.dataset, kind, new)

    async def _create(self, place: str, kind: Kind, new: NewDataset) -> None:
        async with self._making(place, kind, new.id) as staged:
            pinned = properties.pinned(VolMode.DEV)  # a template is written to as well
            await self._kernel.create(staged, "zvol", properties.of_dataset(kind, new) | pinned)
            if not new.thin:  # what zfs create -V reserves, which depends on the pool's vdevs
                await self._kernel.set(staged, refreservation="auto")

    async def clone(
        self, kind: Kind, origin: str, new: NewClone, source_volume_id: str = ""
    ) -> None:
        place = self._place.volumes if kind is Kind.VOLUME else self._place.dataset
        async with self._making(place, kind, new.id) as staged:
            volmode = VolMode.DEV if kind is Kind.VOLUME else VolMode.NONE
            carried = properties.of_clone(kind, new, source_volume_id)
            await self._kernel.clone(staged, origin, carried | properties.pinned(volmode))
            await self._grow(new.id, new.size)

    async def copy(
        self, origin: str, new: NewClone, source_volume_id: str, progress: Progress
    ) -> None:
        """A template that shares nothing with the snapshot."""
        async with self._making(self._place.dataset, Kind.TEMPLATE, new.id) as staged:
            carried = properties.of_clone(Kind.TEMPLATE, new, source_volume_id)
            carried |= properties.pinned(VolMode.NONE)
            await self._copier.copy(origin, f"{staged}@{_RECEIVED}", carried, progress)
            await self._grow(new.id, new.size)

    async def resize(self, dataset_id: str, size: int) -> None:
        staged = await self.row(dataset_id)
        await self._kernel.set(staged.dataset, volsize=str(size))

    async def open(self, dataset_id: str) -> int:
        staged = await self.row(dataset_id)
        return await device.open_device(staged.dataset, PATIENCE)

    async def row(self, dataset_id: str) -> DatasetRow:
        """An unfinished dataset. NotFound."""
        staged = self._staged(dataset_id).dataset
        answer = await self._kernel.read(programs.SCAN, names=[staged])
        rows = read_datasets(answer)
        if not rows:
            raise NotFound(f"there is no import target {dataset_id}")
        return rows[0]

    @asynccontextmanager
    async def _making(self, place: str, kind: Kind, dataset_id: str) -> AsyncIterator[str]:
        """The name to make it under; it is gone again if that fails."""
        staged = f"{place}/{dataset_id}"
        with self._reserved(dataset_id, _Staged(staged, kind, place == self._place.volumes)):
            final = f"{self._kernel.root}/{dataset_id}"
            if await self._kernel.exists(final):
                raise AlreadyExists(f"{final} exists already")
            if await self._kernel.exists(staged):  # it was busy when its maker gave it up
                await self._place.destroy(staged)
            await self._place.ensure()
            try:
                yield staged
            except BaseException:
                await self.give_up(dataset_id)
                raise

    @contextmanager
    def _reserved(self, dataset_id: str, staged: _Staged) -> Iterator[None]:
        """Keep the id for one caller, who has it as long as the target is unfinished."""
        self._place.reserve(dataset_id)
        self._live[dataset_id] = staged
        try:
            yield
        except BaseException:
            self._release(dataset_id)
            raise

    def _release(self, dataset_id: str) -> None:
        if self._live.pop(dataset_id, None):
            self._place.release(dataset_id)

    async def _grow(self, dataset_id: str, size: int) -> None:
        if not size:
            return
        found = await self.row(dataset_id)
        if size > found.size:
            await self._kernel.set(found.dataset, volsize=str(size))

    # The end

    async def publish(self, dataset_id: str) -> None:
        staged = self._staged(dataset_id)
        if staged.kind is Kind.VOLUME:
            await self._publish_volume(staged, dataset_id)
        else:
            await self._publish_template(await self.row(dataset_id))
        self._release(dataset_id)

    @settled
    async def abandon(self, dataset_id: str) -> None:
        """Destroy what is unfinished; what does not exist is no error."""
        if staged := self._live.get(dataset_id):
            await self._place.destroy(staged.dataset)
            self._release(dataset_id)

    async def give_up(self, dataset_id: str) -> None:
        """Abandon on the way out of a failure, which is what the caller has to hear of."""
        if staged := self._live.get(dataset_id):
            with self._place.or_later(staged.dataset):
                await self.abandon(dataset_id)
            self._release(dataset_id)

    async def _publish_volume(self, staged: _Staged, dataset_id: str) -> None:
        final = f"{self._kernel.root}/{dataset_id}"
        if not staged.has_device:
            await device.wait_for_device(staged.dataset)
        await self._kernel.rename(staged.dataset, final)
        try:
            await device.wait_for_device(final)
        except DeviceTimeout:
            await self._kernel.rename(final, staged.dataset)
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


_RECEIVED: Final = "received"
"""The snapshot a copy arrives as."""
