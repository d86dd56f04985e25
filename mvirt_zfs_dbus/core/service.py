"""The whole service below the bus: what it is made of, how it starts, follows the pool and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..errors import Error
from ..image import Workers
from ..limits import Limits
from ..model import Pool
from ..store.base import Inventory, Store
from .catalog import Catalog
from .events import Events
from .imports import ImportPolicy, Imports
from .jobs import Jobs
from .locks import Locks
from .records import JobRecords
from .snapshots import Snapshots
from .spools import Spools
from .templates import Templates
from .usage import UsageReader
from .volumes import Volumes

log = logging.getLogger(__name__)

RESCAN_RETRY: Final = 1.0
"""Seconds until a scan that failed is tried again."""


@dataclass(frozen=True, slots=True)
class Settings:
    state_directory: Path
    max_imports: int
    import_policy: ImportPolicy
    limits: Limits = field(default_factory=Limits)


class Service:
    def __init__(self, store: Store, settings: Settings) -> None:
        locks = Locks()
        limits = settings.limits
        self.store = store
        self.events = Events()
        self.catalog = Catalog(Pool(store.pool_name, "UNAVAIL"), self.events, limits.objects)
        self.jobs = Jobs(
            JobRecords(settings.state_directory / "jobs"),
            self.events,
            settings.max_imports,
            limits,
        )
        self.workers = Workers()
        self.usage = UsageReader(store, self.catalog)
        self.volumes = Volumes(store, self.catalog, locks)
        self.snapshots = Snapshots(store, self.catalog, locks, limits.snapshots)
        self.templates = Templates(store, self.catalog, locks, self.jobs)
        self.imports = Imports(
            store,
            self.catalog,
            self.jobs,
            self.workers,
            Spools(store.open_spool, limits.spool),
            settings.import_policy,
        )
        self._scan = asyncio.Lock()
        self._changes = store.watch()
        """From now on, so that nothing is missed between the first scan and :meth:`follow`."""

    async def start(self) -> None:
        """Open the pool and know everything in it. PoolUnavailable, Failed."""
        await self.workers.start()
        await self.store.start()
        await self.refresh()
        await self.jobs.start(self.catalog.exists)

    async def close(self) -> None:
        """Stop what runs, leave nothing half-made and let go of the pool."""
        await self.jobs.close()
        await self.workers.close()
        await self.store.close()

    async def refresh(self) -> int:
        """Read the whole pool again; the answer is how many objects had drifted."""
        return await self._read(self.store.scan)

    async def _read(self, scan: Callable[[], Awaitable[Inventory]]) -> int:
        async with self._scan:
            began = self.usage.moment()
            with self.catalog.scanning() as touched:
                drifted = self.catalog.merge(await scan(), touched)
            self.usage.forget(began)
            return drifted

    async def follow(self) -> None:
        """Bring what others change in the pool into the catalog, until the store is closed."""
        async for _ in self._changes:
            await self._catch_up()

    async def _catch_up(self) -> None:
        """Collect and scan, again and again until the pool can be read."""
        while True:
            try:
                await self.store.collect()
                drifted = await self._read(self.store.rescan)
            except Error as error:
                log.warning("the pool cannot be read, and will be tried again: %s", error)
                await asyncio.sleep(RESCAN_RETRY)
            else:
                if drifted:
                    log.info("%d objects were changed by others", drifted)
                return
