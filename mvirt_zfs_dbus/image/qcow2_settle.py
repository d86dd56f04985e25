"""The end of a qcow2 image that arrived as a stream: it is checked, and what is missing written.

What was written as it came is not in the file that was kept. So an extent that is still to be
written is taken from there only if nothing that was written lies near it; where something does,
it is looked for what that was.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from ..errors import CorruptImage
from ..model import Phase
from . import qcow2
from .base import Progress
from .meter import Meter
from .pool import Pool
from .qcow2 import Clusters
from .qcow2_stream import Arrival
from .qcow2_tables import Extent, Kind, Tables
from .source import Seekable
from .writer import Target

_BATCH: Final = 1 << 12
"""Shared clusters looked for at once; each batch takes one look at all tables."""
_SECTOR: Final = 512


def settle(
    arrival: Arrival,
    kept: Seekable,
    target: Target,
    pool: Pool,
    report: Callable[[Progress], None],
) -> None:
    """Check all tables, and write all that is missing. CorruptImage, Truncated."""
    tables = Tables(kept, arrival.header)
    late = _Late(tables, arrival, zeros=not target.is_zero)
    if late.count:
        meter = Meter(Phase.CONVERTING, late.stored, report)
        _Settlement(kept, tables, late, arrival, target).run(pool, meter)
        meter.finish()


class _Late:
    """What has not been written. A few extents, as usual, are remembered, more looked up again."""

    def __init__(self, tables: Tables, arrival: Arrival, *, zeros: bool) -> None:
        self._tables = tables
        self._arrival = arrival
        self._zeros = zeros
        self._few: list[Extent] = []
        self.count = self.stored = 0
        for extent in self._all():
            self.count += 1
            self.stored += extent.stored
            if self.count <= _BATCH:
                self._few.append(extent)

    def __iter__(self) -> Iterator[Extent]:
        return iter(self._few) if self.count <= _BATCH else self._all()

    def _all(self) -> Iterator[Extent]:
        is_written = self._arrival.is_written
        for extent in self._tables.extents():
            if not is_written(extent) and (self._zeros or extent.kind is not Kind.ZERO):
                yield extent


class _Settlement:
    def __init__(
        self, kept: Seekable, tables: Tables, late: _Late, arrival: Arrival, target: Target
    ) -> None:
        self._kept = kept
        self._unwritten = late
        self._tables = tables
        self._arrival = arrival
        self._header = arrival.header
        self._target = target
        self._clusters = Clusters(arrival.header)

    def run(self, pool: Pool, meter: Meter) -> None:
        plain = (extent for extent in self._late() if self._is_kept(extent))
        qcow2.convert(self._kept, self._header, plain, self._target, pool, meter)
        shared = (_Shared(extent) for extent in self._late() if not self._is_kept(extent))
        while batch := list(islice(shared, _BATCH)):
            self._look_for(batch)
            for part in batch:
                self._write(part)
                meter.add(part.extent.stored)

    def _late(self) -> Iterator[Extent]:
        """What has not been written, plain extents in parts of a cluster where that is needed."""
        for extent in self._unwritten:
            if extent.kind is Kind.DATA and not self._is_kept(extent):
                yield from self._parts(extent)
            else:
                yield extent

    def _parts(self, extent: Extent) -> Iterator[Extent]:
        size = self._header.cluster_size
        done = 0
        while done < extent.length:
            host = extent.host + done
            length = min(size - host % size, extent.length - done)
            yield Extent(Kind.DATA, extent.guest + done, length, host, length)
            done += length

    def _is_kept(self, extent: Extent) -> bool:
        return extent.kind is Kind.ZERO or self._arrival.is_kept(extent.host, extent.stored)

    def _look_for(self, batch: list[_Shared]) -> None:
        """Find what was written of the bytes they need."""
        batch.sort(key=lambda part: part.extent.host)
        hosts = [part.extent.host for part in batch]
        longest = max(part.extent.stored for part in batch)
        for early in self._tables.extents():
            if self._arrival.is_written(early):
                first = bisect_left(hosts, early.host - longest)
                last = bisect_left(hosts, early.host + early.stored)
                for part in batch[first:last]:
                    part.meets(early)

    def _write(self, part: _Shared) -> None:
        extent = part.extent
        if extent.kind is Kind.DATA:
            data = bytearray(self._kept.read(extent.host, extent.stored))
            for (start, end), guest in part.copies.items():
                at = start - extent.host
                data[at : at + end - start] = self._target.read(guest, end - start)
            self._target.write(data, extent.guest)
        elif part.same is not None:
            self._target.write(self._target.read(part.same, extent.length), extent.guest)
        else:
            with self._target.gather() as gather:
                self._clusters.write(extent, self._kept.read(extent.host, part.alone), gather)


@dataclass(slots=True)
class _Shared:
    """An extent, some of whose bytes may have been written elsewhere without being kept."""

    extent: Extent
    copies: dict[tuple[int, int], int] = field(default_factory=dict)
    """Of a plain one: (start, end) in the file → where on the disk these bytes are."""
    same: int | None = None
    """Of a compressed one: where on the disk the same cluster is."""
    alone: int = 0
    """Of a compressed one: its bytes before another one begins."""

    def __post_init__(self) -> None:
        self.alone = self.extent.stored

    def meets(self, early: Extent) -> None:
        """Another extent has been written. CorruptImage: they overlap as none may."""
        own, own_end = self.extent.host, self.extent.host + self.extent.stored
        start, end = max(own, early.host), min(own_end, early.host + early.stored)
        if start >= end:
            return
        both_plain = early.kind is Kind.DATA and self.extent.kind is Kind.DATA
        both_packed = early.kind is Kind.COMPRESSED and self.extent.kind is Kind.COMPRESSED
        if both_plain:
            self.copies[start, end] = early.guest + start - early.host
        elif both_packed and early.host == own and early.stored <= self.extent.stored:
            self.same = early.guest
        elif self.extent.kind is Kind.COMPRESSED and own < early.host:
            self.alone = min(self.alone, early.host - own)
        elif not both_packed or own == early.host or own < _last_sector(early):
            raise CorruptImage(f"the clusters at bytes {early.host} and {own} of the image overlap")


def _last_sector(extent: Extent) -> int:
    """Where the last sector of a compressed cluster begins: the next cluster may begin there."""
    return (extent.host + extent.stored - 1) // _SECTOR * _SECTOR
