"""``POOL/.tmp``: where what is unfinished stands, and temporary files.

POOL/.tmp              a file system for temporary files; what is made below it has no device
POOL/.tmp/volumes      what is made below it has its device at once
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from ...errors import AlreadyExists, Error, PoolUnavailable
from . import changes, programs, properties, spool
from .busy import when_free
from .kernel import Kernel, error_of

_log = logging.getLogger(__name__)

T = TypeVar("T")

_EMPTY: Final = 1024 * 1024
"""Bytes that the place may hold without files in it: what a file system has of its own."""


class Place:
    def __init__(self, kernel: Kernel, runtime_directory: Path) -> None:
        self.dataset = f"{kernel.root}/.tmp"
        self.volumes = f"{self.dataset}/volumes"
        self._kernel = kernel
        self._runtime_directory = runtime_directory
        self._ensuring = asyncio.Lock()
        self._live: set[str] = set()

    def is_live(self, dataset_id: str) -> bool:
        """Whether somebody here is making it, here or where it stays."""
        return dataset_id in self._live

    def reserve(self, dataset_id: str) -> None:
        """Keep the id for one caller, until it is released. AlreadyExists."""
        if dataset_id in self._live:
            raise AlreadyExists(f"{dataset_id} is being made already")
        self._live.add(dataset_id)

    def release(self, dataset_id: str) -> None:
        self._live.discard(dataset_id)

    @contextmanager
    def reserved(self, dataset_id: str) -> Iterator[None]:
        self.reserve(dataset_id)
        try:
            yield
        finally:
            self.release(dataset_id)

    async def prepare(self) -> None:
        """At start: destroy what a crash left, datasets and temporary files."""
        found = await self.look()
        if found.get(b"exists") and found.get(b"kind") == properties.SPOOL.encode():
            await self.sweep()
            if found[b"referenced"] > _EMPTY:
                await self._renew()
        elif found.get(b"exists"):
            if programs.names(found) or b"volmode" in found or not await self._is_empty():
                raise PoolUnavailable(
                    f"{self.dataset} holds what is not of this service, which needs that name for"
                    " itself: rename it"
                )
            await self._adopt()
        await self.ensure()

    async def sweep(self) -> None:
        """Destroy what is unfinished and nobody here is making."""
        found = await self.look()
        if found.get(b"volmode", b"dev") != b"dev":  # a power cut came before its properties
            await self._kernel.set(self.volumes, volmode="dev")
        for name in programs.names(found):
            if not self.is_live(name.rpartition("/")[2]):
                try:
                    await self.destroy(name)
                except Error as error:
                    _log.warning("%s was left unfinished and cannot be destroyed: %s", name, error)

    async def destroy(self, staged: str) -> None:
        """A dataset here with its snapshots; what does not exist is no error. DeviceBusy."""
        what = f"destroy {staged}"
        await when_free(self._kernel, what, changes.DESTROY_STAGED, dataset=staged)

    @contextmanager
    def or_later(self, staged: str) -> Iterator[None]:
        """Around what undoes it on the way out of a failure, which is what the caller has to hear
        of. What this cannot do, the next sweep does."""
        try:
            yield
        except Error as error:
            _log.warning("%s is destroyed later: %s", staged, error)

    async def open_spool(self) -> int:
        await self.ensure()
        return await self._mounted("opening a temporary file in", spool.open_file)

    async def look(self) -> Mapping[bytes, Any]:
        """What :data:`programs.PLACE` answers: whether it is there, whose it is, what it holds."""
        return await self._kernel.read(programs.PLACE, dataset=self.dataset, volumes=self.volumes)

    async def _is_empty(self) -> bool:
        return await self._mounted("looking into", spool.is_empty)

    async def _mounted(self, what: str, work: Callable[[str, Path], T]) -> T:
        try:
            return await self._kernel.run(work, self.dataset, self._runtime_directory)
        except OSError as error:
            number = error.errno or 0
            raise error_of(number, f"{what} {self.dataset}", self._kernel.pool) from error

    async def _renew(self) -> None:
        """Unnamed files that a crash left would keep their space until the next mount."""
        try:
            if await self._kernel.exists(self.volumes):
                await self._kernel.destroy(self.volumes)
            await self._kernel.destroy(self.dataset)
        except Error as error:
            _log.warning("%s is kept as it is: %s", self.dataset, error)

    async def _adopt(self) -> None:
        """A power cut came between the making of the place and its properties."""
        await self._kernel.set(
            self.dataset,
            volmode="none",
            canmount="noauto",
            mountpoint="legacy",
            **{
                f"{properties.PREFIX}kind": properties.SPOOL,
                f"{properties.PREFIX}state": properties.IMPORTING,
            },
        )

    async def ensure(self) -> None:
        """Make it where it is not there, or not any more."""
        async with self._ensuring:  # a dataset exists before it has its properties
            if await self._kernel.exists(self.volumes):
                return
            with suppress(AlreadyExists):
                await self._kernel.create(self.dataset, "zfs", properties.of_spool())
            await self._kernel.create(self.volumes, "zfs", properties.of_staged_volumes())
