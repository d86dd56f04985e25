"""VHD, the disk image of Virtual PC and Hyper-V, which QEMU calls vpc.

A dynamic one begins with a copy of its footer; a fixed one is the disk's own bytes, told from a raw
disk by the footer in its last sector alone. Source: Microsoft's Virtual Hard Disk Image Format
Specification. Big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ..errors import CorruptImage, Truncated, UnsafeImage, UnsupportedImage
from . import maps
from .source import Seekable

COOKIE: Final = b"conectix"
FOOTER: Final = 512
"""Bytes at the end of every VHD."""
_FOOTER: Final = struct.Struct(">8sIIQI4sI4sQQIII")
_DYNAMIC_HEADER: Final = struct.Struct(">8sQQIIII16s")
_DYNAMIC_HEADER_SIZE: Final = 1024
_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4
_SECTOR: Final = 512
_ABSENT: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Footer:
    kind: int
    size: int
    """Bytes of the disk: *Current Size*. Virtual PC itself shows a guest what its geometry has,
    which is a little less; nothing is lost where the larger one is taken."""
    header_offset: int


def virtual_size(source: Seekable) -> int:
    """Of a dynamic one. UnsafeImage, UnsupportedImage, CorruptImage, Truncated."""
    footer = _footer(source.read(0, FOOTER))
    if footer.kind != _DYNAMIC:
        raise CorruptImage(f"a VHD that begins with its footer is dynamic (3), not {footer.kind}")
    return footer.size


def allocated(source: Seekable) -> int:
    """Bytes of a dynamic one's disk that are in the file, at most. CorruptImage, Truncated."""
    footer = _footer(source.read(0, FOOTER))
    if source.read(source.size - FOOTER, len(COOKIE)) != COOKIE:
        raise Truncated(f"the VHD does not end with its footer: it is cut at byte {source.size}")
    header = source.read(footer.header_offset, _DYNAMIC_HEADER_SIZE)
    cookie, _, table, _version, count, block, _, _ = _DYNAMIC_HEADER.unpack_from(header)
    if cookie != b"cxsparse" or not _sums_up(header, 36):
        raise CorruptImage("the header of the dynamic VHD is damaged")
    if not block or block % _SECTOR or count < -(-footer.size // block):
        raise CorruptImage(
            f"the VHD has {count} blocks of {block} bytes for a disk of {footer.size} bytes"
        )
    bitmap = -(-(block // _SECTOR) // 8 // _SECTOR) * _SECTOR
    blocks = maps.Blocks(source, footer.size, block, lowest=FOOTER)
    for first, entries in maps.read(source, table, count, 4, "big"):
        blocks.add(first, [_place(entry, bitmap) for entry in entries])
    return blocks.allocated


def _place(entry: int, bitmap: int) -> int:
    """Where a block's data begin: a bitmap of its sectors stands before them."""
    return maps.ABSENT if entry == _ABSENT else entry * _SECTOR + bitmap


def fixed_size(footer: bytes, length: int) -> int:
    """Bytes of the disk in a fixed VHD of ``length`` bytes in all; errors as above."""
    found = _footer(footer)
    if found.kind != _FIXED:
        raise CorruptImage(
            "the source ends with the footer of a dynamic VHD and does not begin with it"
        )
    if found.size > length - FOOTER:
        raise Truncated(f"the VHD of a disk of {found.size} bytes ends after {length} bytes")
    if found.size < length - FOOTER:
        raise CorruptImage(
            f"the VHD of a disk of {found.size} bytes has {length - FOOTER - found.size} more"
        )
    return found.size


def disk_of_stream(chunks: Iterable[bytes], *, required: bool) -> Iterator[bytes]:
    """A raw stream without the footer that makes a fixed VHD of it, if it ends with one.

    The last chunk is held back until it is known to be the last. CorruptImage: a footer is
    ``required`` and does not come, or contradicts what came before it.
    """
    length, held = 0, b""
    for chunk in chunks:
        length += len(chunk)
        if len(held) < FOOTER:
            held += chunk
            continue
        if len(chunk) < FOOTER:
            held += chunk
            continue
        yield held
        held = chunk
    if held[-FOOTER:].startswith(COOKIE) and length > FOOTER:
        fixed_size(held[-FOOTER:], length)
        held = held[:-FOOTER]
    elif required:
        raise CorruptImage("the source is no VHD: it neither begins nor ends with conectix")
    if held:
        yield held


def _footer(data: bytes) -> _Footer:
    cookie, _, version, header, _, _, _, _, _, size, _, kind, _ = _FOOTER.unpack_from(data)
    if cookie != COOKIE or not _sums_up(data, 64):
        raise CorruptImage("the VHD's footer is damaged: its checksum is wrong")
    if kind == _DIFFERENCING:
        raise UnsafeImage(
            "the VHD is a difference to another image, which is not read: merge them first"
        )
    if version >> 16 != 1 or kind not in (_FIXED, _DYNAMIC):
        raise UnsupportedImage(f"the VHD is of version {version:#x} and type {kind}")
    if not size or size % _SECTOR:
        raise CorruptImage(f"the VHD has a disk of {size} bytes, which are no whole sectors")
    return _Footer(kind, size, header)


def _sums_up(data: bytes, place: int) -> bool:
    """Whether the checksum at ``place`` is the complement of the sum of all other bytes."""
    checksum = int.from_bytes(data[place : place + 4], "big")
    return checksum == ~(sum(data) - sum(data[place : place + 4])) & 0xFFFFFFFF
