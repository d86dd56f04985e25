"""qcow2 images in a file, converted to the disk they hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..errors import CorruptImage
from .decompress import Decompress, decompressor
from .meter import Meter
from .pool import Pool
from .qcow2_header import Header
from .qcow2_tables import Extent, Kind, Tables
from .source import CHUNK, Seekable
from .writer import Target

_COPY: Final = 16 << 20
"""Bytes copied at once inside the kernel, which takes no memory of ours."""


@dataclass(frozen=True, slots=True)
class Image:
    """A qcow2 image all of whose tables have been found to be sound."""

    source: Seekable
    header: Header
    tables: Tables
    allocated: int
    """Bytes of the disk that are data."""


def read(source: Seekable, header: Header) -> Image:
    """Check every table. CorruptImage, Truncated, UnsupportedImage."""
    decompressor(header.compression)
    tables = Tables(source, header)
    allocated = sum(extent.length for extent in tables.extents() if extent.kind is not Kind.ZERO)
    return Image(source, header, tables, allocated)


def convert(
    source: Seekable,
    header: Header,
    extents: Iterable[Extent],
    target: Target,
    pool: Pool,
    meter: Meter,
) -> None:
    """Write parts of the disk. ``meter`` counts the bytes of the image file that were used."""
    conversion = _Conversion(source, Clusters(header, target), meter)
    batch: list[Extent] = []
    batched = 0
    for extent in extents:
        if extent.kind is Kind.ZERO:
            target.zero(extent.guest, extent.length)
        elif extent.kind is Kind.DATA:
            for start in range(0, extent.length, _COPY):
                pool.run(conversion.copy, extent, start, min(_COPY, extent.length - start))
        else:
            batch.append(extent)
            batched += header.cluster_size
            if batched >= CHUNK:
                pool.run(conversion.decompress, batch)
                batch, batched = [], 0
    pool.run(conversion.decompress, batch)
    pool.finish()
    source.check_size()


class Clusters:
    """Writes compressed clusters, from any thread."""

    def __init__(self, header: Header, target: Target) -> None:
        self.target = target
        self._size = header.cluster_size
        self._decompress: Decompress = decompressor(header.compression)

    def write(self, extent: Extent, stored: bytes) -> int:
        """Write a cluster, and return how many of the stored bytes are really its own."""
        data, used = self._decompress(stored, self._size)
        if len(data) != self._size:
            raise CorruptImage(
                f"the compressed cluster at byte {extent.host} of the image holds"
                f" {len(data)} bytes in place of {self._size}"
            )
        self.target.write(data[: extent.length], extent.guest)
        return used


class _Conversion:
    """What the threads do."""

    def __init__(self, source: Seekable, clusters: Clusters, meter: Meter) -> None:
        self._source = source
        self._clusters = clusters
        self._target = clusters.target
        self._meter = meter

    def copy(self, extent: Extent, start: int, length: int) -> None:
        host, guest = extent.host + start, extent.guest + start
        if not self._target.copy(self._source.fd, host, guest, length):
            for offset in range(0, length, CHUNK):
                data = self._source.read(host + offset, min(CHUNK, length - offset))
                self._target.write(data, guest + offset)
        self._meter.add(length)

    def decompress(self, batch: list[Extent]) -> None:
        for extent in batch:
            self._clusters.write(extent, self._source.read(extent.host, extent.stored))
            self._meter.add(extent.stored)
