"""The room a disk takes in its file system: found beforehand, and given back (fallocate(2))."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Final

from .buffer import SHORTEST_HOLE

_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02 | _KEEP_SIZE
"""FALLOC_FL_PUNCH_HOLE needs FALLOC_FL_KEEP_SIZE."""
_MOST_UNUSED: Final = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]


class Room:
    """That of one regular file or block device. Block devices have all theirs already."""

    def __init__(self, fd: int, *, is_file: bool) -> None:
        self._fd = fd
        self._can_reserve = is_file
        self._can_punch = True
        self._is_reserved = False
        self._unused: list[tuple[int, int]] = []

    def reserve_all(self, parts: Iterable[tuple[int, int]]) -> None:
        """Find the room for (offset, length) parts. From then on :meth:`reserve` does nothing."""
        for offset, length in _merged(parts):
            if not self._can_reserve:
                return
            self._can_reserve = self._fallocate(_KEEP_SIZE, offset, length)
            self._is_reserved = True

    def reserve(self, offset: int, length: int) -> None:
        """Find it for one part."""
        if self._can_reserve and not self._is_reserved and length:
            self._can_reserve = self._fallocate(_KEEP_SIZE, offset, length)

    def leave(self, offset: int, length: int) -> None:
        """Note that nothing but zeros is there, in a disk that is zero: it needs no room."""
        if self._is_reserved and length >= SHORTEST_HOLE:
            self._unused.append((offset, length))
            if len(self._unused) > _MOST_UNUSED:
                self.give_back()

    def give_back(self) -> None:
        """What was reserved for zeros."""
        unused, self._unused = self._unused, []
        for offset, length in _merged(sorted(unused)):
            self.punch(offset, length)

    def punch(self, offset: int, length: int) -> bool:
        """Make it read as zeros and take no room. False: that cannot be done."""
        self._can_punch = self._can_punch and self._fallocate(_PUNCH_HOLE, offset, length)
        return self._can_punch

    def _fallocate(self, mode: int, offset: int, length: int) -> bool:
        return bool(_libc.fallocate(self._fd, mode, offset, length) == 0)


def _merged(parts: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    start = end = 0
    for offset, length in parts:
        if offset != end:
            if end > start:
                yield start, end - start
            start = offset
        end = offset + length
    if end > start:
        yield start, end - start
