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
from collections.abc import AsyncIterator, Sequence
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

_PROBE: Final = 16 * 1024
"""Bytes of a volume that is made to see what one without a byte written has."""


class Intents:
    def __init__(self, kernel: Kernel, place: Place) -> None:
        self._kernel = kernel
        self._place = place
        self._in_use = False
        """Whether ids were ever written down in this pool."""
        self._written: set[str] = set()
        self._fresh: set[str] = set()
        """Of those, what nothing was made with yet."""
        self._free: list[str] = []
        """And of those, what was given to nobody yet."""
        self._making: set[str] = set()
        self._left: set[str] = set()
        """What may stand half-made since its making failed."""
        self._writing = asyncio.Lock()

    async def recover(self) -> None:
        """Destroy what a crash left half-made: at start, and when the pool was imported again.

        What is written down counts no more after this; see :meth:`renew`. Nothing is begun
        meanwhile.
        """
        async with self._writing:
            self._written, self._fresh, self._free = set(), set(), []
            found = await self._place.look()
            self._in_use = b"intents" in found
            ids = set(filter(is_id, found.get(b"intents", b"").decode(errors="replace").split()))
            names = [self._name(each) for each in sorted(ids - self._making)]
            half_made = programs.names(await self._kernel.read(programs.NOBODYS, names=names))
            remaining = await self._destroy(half_made) if half_made else ()
            self._left -= ids - self._making
            self._left |= {name.rpartition("/")[2] for name in remaining}

    async def _destroy(self, half_made: Sequence[str]) -> Sequence[str]:
        """The answer is what cannot be destroyed now, as in a pool that is full."""
        remaining, reason = half_made, ""
        try:
            outcome = await self._kernel.change(
                "destroy what was left half-made",
                changes.SETTLE,
                names=list(half_made),
                empty=str(await self._size_of_nothing()),
            )
            remaining = outcome.names
        except Error as error:
            reason = f": {error}"
        for name in remaining:
            _log.warning("%s was left half-made and cannot be destroyed now%s", name, reason)
        return remaining

    async def _size_of_nothing(self) -> int:
        """``logicalused`` (zfsprops(7)) of a volume that was never written. It depends on the
        pool's sectors, and not on the volume's size or blocks; a clone has less. The first block
        that is written adds to it."""
        probe = f"{self._place.dataset}/{uuid.uuid4()}"
        await self._kernel.create(probe, "zvol", {b"volsize": _PROBE, b"volblocksize": _PROBE})
        try:
            answer = await self._kernel.read(
                programs.PROPERTY, dataset=probe, property="logicalused"
            )
        finally:
            await self._place.destroy(probe)
        return int(answer[b"value"])

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

    def is_fresh(self, dataset_id: str) -> bool:
        """Whether it is one of ours that was never used, and that nobody else can have."""
        return dataset_id in self._fresh

    @property
    def have_room(self) -> bool:
        return len(self._making) + len(self._left) < _MOST - _AHEAD

    @asynccontextmanager
    async def making(self, dataset_id: str) -> AsyncIterator[str]:
        """The name to make it under, which is known to be ours whenever a crash comes."""
        self._making.add(dataset_id)
        self._fresh.discard(dataset_id)
        if dataset_id in self._free:  # its caller chose one that nobody was given yet
            self._free.remove(dataset_id)
        try:
            async with self._writing:
                if dataset_id not in self._written:
                    await self._write()
            try:
                yield self._name(dataset_id)
            except AlreadyExists:  # somebody else's, and not to be taken for ours after a crash
                self._making.discard(dataset_id)
                await self.renew()
                raise
            except Error:
                self._left.add(dataset_id)
                await self._look_whether_left(dataset_id)
                raise
            self._left.discard(dataset_id)
        finally:
            self._making.discard(dataset_id)

    async def _write(self) -> None:
        """What is taken from the free ones meanwhile, and what is begun, is written down or not."""
        self._written, self._fresh = set(), set()  # should this fail, the next one tries again
        fresh = [str(uuid.uuid4()) for _ in range(_AHEAD - len(self._free))]
        written = {*self._making, *self._left, *self._free, *fresh}
        await self._place.ensure()
        outcome = await self._kernel.change(
            f"write ids of {self._place.dataset} down",
            changes.INTEND,
            dataset=self._place.dataset,
            set=properties.encode({"intents": " ".join(sorted(written))}),
        )
        if outcome.refused:
            raise PoolUnavailable(f"{self._place.dataset} is not this service's any more")
        self._in_use = True
        self._written = written
        self._free.extend(fresh)
        self._fresh = set(self._free)

    async def _look_whether_left(self, dataset_id: str) -> None:
        """The kernel takes back what it could not make whole, if the pool lets it."""
        with suppress(Error):
            await self._kernel.read(programs.ROOT, root=self._kernel.root)  # a lost pool hangs
            if not await self._kernel.exists(self._name(dataset_id)):
                self._left.discard(dataset_id)

    def _name(self, dataset_id: str) -> str:
        return f"{self._kernel.root}/{dataset_id}"
