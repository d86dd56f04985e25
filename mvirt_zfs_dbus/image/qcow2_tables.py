"""The L1 and L2 tables of a qcow2 image, read as extents of the disk.

Every entry is checked where it is read: reserved bits, alignment, the file's end, and that no data
lies where the image keeps its metadata. Format: QEMU's docs/interop/qcow2.txt, «Cluster mapping».
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple, NoReturn

from ..errors import CorruptImage, Truncated, UnsupportedImage
from .qcow2_header import Header
from .source import Seekable

_OFFSET: Final = ((1 << 56) - 1) & ~0x1FF
"""Bits 9 to 55 of an L1 or L2 entry."""
_COPIED: Final = 1 << 63
_COMPRESSED: Final = 1 << 62
_ZERO: Final = 1
_ALL_SUBCLUSTERS: Final = (1 << 32) - 1
_SUBCLUSTERS: Final = 32
_USED: Final = re.compile(rb"[^\0]")
MAX_CLUSTERS: Final = 1 << 29
"""Host clusters of an image, so that a bit for each takes at most 64 MiB: 32 TiB of 64 KiB."""


class Kind(IntEnum):
    ZERO = 0
    DATA = 1
    COMPRESSED = 2


class Extent(NamedTuple):
    """A part of the disk that is stored in one way and, if it is stored, in one piece."""

    kind: Kind
    guest: int
    """Where it is in the disk, in bytes."""
    length: int
    """Bytes of the disk, never beyond its end."""
    host: int
    """Where it is in the file; 0 for zeros."""
    stored: int
    """Bytes it takes there: what a compressed cluster reserves, up to the file's end."""


def check_clusters(count: int) -> None:
    if count > MAX_CLUSTERS:
        raise UnsupportedImage(
            f"an image file of {count} clusters is too large; {MAX_CLUSTERS} are possible"
        )


