"""VDI, the disk image of VirtualBox: what it holds, and what speaks against reading it.

Source: the header as VirtualBox's VDICore.h and QEMU's block/vdi.c have it. Little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from ..errors import CorruptImage, UnsafeImage, UnsupportedImage
from . import maps
from .source import Seekable

_HEADER: Final = struct.Struct("<64x4s I I I I 256x I I 12x I 4x Q I I I I 32x 16s")
_SIGNATURE: Final = b"\x7f\x10\xda\xbe"
_VERSION_1_1: Final = 0x00010001
_DYNAMIC, _STATIC, _UNDO, _DIFFERENCING = 1, 2, 3, 4
_NOT_PRESENT: Final = 0xFFFFFFFE
"""This one is discarded, the next was never written; both read as zeros."""
_SECTOR: Final = 512


@dataclass(frozen=True, slots=True)
class _Header:
    map_offset: int
    data_offset: int
    size: int
    block: int
    blocks: int


def virtual_size(source: Seekable) -> int:
    """Errors: UnsafeImage, UnsupportedImage, CorruptImage, Truncated."""
    return _header(source).size


def allocated(source: Seekable) -> int:
    """Bytes of the disk that are in the file, at most. CorruptImage, Truncated."""
    header = _header(source)
    blocks = maps.Blocks(source, header.size, header.block, lowest=header.data_offset)
    for first, entries in maps.read(source, header.map_offset, header.blocks, 4, "little"):
        blocks.add(first, [_place(header, entry) for entry in entries])
    return blocks.allocated


def _place(header: _Header, entry: int) -> int:
    if entry >= _NOT_PRESENT:
        return maps.ABSENT
    return header.data_offset + entry * header.block


def _header(source: Seekable) -> _Header:
    (
        signature,
        version,
        _header_size,
        kind,
        _flags,
        map_offset,
        data_offset,
        sector,
        size,
        block,
        extra,
        blocks,
        _allocated,
        parent,
    ) = _HEADER.unpack(source.read(0, _HEADER.size))
    if signature != _SIGNATURE:
        raise CorruptImage("the image has no VDI signature")
    if version != _VERSION_1_1:
        raise UnsupportedImage(f"the image is VDI {version >> 16}.{version & 0xFFFF}; 1.1 is read")
    if kind in (_UNDO, _DIFFERENCING) or any(parent):
        raise UnsafeImage(
            "the VDI image is a difference to another image, which is not read: merge them with"
            " VBoxManage clonemedium"
        )
    if kind not in (_DYNAMIC, _STATIC):
        raise UnsupportedImage(f"the VDI image is of type {kind}; 1 and 2 are read")
    if sector != _SECTOR or extra or not block or block % _SECTOR:
        raise UnsupportedImage(
            f"the VDI image has sectors of {sector} and blocks of {block} and {extra} bytes"
        )
    size = -(-size // _SECTOR) * _SECTOR
    if not size or blocks < -(-size // block):
        raise CorruptImage(f"the VDI image has {blocks} blocks for a disk of {size} bytes")
    return _Header(map_offset, data_offset, size, block, blocks)
