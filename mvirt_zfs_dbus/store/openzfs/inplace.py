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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from ...errors import AlreadyExists, Error, NotFound
from ...model import Kind
from ..base import NewClone, NewDataset
from . import device, programs, properties
from .intents import Intents
from .kernel import Kernel
from .place import Place

_log = logging.getLogger(__name__)

_PAGE: Final = 100
"""Datasets that one program is about."""


class InPlace:
    def __init__(self, kernel: Kernel, place: Place, intents: Intents) -> None:
        self._kernel = kernel
        self._place = place
        self._intents = intents
        self._root_hides = False
        """Whether what is made below the root inherits what keeps the host out of it."""
        self._in_doubt = True

    def doubt(self) -> None:
        """The root may say something else than it did."""
        self._in_doubt = True

    async def look(self) -> None:
        """See what the root says, where that is in doubt, and give volumes that inherit what they
        were not made with their own. What cannot be seen or done now stays in doubt."""
        if not self._in_doubt:
            return
        self._root_hides = self._in_doubt = False
        try:
            root_hides = (
                await self._of_root("volmode") == b"dev"
                and await self._of_root("snapdev") == b"hidden"
            )
            if not root_hides:
                await self._pin_all()
            self._root_hides = root_hides and not self._in_doubt
        except Error as error:
            self._in_doubt = True
            _log.warning("%s: the host may look into guests' disks: %s", self._kernel.root, error)

    async def _of_root(self, name: str) -> bytes:
        root = self._kernel.root
        found = await self._kernel.read(programs.PROPERTY, dataset=root, property=name)
        value: bytes = found.get(b"value", b"")
        return value

    async def can_make(self, dataset_id: str) -> bool:
        """Whether that is possible now. AlreadyExists, DeviceBusy."""
        await self.look()
        if self._root_hides and not self._intents.is_fresh(dataset_id):
            name, staged = self._names(dataset_id)
            if await self._kernel.exists(name):
                raise AlreadyExists(f"{name} exists already")
            if await self._kernel.exists(staged):  # it was busy when it was taken back
                await self._place.destroy(staged)
        return self._root_hides and self._intents.have_room  # now: others went on meanwhile

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
        if not self._root_hides:  # any more: whoever gives all others theirs may not see this one
            self.doubt()

    async def wait_for_device(self, dataset_id: str) -> None:
        """DeviceTimeout.

        A rename is what makes the kernel tell udev of a disk again: the volume goes where nothing
        is finished, from where nobody is told of it, and comes back.
        """
        name, staged = self._names(dataset_id)

        async def tell_udev_again() -> None:
            if device.udev_is_busy():
                return
            await self._put_aside(name, staged)
            await self._kernel.rename(staged, name)

        await device.wait_for_device(name, tell_udev_again)

    @asynccontextmanager
    async def taken_back(self, dataset_id: str) -> AsyncIterator[None]:
        """What was made is undone when this fails."""
        try:
            yield
        except Error:
            await self._take_back(*self._names(dataset_id))
            raise

    async def _take_back(self, name: str, staged: str) -> None:
        try:
            if await self._kernel.exists(name):
                await self._put_aside(name, staged)
        except Error as error:
            _log.error("%s was not wanted, and stays: %s", name, error)
            return
        with self._place.or_later(staged):
            await self._place.destroy(staged)

    async def _put_aside(self, name: str, staged: str) -> None:
        await self._place.ensure()
        await self._kernel.rename(name, staged)

    def _names(self, dataset_id: str) -> tuple[str, str]:
        return f"{self._kernel.root}/{dataset_id}", f"{self._place.volumes}/{dataset_id}"

    async def _pin_all(self) -> None:
        root = self._kernel.root
        children = programs.names(await self._kernel.read(programs.CHILDREN, root=root))
        for start in range(0, len(children), _PAGE):
            page = list(children[start : start + _PAGE])
            for name in programs.names(await self._kernel.read(programs.UNPINNED, names=page)):
                _log.warning("%s is not volmode=dev: %s gets its own", root, name)
                with suppress(NotFound):  # it went meanwhile
                    await self._kernel.set(name, volmode="dev", snapdev="hidden")
