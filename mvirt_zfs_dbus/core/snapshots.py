"""The operations on snapshots, with their rules.

They hold the lock of the snapshot's volume: what happens to one dataset happens in order.
"""

from __future__ import annotations

from .. import rules
from ..errors import LimitsExceeded
from ..model import Snapshot
from ..store.base import Store
from .catalog import Catalog
from .clock import now
from .locks import Locks


class Snapshots:
    def __init__(self, store: Store, catalog: Catalog, locks: Locks, limit: int) -> None:
        """``limit``: how many a volume may have."""
        self._store = store
        self._catalog = catalog
        self._locks = locks
        self._limit = limit

    async def create(
        self, volume_id: str, name: str, *, snapshot_id: str | None = None
    ) -> Snapshot:
        """A snapshot of the volume as it is now. InvalidName, AlreadyExists, LimitsExceeded."""
        rules.name(name)
        new_id = rules.object_id(snapshot_id)
        async with self._locks.hold(volume_id):
            volume = self._catalog.volume(volume_id)
            if len(self._catalog.snapshots_of(volume_id)) >= self._limit:
                raise LimitsExceeded(
                    f"volume {volume.name!r} has {self._limit} snapshots, and may have no more"
                    " (max-snapshots)"
                )
            with self._catalog.reserve(volume_id, name, new_id):
                snapshot = await self._store.create_snapshot(
                    volume_id, new_id, name, self._next_moment(volume_id)
                )
                self._catalog.put(snapshot)
        return snapshot

    def _next_moment(self, volume_id: str) -> int:
        """Now, but later than the newest snapshot: a clock set back does not change their order."""
        earlier = self._catalog.snapshots_of(volume_id)
        return max(now(), earlier[-1].created_at + 1 if earlier else 0)

    async def rollback(self, snapshot_id: str, *, destroy_newer: bool) -> None:
        """NewerSnapshots, HasClones, DeviceBusy: see :meth:`Store.rollback`."""
        volume_id = self._catalog.snapshot(snapshot_id).volume_id
        async with self._locks.hold(volume_id):
            target = self._catalog.snapshot(snapshot_id)
            ours = self._catalog.snapshots_of(volume_id)
            volume = await self._store.rollback(snapshot_id, destroy_newer=destroy_newer)
            for newer in ours[ours.index(target) + 1 :]:
                self._catalog.remove(newer.id)
            self._catalog.put(volume)

    async def delete(self, snapshot_id: str, *, defer: bool) -> None:
        """HasClones, unless ``defer``: then it goes with its last clone."""
        volume_id = self._catalog.snapshot(snapshot_id).volume_id
        async with self._locks.hold(volume_id):
            self._catalog.snapshot(snapshot_id)
            await self._store.destroy_snapshot(snapshot_id, defer=defer)
            self._catalog.remove(snapshot_id)
