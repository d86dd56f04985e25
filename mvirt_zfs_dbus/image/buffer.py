"""Memory that is written past the page cache, and what of it is worth writing."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from typing import Final

from .source import CHUNK

BLOCK: Final = 4096
"""Zeros are looked for in blocks of this many bytes: the page, and qemu-img's default."""
SHORTEST_HOLE: Final = 16 << 10
"""Fewer bytes of zeros between data are written with it: each write has its price, and a zvol of
16 KiB blocks, which is the default, would not have them as a hole anyway."""
ALIGNMENT: Final = max(BLOCK, mmap.PAGESIZE)
"""What O_DIRECT wants memory, offset and length to be a multiple of, at most (open(2))."""
_ZEROS: Final = bytes(BLOCK)


class Buffer:
    """A chunk of memory of one thread, aligned for O_DIRECT."""

    def __init__(self, size: int = CHUNK) -> None:
        self.memory = bytearray(size + ALIGNMENT)
        self.start = -ctypes.addressof(ctypes.c_char.from_buffer(self.memory)) % ALIGNMENT
        """Where in ``memory`` the aligned bytes begin."""
        self.view = memoryview(self.memory)[self.start : self.start + size]


def runs(
    data: bytes | bytearray, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, int, bool]]:
    """Cut a part of a buffer into the longest (start, end, is_zero) runs of whole blocks.

    ``startswith`` at an offset compares in place: 20 µs for a MiB of data without zeros.
    """
    end = len(data) if end is None else end
    first, zero = start, False
    for offset in range(start, end, BLOCK):
        left = end - offset
        now = data.startswith(_ZEROS if left >= BLOCK else _ZEROS[:left], offset)
        if now is not zero:
            if offset > start:
                yield first, offset, zero
            first, zero = offset, now
    if end > start:
        yield first, end, zero


def data_runs(data: bytes | bytearray, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The (start, end) of what is to be written where zeros are already."""
    first = last = start
    for run_start, run_end, zero in runs(data, start, end):
        if zero:
            continue
        if last > first and run_start - last >= SHORTEST_HOLE:
            yield first, last
            first = run_start
        elif last == first:
            first = run_start
        last = run_end
    if last > first:
        yield first, last
