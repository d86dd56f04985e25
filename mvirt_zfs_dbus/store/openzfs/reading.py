"""What there is: the whole pool, or one thing of it, fresh.

A change made while a pool is read makes what it is of stale, and the next rescan reads that again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Final

from ...errors import Error, NotFound, PoolUnavailable
from ...model import Kind, Pool, Snapshot, Usage
from ..base import Inventory
from . import device, programs, rows, zpool
from .events import ANYTHING, THE_POOL
from .kernel import Kernel, ProgramFailed, TooMuch
from .rows import IMAGE_SNAPSHOT, DatasetRow, Thing, is_id

_log = logging.getLogger(__name__)

_PAGE: Final = 100
"""Datasets that one program reads. Until it ends, no transaction group with a change of the pool's
configuration does."""
_SPACE_AGE: Final = 10.0
"""Seconds that the pool's space is good for where a few datasets alone are read again; who asks for
it has it fresh."""


class Reading:
    def __init__(self, kernel: Kernel, is_live: Callable[[str], bool]) -> None:
        """``is_live``: whether an id is of what is being made, which does not exist yet."""
        self._kernel = kernel
        self._is_live = is_live
        kernel.touched = self.touch
        self._rows: dict[str, DatasetRow] = {}
        """What the last scan saw, and what of it was changed since."""
        self._things: dict[str, list[Thing]] = {}
        """What exists of each row. Of a row that stayed, the very same objects each time: whoever
        compares two inventories is through with them at once."""
        self._stale: set[str] = set()
        self._all_stale = True
        self._scanning = asyncio.Lock()
        self._homes: dict[str, str] = {}
        """The dataset of each snapshot, as it was last seen."""
        self._left_out: set[str] = set()
        """What cannot be read, and was said so."""
        self._usable: set[str] = set()
        """The volumes whose device has been seen, or waited for in vain."""
        self._space = (0, 0, 0)
        self._space_read_at = -_SPACE_AGE

    def touch(self, name: str) -> None:
        """A dataset or snapshot, ANYTHING or THE_POOL is not what the last scan saw any more."""
        root = f"{self._kernel.root}/"
        if name in (ANYTHING, THE_POOL):
            self._space_read_at = -_SPACE_AGE
        if name == ANYTHING:
            self._all_stale = True
        elif name.startswith(root):
            self._stale.add(root + name.removeprefix(root).partition("/")[0].partition("@")[0])

    async def scan(self) -> tuple[Inventory, set[str]]:
        """Everything that exists, and the datasets that are deleted and wait for their clones."""
        self.touch(ANYTHING)
        return await self.rescan()

    async def rescan(self) -> tuple[Inventory, set[str]]:
        """The same, but what nothing has touched is taken from the last scan."""
        health = zpool.health(self._kernel.pool)
        if health in zpool.LOST:
            self.touch(ANYTHING)
            self._usable.clear()
            return Inventory(Pool(self._kernel.root, health)), set()
        async with self._scanning:
            root = await self._renew_rows()
            await self._wait_for_devices()
        usage = rows.pool_usage(root, *await self._recent_space())
        found = sorted(self._rows.values(), key=lambda row: row.dataset)
        self._homes = {s.name: row.dataset for row in found for s in row.snapshots}
        things = chain.from_iterable(self._things[row.dataset] for row in found)
        deleted = {row.dataset for row in found if row.deleted}
        return rows.inventory(Pool(self._kernel.root, health, usage), things), deleted

    async def _renew_rows(self) -> Mapping[bytes, Any]:
        """Read what is stale; the answer is what the program says of the root dataset."""
        everything, stale = self._all_stale, self._stale
        self._all_stale, self._stale = False, set()
        try:
            names = await self._children() if everything else sorted(stale)
            unfinished = set(filter(self._is_unfinished, names))
            self._stale |= unfinished
            names = [name for name in names if name not in unfinished]
            pages = [names[start : start + _PAGE] for start in range(0, len(names), _PAGE)]
            found = [row for page in pages for row in await self._page(page)]
            root = await self._root()  # last: had it gone meanwhile, what was found is not all
        except BaseException:
            self._all_stale |= everything
            self._stale |= stale
            raise
        for name in list(self._rows) if everything else stale:
            self._rows.pop(name, None)
            self._things.pop(name, None)
        for row in found:
            self._left_out.discard(row.dataset)
            self._rows[row.dataset] = row
            self._things[row.dataset] = rows.things(row)
        return root

    def _is_unfinished(self, name: str) -> bool:
        return name not in self._rows and self._is_live(name.rpartition("/")[2])

    async def _children(self) -> list[str]:
        answer = await self._read(programs.CHILDREN, root=self._kernel.root)
        return sorted(programs.names(answer))

    async def _wait_for_devices(self) -> None:
        """Nobody is told of a volume whose device is not there yet, as after ``zpool import``."""
        volumes = {
            row.dataset
            for row in self._rows.values()
            if row.exists and row.metadata.kind == Kind.VOLUME
        }
        new = volumes - self._usable
        if new:
            for name in sorted(await device.wait_for_devices(new, self._kernel.exists)):
                _log.warning(
                    "%s has not appeared: is udev running? `udevadm trigger"
                    " --subsystem-match=block` has it look again",
                    device.device_path(name),
                )
        self._usable = volumes

    async def deleted(self) -> set[str]:
        """The datasets that are deleted, which is read sooner than everything."""
        answer = await self._kernel.read(programs.DELETED, root=self._kernel.root)
        return {name for name in programs.names(answer) if is_id(name.rpartition("/")[2])}

    async def pool(self) -> Pool:
        health = zpool.health(self._kernel.pool)
        if health in zpool.LOST:
            return Pool(self._kernel.root, health)
        space = await self._fresh_space()
        root = await self._kernel.read(programs.ROOT, root=self._kernel.root)
        return Pool(self._kernel.root, health, rows.pool_usage(root, *space))

    async def usage(self, dataset_id: str, snapshot_id: str) -> Usage:
        part = {"snapshot": snapshot_id} if snapshot_id else {}
        name = self._dataset(dataset_id)
        found = await self._kernel.read(programs.USAGE, dataset=name, **part)
        if not found:
            raise NotFound(f"there is no {name}" + (f"@{snapshot_id}" if snapshot_id else ""))
        return rows.read_usage(found)

    async def template_size(self, template_id: str) -> int:
        """Which never changes, so that it need not be read again. NotFound."""
        name = self._dataset(template_id)
        row = None if self._all_stale or name in self._stale else self._rows.get(name)
        if row is not None and row.exists and row.metadata.kind == Kind.TEMPLATE:
            return row.size
        return await self.size(Kind.TEMPLATE, template_id)

    async def size(self, kind: Kind, dataset_id: str) -> int:
        """A volume's or a template's, in bytes, which is less to read than all of it. NotFound."""
        found = await self._read(programs.LOOK, dataset=self._dataset(dataset_id))
        size = int(found.get(b"volsize", 0))
        if not size or found.get(b"kind") != kind.encode() or not is_id(dataset_id):
            raise await self._not_found(f"{kind} {dataset_id}")
        return size

    async def row(self, kind: Kind, dataset_id: str) -> DatasetRow:
        """A volume or a template. NotFound."""
        found = await self.dataset(dataset_id)
        if found.metadata.kind != kind:
            raise NotFound(f"there is no {kind} {dataset_id}")
        return found

    async def dataset(self, dataset_id: str) -> DatasetRow:
        """What exists under this id, of its snapshots only what clones are made of. NotFound."""
        found = await self._scan([self._dataset(dataset_id)], snapshot=IMAGE_SNAPSHOT)
        if not found or not found[0].exists:
            raise await self._not_found(f"volume or template {dataset_id}")
        return found[0]

    async def snapshot(self, snapshot_id: str, home: str = "") -> Snapshot:
        """A snapshot, of the volume ``home`` where that is known. NotFound."""
        volume = home or (await self.home(snapshot_id)).rpartition("/")[2]
        dataset = self._dataset(volume)
        found = await self._read(programs.SNAPSHOT, dataset=dataset, snapshot=snapshot_id)
        if found.get(b"kind") == Kind.VOLUME.encode() and is_id(volume):
            row = rows.read_snapshot(f"{dataset}@{snapshot_id}", found[b"snapshot"])
            if row.exists:
                self._homes[snapshot_id] = dataset
                return rows.snapshot(row, volume)
        raise await self._not_found(f"snapshot {snapshot_id}")

    async def home(self, snapshot_id: str) -> str:
        """The dataset a snapshot is of, as it was last seen, or by a search. NotFound."""
        seen = self._homes.get(snapshot_id)
        if seen is not None and await self._kernel.exists(f"{seen}@{snapshot_id}"):
            return seen
        root = self._kernel.root
        answer = await self._kernel.read(programs.FIND, root=root, snapshot=snapshot_id)
        for home in programs.names(answer):
            self._homes[snapshot_id] = home
            return home
        raise NotFound(f"there is no snapshot {snapshot_id}")

    async def _recent_space(self) -> tuple[int, int, int]:
        """It takes a process: scans that follow each other closely share one."""
        if time.monotonic() - self._space_read_at > _SPACE_AGE:
            return await self._fresh_space()
        return self._space

    async def _fresh_space(self) -> tuple[int, int, int]:
        self._space = await zpool.space(self._kernel.pool)
        self._space_read_at = time.monotonic()
        return self._space

    def _dataset(self, dataset_id: str) -> str:
        return f"{self._kernel.root}/{dataset_id}"

    async def _root(self) -> Mapping[bytes, Any]:
        """What there is to know of the root dataset. PoolUnavailable."""
        root = self._kernel.root
        found = await self._kernel.read(programs.ROOT, root=root)
        if found.get(b"missing"):
            raise PoolUnavailable(f"there is no dataset {root} any more")
        if found.get(b"locked"):
            raise PoolUnavailable(f"{root} is encrypted; zfs load-key unlocks it")
        return found

    async def _not_found(self, what: str) -> NotFound:
        """The error for what is not there although the pool is. PoolUnavailable."""
        await self._root()
        return NotFound(f"there is no {what}")

    async def _read(self, program: str, **arguments: object) -> Mapping[bytes, Any]:
        try:
            return await self._kernel.read(program, **arguments)
        except ProgramFailed:
            await self._root()  # of what is locked hardly anything can be read
            raise

    async def _page(self, names: list[str]) -> list[DatasetRow]:
        """What is too much to be read at once is read in halves, and one that is, not at all."""
        try:
            return await self._scan(names)
        except TooMuch as error:
            if len(names) == 1:
                self._leave_out(names[0], error)
                return []
        middle = len(names) // 2
        return [*await self._page(names[:middle]), *await self._page(names[middle:])]

    async def _scan(self, names: list[str], **wanted: str) -> list[DatasetRow]:
        answer = await self._read_around_damage(names=names, **wanted)
        return await self._kernel.run(rows.read_datasets, answer)

    async def _read_around_damage(self, **arguments: object) -> Mapping[bytes, Any]:
        """A program breaks off at what it cannot read: without that, the rest is still there."""
        damaged: dict[str, bool] = {}
        while True:
            try:
                return await self._kernel.read(programs.SCAN, skip=damaged, **arguments)
            except ProgramFailed as error:
                if not error.dataset or error.dataset in damaged:
                    raise
                await self._root()  # of what is locked hardly anything can be read
                self._leave_out(error.dataset, error)
                damaged[error.dataset] = True

    def _leave_out(self, name: str, error: Error) -> None:
        """Try it again with the next rescan; nothing tells when it can be read."""
        self.touch(name)
        if name not in self._left_out:
            _log.error("%s cannot be read and is left out: %s", name, error)
            self._left_out.add(name)
