"""Parts of an image file that are on their way, in the order in which they will come."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator
from typing import Final

from . import qcow2_tables
from .qcow2_header import Header
from .qcow2_tables import Extent, Kind, table_extents

MAX_EXTENTS: Final = 1 << 19
"""Extents known at a time, of 32 bytes each; one L2 table has at most half as many."""


def is_early(header: Header, extent: Extent, since: int) -> bool:
    """Whether an extent is written as it comes, its table being known since byte ``since``.

    The last cluster of a disk that ends inside it waits if it is compressed: were it referenced
    twice, the part that was cut off would be missing.
    """
    if extent.kind is Kind.ZERO or extent.host < since:
        return False
    return extent.kind is Kind.DATA or extent.length == header.cluster_size


class ClusterSet:
    """A set of host clusters, one bit each, that grows."""

    def __init__(self, cluster_bits: int) -> None:
        self._bits = cluster_bits
        self._map = bytearray()

    def add(self, offset: int, length: int) -> None:
        first, last = offset >> self._bits, (offset + length - 1) >> self._bits
        if last >> 3 >= len(self._map):
            qcow2_tables.check_clusters(last)
            self._map += bytes((last >> 3) + 1 - len(self._map) + (1 << 12))
        while first <= last:
            if first & 7 == 0 and last - first >= 7:
                count = (last - first + 1) >> 3
                self._map[first >> 3 : (first >> 3) + count] = b"\xff" * count
                first += count << 3
            else:
                self._map[first >> 3] |= 1 << (first & 7)
                first += 1

    def touches(self, offset: int, length: int) -> bool:
        """Whether any of the bytes lies in a cluster of the set."""
        first, last = offset >> self._bits, (offset + length - 1) >> self._bits
        return any(
            self._map[cluster >> 3] >> (cluster & 7) & 1
            for cluster in range(first, min(last + 1, len(self._map) << 3))
        )


class _Table:
    """The early extents of one L2 table, in the order of the file."""

    def __init__(self, header: Header, table: bytes, guest: int, since: int) -> None:
        self._columns = tuple(array("Q") for _ in range(4))
        kinds, hosts, guests, lengths = self._columns
        for extent in table_extents(header, qcow2_tables.Unchecked(), table, guest):
            if is_early(header, extent, since):
                kinds.append(extent.kind << 32 | extent.stored & 0xFFFFFFFF)
                hosts.append(extent.host)
                guests.append(extent.guest)
                lengths.append(extent.length)
        self.count = len(hosts)
        self._order = array("L", sorted(range(self.count), key=hosts.__getitem__))

    def parts(self) -> Iterator[tuple[int, int]]:
        """The (offset, length) of each on the disk, in its order."""
        _, _, guests, lengths = self._columns
        return zip(guests, lengths, strict=True)

    def extents(self) -> Iterator[Extent]:
        kinds, hosts, guests, lengths = self._columns
        for n in self._order:
            kind, length = Kind(kinds[n] >> 32), lengths[n]
            stored = length if kind is Kind.DATA else kinds[n] & 0xFFFFFFFF
            yield Extent(kind, guests[n], length, hosts[n], stored)


class Wanted:
    """The early extents of all tables that are known."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._heap: list[tuple[int, int, Extent, Iterator[Extent]]] = []
        self._tables = 0
        self._count = 0

    @property
    def has_room(self) -> bool:
        """Whether any table at all can be added."""
        return self._count <= MAX_EXTENTS // 2

    def add(self, table: bytes, guest: int, since: int) -> Iterator[tuple[int, int]]:
        """Those of an L2 table for the disk from byte ``guest`` on; CorruptImage.

        The answer is where on the disk they are, as (offset, length).
        """
        found = _Table(self._header, table, guest, since)
        self._count += found.count
        self._push(found.extents())
        return found.parts()

    def next_host(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def pop(self, before: int) -> Extent | None:
        """The first one that begins before a place in the file."""
        if not self._heap or self._heap[0][0] >= before:
            return None
        _, number, extent, others = self._heap[0]
        following = next(others, None)
        if following:
            heapq.heapreplace(self._heap, (following.host, number, following, others))
        else:
            heapq.heappop(self._heap)
        self._count -= 1
        return extent

    def push_back(self, extent: Extent) -> None:
        """What is left of one whose beginning has come."""
        self._count += 1
        self._push(iter((extent,)))

    def _push(self, extents: Iterator[Extent]) -> None:
        first = next(extents, None)
        if first:
            self._tables += 1
            heapq.heappush(self._heap, (first.host, self._tables, first, extents))
