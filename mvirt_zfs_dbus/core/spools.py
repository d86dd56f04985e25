"""The temporary files of imports: together they may take so much of the pool, and no more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from .. import fds
from ..errors import LimitsExceeded

_SECTOR: Final = 512
"""The unit of ``st_blocks``, whatever the file system's block size: stat(2)."""
LOOK_EVERY: Final = 0.25
"""Seconds. A worker writes into its spool by itself, so what it took is seen afterwards."""


class Spools:
    def __init__(self, open_spool: Callable[[], Awaitable[int]], limit: int) -> None:
        self._open_spool = open_spool
        self._limit = limit
        self._imports: list[list[int]] = []
        """Descriptors of each import's files."""

    @asynccontextmanager
    async def of_import(self) -> AsyncIterator[Callable[[], Awaitable[int]]]:
        """How an import opens its files. LimitsExceeded ends it when all imports' files together
        have become too large and its own are the largest."""
        files: list[int] = []
        task = asyncio.current_task()
        assert task
        over = False

        async def watch() -> None:
            nonlocal over
            while not over:
                await asyncio.sleep(LOOK_EVERY)
                sizes = [_size(other) for other in self._imports]
                over = sum(sizes) > self._limit and _size(files) == max(sizes)
            task.cancel()

        async def open_file() -> int:
            fd = await self._open_spool()
            files.append(os.dup(fd))
            return fd

        self._imports.append(files)
        watcher = asyncio.create_task(watch())
        try:
            yield open_file
        except asyncio.CancelledError:
            if over and not task.uncancel():
                raise LimitsExceeded(
                    f"the image cannot be converted as it arrives, and temporary files are over"
                    f" {self._limit} bytes (max-spool)"
                ) from None
            raise
        finally:
            watcher.cancel()
            self._imports = [other for other in self._imports if other is not files]
            for fd in files:
                fds.close(fd)


def _size(files: list[int]) -> int:
    return sum(os.fstat(fd).st_blocks * _SECTOR for fd in files)
