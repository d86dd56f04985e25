"""Block maps: where in an image file each block of its disk lies."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from ..errors import CorruptImage, Truncated
from .source import Seekable

ABSENT: Final = -1
"""The place of a block that reads as zeros."""
_AT_ONCE: Final = 1 << 20
"""Bytes of a map that are read at once."""


def read(
    source: Seekable, offset: int, count: int, width: Literal[4, 8], order: Literal["little", "big"]
) -> Iterator[tuple[int, array[int]]]:
    """The ``count`` entries of a map as (index of the first, entries). Truncated."""
    step = _AT_ONCE // width
    for first in range(0, count, step):
        entries = array("I" if width == 4 else "Q")
        entries.frombytes(source.read(offset + first * width, min(step, count - first) * width))
        if order != sys.byteorder:
            entries.byteswap()
        yield first, entries


class Blocks:
    """The blocks of a disk, checked as their maps are read: each has to be inside the file.

    qemu-img looks at some formats' maps only, and what lies outside the file it reads as zeros.
    """

    def __init__(
        self, source: Seekable, size: int, block: int, *, lowest: int, stored: int = 0
    ) -> None:
        """``lowest``: the first byte of the file that may be a block's.

        ``stored``: how many bytes of the file a block takes at least, if not its ``block`` bytes.
        """
        self._source = source
        self._size = size
        self._block = block
        self._stored = stored or block
        self._lowest = lowest
        self._count = 0
        self._unit = max(self._stored & ~511, 512)
        self._taken = bytearray((source.size // self._unit >> 3) + 1)

    @property
    def allocated(self) -> int:
        """Bytes of the disk that are in the file, at most."""
        return min(self._count * self._block, self._size)

    def add(self, first: int, places: Sequence[int]) -> None:
        """Blocks from number ``first`` on, by their places in bytes. CorruptImage, Truncated."""
        absent = places.count(ABSENT)
        self._count += len(places) - absent
        if absent == len(places):
            return
        whole = max(places) + self._stored <= self._source.size
        if not whole or min(place for place in places if place != ABSENT) < self._lowest:
            self._check(first, places)
        self._take(places)

    def _check(self, first: int, places: Sequence[int]) -> None:
        """The last block of a disk may be cut where the disk ends, and more are of no interest."""
        for number, place in enumerate(places, first):
            needed = min(self._stored, self._size - number * self._block)
            if place != ABSENT and needed > 0:
                what = f"block {number} of the disk"
                check_inside(self._source, place, needed, what, self._lowest)

    def _take(self, places: Sequence[int]) -> None:
        """Two blocks that begin in the same unit of the file overlap."""
        taken, unit, size = self._taken, self._unit, self._source.size
        for place in places:
            if 0 <= place < size:
                number = place // unit
                bit = 1 << (number & 7)
                if taken[number >> 3] & bit:
                    raise CorruptImage(f"two blocks of the disk are at byte {place} of the image")
                taken[number >> 3] |= bit


def check_inside(source: Seekable, place: int, length: int, what: str, lowest: int = 0) -> None:
    """CorruptImage: it is not in the file. Truncated: it is not all of it."""
    if place < lowest:
        raise CorruptImage(f"{what} is at byte {place} of the image, where its header is")
    if place + length <= source.size:
        return
    if place < source.size:
        raise Truncated(f"the image ends at byte {source.size}, inside {what} at byte {place}")
    raise CorruptImage(
        f"{what} is at byte {place}, outside the image of {source.size} bytes;"
        " the file may have been cut short"
    )
