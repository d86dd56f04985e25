"""The operations on volumes, with their rules."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from .. import rules
from ..errors import AlreadyExists
from ..model import Kind, User, Volume
from ..store.base import NewDataset, Store
from .catalog import Catalog
from .clock import now
from .datasets import Datasets
from .locks import Locks


class Volumes(Datasets):
    kind = Kind.VOLUME

    def __init__(self, store: Store, catalog: Catalog, locks: Locks) -> None:
        super().__init__(store, catalog, locks)
        self._looking_for_users = asyncio.Lock()

    async def create(
        self,
        name: str,
        size: int,
        *,
        volume_id: str | None = None,
        block_size: int = rules.DEFAULT_BLOCK_SIZE,
        thin: bool = True,
        compression: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """A new volume that reads as zeros, compressed as its pool is where nothing is said of it.

        With ``volume_id`` the call can be repeated: it answers the same volume again.

        Raises InvalidName, InvalidSize, InvalidArgs, AlreadyExists, NoSpace, PoolUnavailable.
        """
        rules.name(name)
        block = rules.block_size(block_size)
        new = NewDataset(
            name=name,
            size=rules.volume_size(size, block, rules.MAX_VOLUME_SIZE),
            block_size=block,
            thin=thin,
            compression="" if compression is None else rules.compression(compression),
            labels=rules.labels(labels or {}),
            created_at=now(),
            id=self._new_id(volume_id),
        )
        async with self._locks.hold(new.id):
            if volume_id is not None and self._catalog.exists(new.id):
                return self._made_before(new)
            with self._catalog.reserve(Kind.VOLUME, new.name, new.id):
                volume = await self._store.create_volume(new)
                self._catalog.put(volume)
        return volume

    def _made_before(self, new: NewDataset) -> Volume:
        """What an earlier call with the same id made, if it is what this call asks for."""
        known = self._catalog.find(new.id)
        if isinstance(known, Volume) and (known.name, known.size) == (new.name, new.size):
            return known
        raise AlreadyExists(
            f"the id {new.id} belongs to {known.name!r} of {known.size} bytes;"
            f" this call asks for {new.name!r} of {new.size}"
        )

    async def resize(self, volume_id: str, size: int) -> Volume:
        """Grow a volume to ``size`` bytes, rounded up to its blocks. InvalidSize, WouldShrink."""
        async with self._locks.hold(volume_id):
            volume = self._catalog.volume(volume_id)
            rounded = rules.grown_size(size, volume.size, volume.block_size, rules.MAX_VOLUME_SIZE)
            if rounded != volume.size:
                volume = await self._store.resize(volume_id, rounded)
                self._catalog.put(volume)
        return volume

    async def delete(self, volume_id: str, *, snapshots: bool, defer: bool) -> None:
        """HasSnapshots, HasClones, DeviceBusy: see :meth:`Store.destroy_volume`."""
        async with self._locks.hold(volume_id):
            self._catalog.volume(volume_id)
            await self._store.destroy_volume(volume_id, snapshots=snapshots, defer=defer)
            self._catalog.remove(volume_id)

    async def users(self, volume_id: str) -> list[User]:
        """Anybody may ask, and it takes a look at every process there is: one at a time."""
        async with self._looking_for_users:
            self._catalog.volume(volume_id)
            return await self._store.users(volume_id)
