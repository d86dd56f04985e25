"""VMDK, the disk image of VMware: what it holds, and what speaks against reading it.

Read is a disk in one file, which then is a sparse extent with its descriptor inside:
monolithicSparse or streamOptimized. A descriptor by itself names the files that have the data, and
an extent without one is a part of a disk. Source: VMware's Virtual Disk Format 5.0, Technical Note.
Little-endian.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from typing import Final

from ..errors import CorruptImage, Truncated, UnsafeImage, UnsupportedImage
from . import maps
from .source import Seekable

DESCRIPTOR_MAGIC: Final = b"# Disk DescriptorFile"
EXTENT_MAGIC: Final = b"KDMV"
ESX_MAGIC: Final = b"COWD"
_HEADER: Final = struct.Struct("<4sIIQQQQIQQQB4sH")
_ZEROED_GRAINS, _COMPRESSED = 1 << 2, 1 << 16
_GD_AT_END: Final = 2**64 - 1
_SECTOR: Final = 512
_DESCRIPTOR: Final = 20
"""Sectors from the second on; every writer leaves as many, and QEMU reads as many."""
_MOST_DESCRIPTOR: Final = 256
_MOST_GRAIN_BYTES: Final = 64 << 20
_MOST_TABLE_ENTRIES: Final = 512
_MOST_DIRECTORY_BYTES: Final = 512 << 20
"""QEMU's own limits, block/vmdk.c."""
_COMPRESSED_HEADER: Final = 12
"""Before a compressed grain: its first sector (u64) and its length (u32)."""

_WHOLE: Final = ("monolithicSparse", "streamOptimized")
_PARENT: Final = re.compile(r"parentCID\s*=\s*([0-9a-f]+)", re.IGNORECASE)
_TYPE: Final = re.compile(r'^\s*createType\s*=\s*"?([^"\n]*)"?', re.IGNORECASE | re.MULTILINE)
_EXTENT: Final = re.compile(
    r'^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\S+)(?:\s+"([^"\n]*)")?', re.IGNORECASE | re.MULTILINE
)
_NO_PARENT: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Extent:
    flags: int
    size: int
    grain: int
    """Both in bytes."""
    table_entries: int
    directory: int
    """Byte of the grain directory; what stands for it at the end, if it is there."""
    unclean: bool


def virtual_size(source: Seekable) -> int:
    """Errors: UnsafeImage, UnsupportedImage, CorruptImage, Truncated."""
    return _extent(source).size


