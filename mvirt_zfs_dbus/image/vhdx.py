"""VHDX, the disk image of Hyper-V: what it holds, and what speaks against reading it.

Source: MS-VHDX, the Virtual Hard Disk v2 (VHDX) File Format. Little-endian. Checksums and the log
are left to qemu-img, which refuses a wrong checksum, and a log that is still to be replayed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ..errors import CorruptImage, UnsafeImage, UnsupportedImage
from . import maps
from .source import Seekable

_SIGNATURE: Final = b"vhdxfile"
_REGION_TABLE: Final = 192 * 1024
_REGION_HEADER: Final = struct.Struct("<4sIII")
_REGION: Final = struct.Struct("<16sQII")
_MOST_REGIONS: Final = 2047
_BAT: Final = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
_METADATA: Final = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_METADATA_HEADER: Final = struct.Struct("<8sHH20x")
_ITEM: Final = struct.Struct("<16sIII4x")
_FILE_PARAMETERS: Final = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_DISK_SIZE: Final = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_SECTOR_SIZE: Final = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le
_PARENT_LOCATOR: Final = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
_HAS_PARENT: Final = 1 << 1
_MIB: Final = 1 << 20
_PRESENT: Final = 6
"""PAYLOAD_BLOCK_FULLY_PRESENT; 7 is for differences only, and all others read as zeros."""


@dataclass(frozen=True, slots=True)
class _Disk:
    size: int
    block: int
    chunk_ratio: int
    """Blocks between two entries of the map that stand for bitmaps of sectors."""
    bat: tuple[int, int]
    """(offset, length) of the map."""


def virtual_size(source: Seekable) -> int:
    """Errors: UnsafeImage, UnsupportedImage, CorruptImage, Truncated."""
    return _disk(source).size


def allocated(source: Seekable) -> int:
    """Bytes of the disk that are in the file, at most. CorruptImage, Truncated."""
    disk = _disk(source)
    offset, length = disk.bat
    count = -(-disk.size // disk.block)
    entries_needed = count + (count - 1) // disk.chunk_ratio
    if entries_needed * 8 > length:
        raise CorruptImage(
            f"the VHDX image's map of {length} bytes is too short for {entries_needed} entries"
        )
    blocks = maps.Blocks(source, disk.size, disk.block, lowest=_MIB)
    for first, entries in maps.read(source, offset, entries_needed, 8, "little"):
        places = [_place(entry) for entry in entries]
        # Every chunk_ratio blocks there is an entry for a bitmap, which stands for no block.
        period = disk.chunk_ratio + 1
        del places[disk.chunk_ratio - first % period :: period]
        blocks.add(first - first // period, places)
    return blocks.allocated


def _place(entry: int) -> int:
    return (entry >> 20) * _MIB if entry & 7 == _PRESENT else maps.ABSENT


def _disk(source: Seekable) -> _Disk:
    if source.read(0, len(_SIGNATURE)) != _SIGNATURE:
        raise CorruptImage("the image has no VHDX signature")
    regions = _regions(source)
    if not regions.keys() >= {_BAT, _METADATA}:
        raise CorruptImage("the VHDX image has no map, or no metadata")
    items = _items(source, *regions[_METADATA])
    block, flags = struct.unpack("<II", items.get(_FILE_PARAMETERS, b"")[:8].ljust(8, b"\0"))
    if flags & _HAS_PARENT or _PARENT_LOCATOR in items:
        raise UnsafeImage(
            "the VHDX image is a difference to another image, which is not read: merge them first"
        )
    size = int.from_bytes(items.get(_DISK_SIZE, b"")[:8], "little")
    sector = int.from_bytes(items.get(_SECTOR_SIZE, b"")[:4], "little")
    if sector not in (512, 4096) or not _MIB <= block <= 256 * _MIB or block & (block - 1):
        raise UnsupportedImage(
            f"the VHDX image has sectors of {sector} and blocks of {block} bytes"
        )
    if not size or size % sector:
        raise CorruptImage(f"the VHDX image has a disk of {size} bytes")
    return _Disk(size, block, (sector << 23) // block, regions[_BAT])


def _regions(source: Seekable) -> dict[bytes, tuple[int, int]]:
    """(offset, length) of each; the second copy of the table is for repairs."""
    signature, _, count, _ = _REGION_HEADER.unpack(source.read(_REGION_TABLE, _REGION_HEADER.size))
    if signature != b"regi" or count > _MOST_REGIONS:
        raise CorruptImage("the VHDX image's region table is damaged")
    table = source.read(_REGION_TABLE + _REGION_HEADER.size, count * _REGION.size)
    return {region: (offset, length) for region, offset, length, _ in _REGION.iter_unpack(table)}


def _items(source: Seekable, offset: int, length: int) -> dict[bytes, bytes]:
    """The metadata, each item's first bytes."""
    signature, _, count = _METADATA_HEADER.unpack(source.read(offset, _METADATA_HEADER.size))
    if signature != b"metadata" or count > _MOST_REGIONS:
        raise CorruptImage("the VHDX image's metadata are damaged")
    table = source.read(offset + _METADATA_HEADER.size, count * _ITEM.size)
    items = {}
    for item, place, size, _ in _ITEM.iter_unpack(table):
        if place + size > length:
            raise CorruptImage("an item of the VHDX image's metadata lies outside of them")
        items[item] = source.read(offset + place, min(size, 16))
    return items
