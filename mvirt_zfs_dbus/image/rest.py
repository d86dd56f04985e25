"""What of a stream cannot be used yet, kept where it stood in the stream."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from .buffer import data_runs
from .pool import Pool
from .source import Seekable
from .writer import Target

IN_MEMORY: Final = 32 << 20
"""Bytes kept before a temporary file is asked for. An image of 256 GiB in clusters of 64 KiB has as
many bytes of L2 tables, and all else that ``qemu-img convert`` writes out of order is far less."""
_PAGE: Final = 4096
"""What a file in memory grows by."""


class Rest:
    """A sparse file as long as the stream: in memory while that is enough, in the spool then."""

    def __init__(self, memory_fd: int, open_spool: Callable[[], int], pool: Pool) -> None:
        """``memory_fd``: an empty file of memfd_create(2)."""
        self._file = Target(memory_fd, 0, is_zero=True)
        self._in_memory = True
        self._open_spool = open_spool
        self._pool = pool
        self._pages = 0
        self._last_page = -1

    def keep(self, offset: int, data: bytes) -> None:
        for start, end in data_runs(data, 0, len(data)):
            self._count((offset + start) // _PAGE, (offset + end - 1) // _PAGE)
        if self._in_memory and self._pages * _PAGE > IN_MEMORY:
            self._move()
        self._pool.run(self._file.write, data, offset)

    def _count(self, first: int, last: int) -> None:
        self._pages += last - first + (first != self._last_page)
        self._last_page = last

    def source(self, size: int) -> Seekable:
        """All that was kept of the first ``size`` bytes; what was not reads as zeros."""
        self._pool.finish()
        os.ftruncate(self._file.fd, size)
        return Seekable(self._file.fd, size)

    def _move(self) -> None:
        """Out of the memory, into the spool."""
        self._pool.finish()
        memory = Seekable(self._file.fd, os.fstat(self._file.fd).st_size)
        spool = Target(self._open_spool(), 0, is_zero=True)
        for start, end in memory.extents():
            for offset in range(start, end, 1 << 20):
                spool.write(memory.read(offset, min(1 << 20, end - offset)), offset)
        os.ftruncate(memory.fd, 0)
        self._file, self._in_memory = spool, False