class HostMap:
    """Which clusters of the file hold metadata: one bit each."""

    def __init__(self, cluster_bits: int, file_size: int) -> None:
        self._bits = cluster_bits
        self._file_size = file_size
        clusters = -(-file_size >> cluster_bits) + 1
        check_clusters(clusters)
        self._map = bytearray(-(-clusters // 8))

    def claim(self, offset: int, length: int, what: str) -> None:
        """Note that metadata lies there. Errors: it is outside the file, or not alone there."""
        self.check_inside(offset, length, what)
        for cluster in range(offset >> self._bits, -(-(offset + length) >> self._bits)):
            if self._map[cluster >> 3] >> (cluster & 7) & 1:
                raise CorruptImage(f"{what} at byte {offset} of the image overlaps other metadata")
            self._map[cluster >> 3] |= 1 << (cluster & 7)

    def check_data(self, offset: int, length: int, what: str) -> None:
        """Errors: the data is outside the file, or lies over metadata."""
        self.check_inside(offset, length, what)
        first, end = offset >> self._bits, -(-(offset + length) >> self._bits)
        if not any(self._map[first >> 3 : (end + 7) >> 3]):
            return
        for cluster in range(first, end):
            if self._map[cluster >> 3] >> (cluster & 7) & 1:
                raise CorruptImage(f"{what} at byte {offset} of the image lies over metadata")

    def up_to_end(self, offset: int, length: int) -> int:
        """The length without what lies beyond the file's end: its last sector may be cut."""
        return min(length, self._file_size - offset)

    def check_inside(self, offset: int, length: int, what: str) -> None:
        if offset + length <= self._file_size:
            return
        if offset < self._file_size:
            raise Truncated(
                f"the image ends at byte {self._file_size}, inside {what} at byte {offset}"
            )
        raise CorruptImage(
            f"{what} is at byte {offset}, outside the image of {self._file_size} bytes;"
            " the file may have been cut short"
        )


class Unchecked:
    """Stands for the map of a file of which only a part is known."""

    def check_data(self, offset: int, length: int, what: str) -> None:
        pass

    def up_to_end(self, _offset: int, length: int) -> int:
        return length


def words(data: bytes) -> array[int]:
    """Big-endian 64-bit numbers."""
    numbers = array("Q", data)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def l2_offset(header: Header, index: int, entry: int) -> int:
    """Where an L1 entry says that its L2 table is; 0 for nowhere."""
    offset = entry & _OFFSET
    if entry & ~(_OFFSET | _COPIED) or offset % header.cluster_size:
        raise CorruptImage(f"L1 entry {index} is {entry:#x}, which is no L2 table's place")
    return offset


class Tables:
    """The tables of one image in a file. L2 tables are read when they are needed, never kept."""

    def __init__(self, source: Seekable, header: Header) -> None:
        self._source = source
        self._header = header
        self._map = HostMap(header.cluster_bits, source.size)
        self._map.claim(0, 1, "the header")
        self._map.claim(header.l1_offset, header.l1_entries * 8, "the L1 table")
        if header.refcount_clusters:
            length = header.refcount_clusters << header.cluster_bits
            self._map.claim(header.refcount_offset, length, "the refcount table")
        self._l1 = words(source.read(header.l1_offset, header.l1_entries * 8))
        for index, entry in enumerate(self._l1):
            if entry:
                self._l1[index] = offset = l2_offset(header, index, entry)
                if offset:
                    self._map.claim(offset, header.cluster_size, f"L2 table {index}")

    def extents(self) -> Iterator[Extent]:
        """The whole disk in order of its bytes, adjacent parts of one kind in one piece a table."""
        header = self._header
        for index, offset in enumerate(self._l1):
            guest = index * header.table_span
            if offset:
                table = self._source.read(offset, header.cluster_size)
                yield from table_extents(header, self._map, table, guest)
            else:
                yield Extent(Kind.ZERO, guest, min(header.table_span, header.size - guest), 0, 0)


def table_extents(
    header: Header, host_map: HostMap | Unchecked, table: bytes, guest: int
) -> Iterator[Extent]:
    """What one L2 table says of the disk from byte ``guest`` on, merged."""
    parts = (_extended if header.extended_l2 else _standard)(header, host_map, table, guest)
    run = Extent(Kind.ZERO, guest, 0, 0, 0)
    for part in parts:
        kind, _, length, host, stored = part
        if (
            kind is not Kind.COMPRESSED
            and kind is run.kind
            and (kind is Kind.ZERO or host == run.host + run.length)
        ):
            run = Extent(kind, run.guest, run.length + length, run.host, run.stored + stored)
            continue
        if run.length:
            yield run
        run = Extent._make(part)
    if run.length:
        yield run


_Part = tuple[Kind, int, int, int, int]
"""As :class:`Extent`, without the cost of one for each cluster."""


def _standard(
    header: Header, host_map: HostMap | Unchecked, table: bytes, guest: int
) -> Iterator[_Part]:
    """Runs of empty entries, and of entries with adjacent clusters, are not looked at one by one:
    what a disk of 2 TiB costs is how many pieces it is in."""
    size, left = header.cluster_size, header.size - guest
    allowed = _OFFSET & ~(size - 1) | _COPIED | (_ZERO if header.version == 3 else 0)
    entries = words(table)
    count = min(len(entries), -(-left // size))
    index = 0
    while index < count:
        entry = entries[index]
        following = index + 1
        start = guest + index * size
        if not entry:
            found = _USED.search(table, following * 8, count * 8)
            following = found.start() // 8 if found else count
            yield Kind.ZERO, start, min(following * size, left) - index * size, 0, 0
        elif entry & _COMPRESSED:
            yield _compressed(header, host_map, entry, start, min(size, left - index * size))
        elif entry & ~allowed or not entry & (_ZERO | _OFFSET):
            _refuse(entry, start)
        elif entry & _ZERO:
            yield Kind.ZERO, start, min(size, left - index * size), 0, 0
        else:
            while following < count and entries[following] == entry + (following - index) * size:
                following += 1
            host, length = entry & _OFFSET, min(following * size, left) - index * size
            host_map.check_data(host, length, "a data cluster")
            yield Kind.DATA, start, length, host, length
        index = following


def _extended(
    header: Header, host_map: HostMap | Unchecked, table: bytes, guest: int
) -> Iterator[_Part]:
    size = header.cluster_size
    allowed = _OFFSET & ~(size - 1) | _COPIED
    numbers = words(table)
    for index in range(0, len(numbers), 2):
        entry, bitmap = numbers[index], numbers[index + 1]
        length = min(size, header.size - guest)
        if length <= 0:
            return
        if entry & _COMPRESSED:
            yield _compressed(header, host_map, entry, guest, length)
        else:
            data, zeros = bitmap & _ALL_SUBCLUSTERS, bitmap >> _SUBCLUSTERS
            if entry & ~allowed or data & zeros or (data and not entry & _OFFSET):
                _refuse(entry, guest)
            yield from _subclusters(host_map, data, entry & _OFFSET, guest, length, size)
        guest += size


def _subclusters(
    host_map: HostMap | Unchecked, data: int, host: int, guest: int, length: int, cluster_size: int
) -> Iterator[_Part]:
    """One cluster, subcluster by subcluster: each is data, or reads as zeros."""
    if not data:
        yield Kind.ZERO, guest, length, 0, 0
        return
    size = cluster_size if data == _ALL_SUBCLUSTERS else cluster_size // _SUBCLUSTERS
    for start in range(0, length, size):
        part = min(size, length - start)
        if data >> (start // size) & 1:
            host_map.check_data(host + start, part, "a data cluster")
            yield Kind.DATA, guest + start, part, host + start, part
        else:
            yield Kind.ZERO, guest + start, part, 0, 0


def _compressed(
    header: Header, host_map: HostMap | Unchecked, entry: int, guest: int, length: int
) -> _Part:
    """The descriptor's high bits count the 512-byte sectors after the first one."""
    count_bits = header.cluster_bits - 8
    offset_bits = 62 - count_bits
    host = entry & ((1 << offset_bits) - 1)
    if entry & _COPIED or host >> 56:
        _refuse(entry, guest)
    sectors = (entry >> offset_bits & ((1 << count_bits) - 1)) + 1
    stored = host_map.up_to_end(host, sectors * 512 - host % 512)
    # One that begins outside the file has none of its bytes, and is refused for its first.
    host_map.check_data(host, max(stored, 1), "a compressed cluster")
    return Kind.COMPRESSED, guest, length, host, stored


def _refuse(entry: int, guest: int) -> NoReturn:
    raise CorruptImage(f"the L2 entry for byte {guest} of the disk is {entry:#x}, which is invalid")
