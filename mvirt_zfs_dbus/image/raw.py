"""Raw images: the disk's bytes as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from ..errors import CorruptImage
from .buffer import ALIGNMENT
from .digest import Digest
from .meter import Meter
from .pool import Pool
from .source import CHUNK, Seekable
from .writer import Target

Grow = Callable[[int, int], int]
"""(size wanted, size needed) → the size the target has now, at least the one needed."""

_LEAST_GROWTH: Final = 64 << 20
_MOST_GROWTH: Final = 1 << 30
"""A target of unknown size doubles, in steps within these bytes: each costs the pool a moment."""


def allocated(source: Seekable) -> int:
    """Bytes of the file that are no holes."""
    return sum(end - start for start, end in source.extents())


def is_sparse(source: Seekable) -> bool:
    """Whether whoever made the file left holes where the disk is zero."""
    return allocated(source) < source.size


def data(source: Seekable) -> Iterator[tuple[int, int]]:
    """Where on the disk data is, as (offset, length)."""
    return ((start, end - start) for start, end, is_hole in _layout(source) if not is_hole)


def convert_file(source: Seekable, target: Target, pool: Pool, meter: Meter) -> None:
    """Copy a file or block device; its holes are not even read."""
    for start, end, is_hole in _layout(source):
        if is_hole:
            target.zero(start, end - start)
        elif not target.clone(source.fd, start, start, end - start):
            for offset in range(start, end, CHUNK):
                pool.run(_copy, source, target, meter, offset, min(CHUNK, end - offset))
            continue
        meter.add(end - start)
    pool.finish()
    source.check_size()


def convert_file_hashed(
    source: Seekable, target: Target, pool: Pool, meter: Meter, digest: Digest
) -> None:
    """Copy a file in order, so that what is hashed is what is written."""
    offset = 0
    for chunk in digest.of(_chunks(source)):
        pool.run(target.write, chunk, offset)
        offset += len(chunk)
        meter.add(len(chunk))
    pool.finish()
    source.check_size()


def convert_stream(chunks: Iterable[bytes], target: Target, pool: Pool, grow: Grow) -> int:
    """Write what comes, and return its bytes. A target of too few bytes grows along."""
    end = 0
    for chunk in chunks:
        start, end = end, end + len(chunk)
        if end > target.size:
            step = min(max(target.size, _LEAST_GROWTH), _MOST_GROWTH)
            target.size = grow(max(end, target.size + step), end)
        pool.run(target.write, chunk, start)
    pool.finish()
    if not end:
        raise CorruptImage("the source is empty")
    return end


def _layout(source: Seekable) -> Iterator[tuple[int, int, bool]]:
    """The file as (start, end, is_hole), without gaps; all of them multiples of ALIGNMENT."""
    position = 0
    for data_start, data_end in source.extents():
        start = max(data_start - data_start % ALIGNMENT, position)
        end = min(-(-data_end // ALIGNMENT) * ALIGNMENT, source.size)
        if start > position:
            yield position, start, True
        if end > start:
            yield start, end, False
        position = end
    if position < source.size:
        yield position, source.size, True


def _chunks(source: Seekable) -> Iterator[bytes]:
    zeros = bytes(CHUNK)
    for start, end, is_hole in _layout(source):
        for offset in range(start, end, CHUNK):
            length = min(CHUNK, end - offset)
            yield zeros[:length] if is_hole else source.read(offset, length)


def _copy(source: Seekable, target: Target, meter: Meter, offset: int, length: int) -> None:
    with target.gather() as gather:
        source.read_into(offset, gather.room(offset, length))
    meter.add(length)
