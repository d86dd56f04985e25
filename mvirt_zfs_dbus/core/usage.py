"""Usage counters, read from the store when somebody asks and at most once a second each."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ..errors import Error
from ..model import Usage
from ..store.base import Store
from .catalog import Catalog
from .locks import Locks

log = logging.getLogger(__name__)

MAX_AGE: Final = 1.0
"""Seconds a counter is good for, as the contract has it."""
_POOL: Final = "pool"


class UsageReader:
    """What cannot be read now stays as it was last known; the pool's health tells why."""

    def __init__(
        self, store: Store, catalog: Catalog, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._locks = Locks()
        self._read_at: dict[str, float] = {}
        """When each was read, the longest ago first; none older than MAX_AGE."""

    async def dataset(self, dataset_id: str) -> None:
        """Have a volume's or template's counters fresh in the catalog."""
        await self._read(dataset_id, lambda: self._store.usage(dataset_id))

    async def snapshot(self, snapshot_id: str) -> None:
        """Have a snapshot's counters fresh in the catalog."""
        volume_id = self._catalog.snapshot(snapshot_id).volume_id
        await self._read(snapshot_id, lambda: self._store.usage(volume_id, snapshot_id))

    async def pool(self) -> None:
        """Have the pool's health and counters fresh in the catalog."""
        async with self._locks.hold(_POOL):
            if self._take(_POOL):
                try:
                    self._catalog.put_pool(await self._store.pool())
                except Error as error:
                    log.debug("the pool's usage cannot be read: %s", error)

    async def _read(self, object_id: str, read: Callable[[], Awaitable[Usage]]) -> None:
        async with self._locks.hold(object_id):
            if self._take(object_id):
                try:
                    self._catalog.put_usage(object_id, await read())
                except Error as error:
                    log.debug("the usage of %s cannot be read: %s", object_id, error)

    def moment(self) -> float:
        """Now, for :meth:`forget`."""
        return self._clock()

    def forget(self, since: float) -> None:
        """A scan that began at ``since`` has put older counters over what was read meanwhile."""
        for key in [key for key, read_at in self._read_at.items() if read_at >= since]:
            del self._read_at[key]

    def _take(self, key: str) -> bool:
        """Whether it is time to read this one again; from now on it counts as read."""
        moment = self._clock()
        while self._read_at:
            oldest, read_at = next(iter(self._read_at.items()))
            if moment - read_at < MAX_AGE:
                break
            del self._read_at[oldest]
        if key in self._read_at:
            return False
        self._read_at[key] = moment
        return True
