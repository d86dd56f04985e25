"""qcow2 images in a file, converted to the disk they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import CorruptImage
from .decompress import Decompress, decompressor
from .meter import Meter
from .pool import Pool
from .qcow2_header import Header
from .qcow2_tables import Extent, Kind, Tables
from .source import CHUNK, Seekable
from .writer import Gather, Target

_MOST_EXTENTS: Final = 256
"""Of a batch, however small they are."""
_READ_AT_ONCE: Final = 2 * CHUNK


@dataclass(frozen=True, slots=True)
class Image:
    """A qcow2 image all of whose tables have been found to be sound."""

    source: Seekable
    header: Header
    tables: Tables
    allocated: int
    """Bytes of the disk that are data."""

    def data(self) -> Iterator[tuple[int, int]]:
        """Where on the disk data is, as (offset, length)."""
        for extent in self.tables.extents():
            if extent.kind is not Kind.ZERO:
                yield extent.guest, extent.length


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
    conversion = _Conversion(source, header, target, meter)
    batch: list[Extent] = []
    batched = 0
    for extent in conversion.stored(extents):
        batch.append(extent)
        batched += extent.length
        if batched >= CHUNK or len(batch) >= _MOST_EXTENTS:
            pool.run(conversion.write, batch)
            batch, batched = [], 0
    if batch:
        pool.run(conversion.write, batch)
    pool.finish()
    source.check_size()


class Clusters:
    """Writes compressed clusters, from any thread."""

    def __init__(self, header: Header) -> None:
        self._size = header.cluster_size
        self._decompress: Decompress = decompressor(header.compression)

    def write(self, extent: Extent, stored: bytes | memoryview, gather: Gather) -> int:
        """Write a cluster, and return how many of the stored bytes are really its own."""
        data, used = self._decompress(stored, self._size)
        if len(data) != self._size:
            raise CorruptImage(
                f"the compressed cluster at byte {extent.host} of the image holds"
                f" {len(data)} bytes in place of {self._size}"
            )
        gather.add(data[: extent.length], extent.guest)
        return used


class _Conversion:
    """What becomes of the extents of one image, and what the threads do with them."""

    def __init__(self, source: Seekable, header: Header, target: Target, meter: Meter) -> None:
        self._source = source
        self._clusters = Clusters(header)
        self._target = target
        self._meter = meter

    def stored(self, extents: Iterable[Extent]) -> Iterator[Extent]:
        """Those that are to be written, in pieces of a chunk; the others are dealt with."""
        for extent in extents:
            if extent.kind is Kind.ZERO:
                self._target.zero(extent.guest, extent.length)
            elif extent.kind is Kind.COMPRESSED:
                yield extent
            elif self._target.clone(self._source.fd, extent.host, extent.guest, extent.length):
                self._meter.add(extent.length)
            else:
                yield from _pieces(extent)

    def write(self, batch: Sequence[Extent]) -> None:
        packed = self._packed_bytes(batch)
        with self._target.gather() as gather:
            for extent in batch:
                if extent.kind is Kind.COMPRESSED:
                    self._clusters.write(extent, packed(extent), gather)
                else:
                    self._copy(extent, gather)
        self._meter.add(sum(extent.stored for extent in batch))

    def _copy(self, extent: Extent, gather: Gather) -> None:
        done = 0
        while done < extent.length:
            room = gather.room(extent.guest + done, extent.length - done)
            self._source.read_into(extent.host + done, room)
            done += len(room)

    def _packed_bytes(self, batch: Sequence[Extent]) -> Callable[[Extent], bytes | memoryview]:
        """How to get at a compressed extent's bytes: they mostly lie side by side in the file."""
        packed = [extent for extent in batch if extent.kind is Kind.COMPRESSED]
        start = min((extent.host for extent in packed), default=0)
        end = max((extent.host + extent.stored for extent in packed), default=0)
        if end - start > _READ_AT_ONCE:
            return lambda extent: self._source.read(extent.host, extent.stored)
        view = memoryview(self._source.read(start, end - start))
        return lambda extent: view[extent.host - start : extent.host - start + extent.stored]


def _pieces(extent: Extent) -> Iterator[Extent]:
    if extent.length <= CHUNK:
        yield extent
        return
    for start in range(0, extent.length, CHUNK):
        length = min(CHUNK, extent.length - start)
        yield Extent(Kind.DATA, extent.guest + start, length, extent.host + start, length)
