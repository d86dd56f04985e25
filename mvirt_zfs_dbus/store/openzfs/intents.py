"""Ids that are written down in the pool before volumes are made with them.

ZFS makes a dataset in one transaction group and gives it its properties in a later one (see
``staging``). What a power cut leaves between them carries no sign of whose it is but its name:
``POOL/.tmp`` carries ``org.mvirt:intents``, the ids that are about to be used. What one of them
names at start is destroyed if it has none of our properties and holds nothing; all else stays.

A transaction group is needed to write ids down, so that some are written ahead of their use. Those
that were used go with the next writing, at the next start at the latest.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from ...errors import AlreadyExists, Error, PoolUnavailable
from . import changes, programs, properties
from .kernel import Kernel
from .place import Place
from .rows import is_id

_log = logging.getLogger(__name__)

_AHEAD: Final = 64
_MOST: Final = 200
"""Ids in all: each takes 37 bytes of the 8191 that a property holds (zfsprops(7))."""

_EMPTY: Final = 6144
"""``logicalused`` (zfsprops(7)) of a volume that was never written, whatever its size and blocks,
as measured with OpenZFS 2.1.11. A clone begins with less, and the first block written adds itself
and, in a clone, the 16 KiB of the dnode that leads to it. Should another release need more for
nothing, what a crash leaves stays, which is the safe side."""


class Intents:
    def __init__(self, kernel: Kernel, place: Place) -> None:
        self._kernel = kernel
        self._place = place
        self._written: set[str] = set()
        self._free: list[str] = []
        """Of those, what nobody has used yet."""
        self._making: set[str] = set()
        self._in_use = False
        """Whether ids were ever written down in this pool."""
        self._left: set[str] = set()
        """What may stand half-made since its making failed."""
        self._writing = asyncio.Lock()

    async def recover(self) -> None:
        """Destroy what a crash left half-made: at start, and when the pool was imported again.

        What is written down counts no more after this; see :meth:`renew`.
        """
        self._written, self._free = set(), []
        found = await self._place.look()
        self._in_use = b"intents" in found
        ids = set(filter(is_id, found.get(b"intents", b"").decode(errors="replace").split()))
        names = [self._name(each) for each in sorted(ids - self._making)]
        half_made = programs.names(await self._kernel.read(programs.NOBODYS, names=names))
        if half_made:
            outcome = await self._kernel.change(
                "destroy what was left half-made",
                changes.SETTLE,
                names=list(half_made),
                empty=str(_EMPTY),
            )
            self._left = {name.rpartition("/")[2] for name in outcome.names}
            for name in outcome.names:
                _log.warning("%s was left half-made and cannot be destroyed now", name)

    async def renew(self) -> None:
        """Write ids down anew, without those that were used. A pool that is full or read-only is
        served all the same."""
        if not self._in_use:
            return
        try:
            async with self._writing:
                await self._write()
        except Error as error:
            _log.warning("no ids are written down ahead: %s", error)

    def new_id(self) -> str:
        """One that is written down, where there is one."""
        return self._free.pop() if self._free else str(uuid.uuid4())

    def know(self, dataset_id: str) -> bool:
        """Whether it is one of ours, that nobody else can have."""
        return dataset_id in self._written

    @property
    def have_room(self) -> bool:
        return len(self._making) + len(self._left) < _MOST - _AHEAD

    @asynccontextmanager
    async def making(self, dataset_id: str) -> AsyncIterator[str]:
        """The name to make it under, which is known to be ours whenever a crash comes."""
        if dataset_id in self._making:
            raise AlreadyExists(f"{dataset_id} is being made already")
        self._making.add(dataset_id)
        try:
            async with self._writing:
                if dataset_id not in self._written:
                    await self._write()
            try:
                yield self._name(dataset_id)
            except AlreadyExists:  # somebody else's, and not to be taken for ours after a crash
                self._making.discard(dataset_id)
                async with self._writing:
                    await self._write()
                raise
            except Error:
                self._left.add(dataset_id)
                await self._look_whether_left(dataset_id)
                raise
        finally:
            self._making.discard(dataset_id)

    async def _write(self) -> None:
        kept = self._making | self._left
        free = [*self._free, *(str(uuid.uuid4()) for _ in range(_AHEAD - len(self._free)))]
        await self._place.ensure()
        outcome = await self._kernel.change(
            f"write ids of {self._place.dataset} down",
            changes.INTEND,
            dataset=self._place.dataset,
            set=properties.encode({"intents": " ".join([*sorted(kept), *free])}),
        )
        if outcome.refused:
            raise PoolUnavailable(f"{self._place.dataset} is not this service's any more")
        self._in_use = True
        self._written, self._free = kept | set(free), free

    async def _look_whether_left(self, dataset_id: str) -> None:
        """The kernel takes back what it could not make whole, if the pool lets it."""
        with suppress(Error):
            await self._kernel.read(programs.ROOT, root=self._kernel.root)  # the pool answers
            if not await self._kernel.exists(self._name(dataset_id)):
                self._left.discard(dataset_id)

    def _name(self, dataset_id: str) -> str:
        return f"{self._kernel.root}/{dataset_id}"