def allocated(source: Seekable) -> int:
    """Bytes of the disk that are in the file, at most. CorruptImage, Truncated."""
    extent = _extent(source)
    if extent.directory == _GD_AT_END * _SECTOR:
        extent = _at_end(source, extent)
    span = extent.grain * extent.table_entries
    tables = -(-extent.size // span)
    blocks = maps.Blocks(
        source,
        extent.size,
        extent.grain,
        lowest=_SECTOR,
        stored=_COMPRESSED_HEADER if extent.flags & _COMPRESSED else extent.grain,
    )
    for first, directory in maps.read(source, extent.directory, tables, 4, "little"):
        for number, table in enumerate(directory, first):
            if table:
                _add_table(source, extent, table * _SECTOR, number, blocks)
    return blocks.allocated


def _add_table(
    source: Seekable, extent: _Extent, place: int, number: int, blocks: maps.Blocks
) -> None:
    maps.check_inside(source, place, extent.table_entries * 4, f"grain table {number}")
    first_grain = number * extent.table_entries
    absent = (0, 1) if extent.flags & _ZEROED_GRAINS else (0,)
    for first, grains in maps.read(source, place, extent.table_entries, 4, "little"):
        places = [maps.ABSENT if grain in absent else grain * _SECTOR for grain in grains]
        blocks.add(first_grain + first, places)


def _extent(source: Seekable) -> _Extent:
    """The extent as its header has it, its descriptor being nothing to refuse."""
    head = source.read_up_to(0, _SECTOR)
    if head.startswith(DESCRIPTOR_MAGIC):
        raise UnsafeImage(
            "the VMDK is a descriptor, which names the files its data are in: convert all of it to"
            " one file, with qemu-img convert -O qcow2 or ovftool"
        )
    if head.startswith(ESX_MAGIC):
        raise UnsupportedImage(
            "the VMDK is an ESX sparse extent, a part of a disk: convert all of it to one file"
        )
    extent, descriptor, sectors = _parse(source, 0)
    if not descriptor:
        raise UnsupportedImage(
            "the VMDK has no descriptor: it is one of the files of a disk in several; convert all"
            " of it to one file"
        )
    if descriptor != 1 or sectors > _MOST_DESCRIPTOR:
        raise UnsupportedImage(
            f"the VMDK's descriptor has {sectors} sectors from sector {descriptor} on; it begins"
            f" in sector 1 and has at most {_MOST_DESCRIPTOR}"
        )
    source.read(_SECTOR, sectors * _SECTOR)
    text = source.read_up_to(_SECTOR, max(sectors, _DESCRIPTOR) * _SECTOR).partition(b"\0")[0]
    _check_descriptor(text.decode("latin-1"))
    if extent.unclean:
        raise CorruptImage(
            "the VMDK was not closed: the machine it belongs to runs, or ended with a crash"
        )
    return extent


def _check_descriptor(text: str) -> None:
    """UnsafeImage: the disk is more than this file. UnsupportedImage: it is encrypted."""
    parents = [int(parent, 16) for parent in _PARENT.findall(text)]
    if "parentfilenamehint" in text.lower() or any(parent != _NO_PARENT for parent in parents):
        raise UnsafeImage(
            "the VMDK is a difference to another image, which is not read: merge them first"
        )
    if "encryption." in text.lower():
        raise UnsupportedImage("the VMDK is encrypted")
    types = _TYPE.findall(text)
    extents = _EXTENT.findall(text)
    named = [name for _, name in extents if "/" in name or "\\" in name]
    if len(types) != 1 or types[0] not in _WHOLE or len(extents) != 1 or named:
        raise UnsafeImage(
            f"the VMDK is of the type {' '.join(types) or 'none'} and names"
            f" {', '.join(name or kind for kind, name in extents) or 'no file'} for its data;"
            f" only {' and '.join(_WHOLE)} have all of it inside"
        )
    if extents[0][0].upper() != "SPARSE":
        raise UnsafeImage(f"the VMDK names an extent of the kind {extents[0][0]} for its data")


def _at_end(source: Seekable, extent: _Extent) -> _Extent:
    """The extent as the copy of its header in the last sector but one has it."""
    try:
        found, _, _ = _parse(source, source.size - 2 * _SECTOR)
    except CorruptImage as error:
        raise Truncated(f"the VMDK does not end with its footer: {error}") from error
    if found.directory == _GD_AT_END * _SECTOR or replace(
        found, directory=extent.directory
    ) != replace(extent, unclean=found.unclean):
        raise CorruptImage("the VMDK's footer contradicts its header")
    return found


def _parse(source: Seekable, offset: int) -> tuple[_Extent, int, int]:
    """The extent, and where its descriptor is and how long, in sectors."""
    (
        magic,
        version,
        flags,
        capacity,
        grain,
        descriptor,
        descriptor_sectors,
        entries,
        _redundant,
        directory,
        _overhead,
        unclean,
        _line_ends,
        _compression,
    ) = _HEADER.unpack(source.read(max(offset, 0), _HEADER.size))
    if magic != EXTENT_MAGIC:
        raise CorruptImage("the image has no VMDK header")
    if version not in (1, 2, 3):
        raise UnsupportedImage(f"the VMDK is of version {version}; 1 to 3 are read")
    if not capacity or not 1 <= grain <= _MOST_GRAIN_BYTES // _SECTOR or grain & (grain - 1):
        raise CorruptImage(f"the VMDK has grains of {grain} sectors for a disk of {capacity}")
    if not 1 <= entries <= _MOST_TABLE_ENTRIES:
        raise CorruptImage(f"the VMDK's grain tables have {entries} entries")
    if -(-capacity // (grain * entries)) * 4 > _MOST_DIRECTORY_BYTES:
        raise CorruptImage(f"the VMDK's disk of {capacity} sectors is more than one can have")
    found = _Extent(
        flags, capacity * _SECTOR, grain * _SECTOR, entries, directory * _SECTOR, bool(unclean)
    )
    return found, descriptor, descriptor_sectors
