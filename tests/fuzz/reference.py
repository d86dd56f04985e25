"""The same answers as the product's, found in the simplest way there is: what it is held to.

A qcow2 image that is known to be sound is read cluster by cluster from memory; a packed file is
unpacked whole by the standard library. Format: QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import zlib
from collections.abc import Callable

import zstandard

_OFFSET = ((1 << 56) - 1) & ~0x1FF


def qcow2_disk(image: bytes) -> bytes:
    """The whole disk in an image."""
    version, bits, size = (
        *struct.unpack_from(">I", image, 4),
        *struct.unpack_from(">IQ", image, 20),
    )
    (l1,) = struct.unpack_from(">Q", image, 40)
    (incompatible,) = struct.unpack_from(">Q", image, 72) if version == 3 else (0,)
    unpack = _unzstd if incompatible & 8 else _inflate
    cluster = 1 << bits
    entry_size = 16 if incompatible & 16 else 8
    per_table = cluster // entry_size
    disk = bytearray()
    for number in range(-(-size // cluster)):
        (l1_entry,) = struct.unpack_from(">Q", image, l1 + number // per_table * 8)
        table = l1_entry & _OFFSET
        if not table:
            disk += bytes(cluster)
            continue
        at = table + number % per_table * entry_size
        (entry,) = struct.unpack_from(">Q", image, at)
        if entry >> 62 & 1:
            shift = 62 - (bits - 8)
            host = entry & ((1 << shift) - 1)
            sectors = (entry >> shift & ((1 << (62 - shift)) - 1)) + 1
            end = host - host % 512 + sectors * 512
            disk += unpack(image[host:end], cluster)
        elif entry_size == 16:
            (bitmap,) = struct.unpack_from(">Q", image, at + 8)
            disk += _subclusters(image, entry & _OFFSET, bitmap, cluster // 32)
        elif entry & 1 or not entry & _OFFSET:
            disk += bytes(cluster)
        else:
            host = entry & _OFFSET
            disk += image[host : host + cluster].ljust(cluster, b"\0")
    return bytes(disk[:size])


def _subclusters(image: bytes, host: int, bitmap: int, size: int) -> bytes:
    pieces = []
    for n in range(32):
        data = image[host + n * size : host + (n + 1) * size].ljust(size, b"\0")
        pieces.append(data if bitmap >> n & 1 else bytes(size))
    return b"".join(pieces)


def _inflate(stored: bytes, length: int) -> bytes:
    data = zlib.decompressobj(-15).decompress(stored, length)
    assert len(data) == length
    return data


def _unzstd(stored: bytes, length: int) -> bytes:
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(stored), read_across_frames=True)
    data = bytearray()
    while len(data) < length:
        piece = reader.read(length - len(data))
        assert piece
        data += piece
    return bytes(data)


def unpacked(packed: bytes, name: str) -> bytes | None:
    """All members of a packed file; None where the standard library finds it damaged or cut."""
    try:
        return {"gzip": _gzip, "bzip2": _bzip2, "xz": _xz, "zstd": _zstd}[name](packed)
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError, EOFError):
        return None


def _members(packed: bytes, magic: bytes, new: Callable, padding: bytes, rest: bool) -> bytes:
    """``rest``: whether what is no member may follow the last one."""
    output = b""
    while packed.startswith(magic):
        decoder = new()
        output += decoder.decompress(packed)
        if not decoder.eof:
            raise EOFError
        packed = decoder.unused_data.lstrip(padding)
    if packed and not rest:
        raise ValueError
    return output


class _Gunzip:
    """zlib's, which minds what isal does not: reserved flags of a header (RFC 1952, 2.3.1)."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(31)

    def decompress(self, packed: bytes) -> bytes:
        if len(packed) > 3:
            packed = packed[:3] + bytes([packed[3] & 0x1F]) + packed[4:]
        return self._decoder.decompress(packed)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data


def _gzip(packed: bytes) -> bytes:
    return _members(packed, b"\x1f\x8b", _Gunzip, b"\0", True)


def _bzip2(packed: bytes) -> bytes:
    return _members(packed, b"BZh", bz2.BZ2Decompressor, b"", True)


def _xz(packed: bytes) -> bytes:
    limited = lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=128 << 20)  # noqa: E731
    return _members(packed, b"\xfd7zXZ\0", limited, b"\0", False)


def _zstd(packed: bytes) -> bytes:
    output = b""
    while packed:
        if len(packed) >= 8 and packed[1:4] == b"\x2a\x4d\x18" and packed[0] >> 4 == 5:
            (length,) = struct.unpack_from("<I", packed, 4)
            if len(packed) < 8 + length:
                raise EOFError
            packed = packed[8 + length :]
            continue
        decoder = zstandard.ZstdDecompressor(max_window_size=128 << 20).decompressobj()
        output += decoder.decompress(packed)
        if not decoder.eof:
            raise EOFError
        packed = decoder.unused_data
    return output
