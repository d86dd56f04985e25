"""Volumes that one call of the kernel makes whole, where they stay.

What takes several steps is made below ``POOL/.tmp`` and renamed into place when it is whole (see
``staging``). A thin volume, or a clone of its template's size, is made by one call, so that nobody
sees it unfinished, and what a power cut leaves of that call is known by its id (see ``intents``).
That saves the rename, and half of udev's work, which looks at a disk for each name that it has.

Its properties alone would undo that: ZFS takes a transaction group for each of ``volmode`` and
``snapdev``, and makes the disk anew where the first is another than the parent's. So only what
inherits both as they have to be is made here, from a root dataset that was made with
``volmode=dev``. Should the root ever say otherwise, its volumes get their own at once.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from ...errors import AlreadyExists, Error
from ...model import Kind
from ..base import NewClone, NewDataset
from . import device, programs, properties
from .intents import Intents
from .kernel import Kernel
from .place import Place

_log = logging.getLogger(__name__)

_PAGE: Final = 100
"""Datasets that one program or command is about."""


class InPlace:
    def __init__(self, kernel: Kernel, place: Place, intents: Intents) -> None:
        self._kernel = kernel
        self._place = place
        self._intents = intents
        self._root_hides = False
        """Whether what is made below the root inherits what keeps the host out of it."""

    async def look(self) -> None:
        """See what the root dataset says: at start, and when it may say something else. Volumes
        that inherit what they were not made with get their own."""
        self._root_hides = (
            await self._of_root("volmode") == b"dev" and await self._of_root("snapdev") == b"hidden"
        )
        if not self._root_hides:
            await self._pin_all()

    async def _of_root(self, name: str) -> bytes:
        root = self._kernel.root
        found = await self._kernel.read(programs.PROPERTY, dataset=root, property=name)
        value: bytes = found.get(b"value", b"")
        return value

    async def can_make(self, dataset_id: str) -> bool:
        """Whether that is possible now. AlreadyExists."""
        if not self._root_hides or not self._intents.have_room:
            return False
        name = f"{self._kernel.root}/{dataset_id}"
        if not self._intents.know(dataset_id) and await self._kernel.exists(name):
            raise AlreadyExists(f"{name} exists already")
        return True

    async def create(self, new: NewDataset) -> None:
        async with self._making(new.id) as name:
            await self._kernel.create(name, "zvol", properties.of_dataset(Kind.VOLUME, new))

    async def clone(self, origin: str, new: NewClone) -> None:
        async with self._making(new.id) as name:
            await self._kernel.clone(name, origin, properties.of_clone(Kind.VOLUME, new))

    @asynccontextmanager
    async def _making(self, dataset_id: str) -> AsyncIterator[str]:
        async with self._intents.making(dataset_id) as name:
            yield name
        if not self._root_hides:  # any more: whoever gave all others theirs did not see this one
            await self._pin([name])

    async def wait_for_device(self, dataset_id: str) -> None:
        """A volume that gets none is gone again. DeviceTimeout.

        A rename is what makes the kernel tell udev of a disk again: the volume goes where nothing
        is finished, from where nobody is told of it, and comes back.
        """
        name = f"{self._kernel.root}/{dataset_id}"
        staged = f"{self._place.volumes}/{dataset_id}"

        async def tell_udev_again() -> None:
            await self._place.ensure()
            await self._kernel.rename(name, staged)
            await self._kernel.rename(staged, name)

        try:
            await device.wait_for_device(name, tell_udev_again)
        except Error:
            await self._take_back(name, staged)
            raise

    async def _take_back(self, name: str, staged: str) -> None:
        """Undo what was made, on the way out of a failure, which is what its caller has to hear."""
        try:
            await self._place.ensure()
            if await self._kernel.exists(name):
                await self._kernel.rename(name, staged)
            await self._place.destroy(staged)
        except Error as error:
            _log.warning("%s is destroyed later: %s", staged, error)

    async def _pin_all(self) -> None:
        root = self._kernel.root
        children = programs.names(await self._kernel.read(programs.CHILDREN, root=root))
        for start in range(0, len(children), _PAGE):
            page = list(children[start : start + _PAGE])
            names = programs.names(await self._kernel.read(programs.UNPINNED, names=page))
            if names:
                _log.warning("%s is not volmode=dev: %d volumes get their own", root, len(names))
                await self._pin(names)

    async def _pin(self, names: Sequence[str]) -> None:
        """What cannot be done now is tried again at the next start; nothing else waits for it."""
        try:
            await self._kernel.set_all(names, volmode="dev", snapdev="hidden")
        except Error as error:
            _log.warning("the host may look into guests' disks: %s", error)
