"""Any bytes as a qcow2 image whose header is right and whose tables mean something.

A fuzzer that turns single bits of an image spends its time on the header. Here each byte of its
input is a choice instead: what a cluster of the file holds, where a table is, what its entries
point to, in and out of order, twice, over each other, or beyond the end.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import zstandard

_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQIIB7x")
_COPIED, _COMPRESSED, _ZERO = 1 << 63, 1 << 62, 1
_L2, _DATA, _PACKED, _HOLE = range(4)
_PLACES = (0, 40, 128, 256, 300, 496)
"""Where in a cluster of 512 bytes compressed ones begin."""


def image(choices: bytes) -> bytes:
    taken = iter(choices)

    def pick(count: int) -> int:
        """A number below ``count``; 0 once the input has ended."""
        return next(taken, 0) % count

    extended, zstd = pick(4) == 3, pick(2)
    bits = 14 if extended else 9 + pick(3)
    cluster = 1 << bits
    entry_size = 16 if extended else 8
    per_table = cluster // entry_size
    tables = 1 if extended else 1 + pick(3)
    clusters = 4 + pick(6 if extended else 40)
    size = max(tables * per_table * cluster - pick(256) * 7 * pick(3), 1)
    if extended:
        size = min(size, per_table * cluster * (tables - 1) + (1 + pick(20)) * cluster)
    l1, refcounts = (1 + pick(clusters - 1)) * cluster, (1 + pick(clusters - 1)) * cluster
    kinds = [pick(4) for _ in range(clusters)]
    file = bytearray(b"".join(_content(kind, n, cluster, zstd) for n, kind in enumerate(kinds)))
    for n, kind in enumerate(kinds):
        if kind == _L2:
            file[n * cluster : (n + 1) * cluster] = _table(pick, clusters, bits, extended)
    found = [n for n, kind in enumerate(kinds) if kind == _L2]
    for n in range(tables):
        host = found[pick(len(found))] if found and pick(8) else pick(clusters + 2)
        struct.pack_into(">Q", file, l1 + n * 8, _COPIED | host * cluster if host else 0)
    incompatible = 8 * zstd | 16 * extended
    head = _HEADER.pack(
        b"QFI\xfb", 3, 0, 0, bits, size, 0, tables, l1, refcounts, pick(2), 0, 0,
        incompatible, 0, 0, 4, 112, zstd,
    )  # fmt: skip
    file[: len(head)] = head
    return bytes(file[: len(file) - pick(3) * pick(256)])


def _content(kind: int, number: int, cluster: int, zstd: int) -> bytes:
    if kind == _HOLE:
        return bytes(cluster)
    if kind != _PACKED:
        return bytes((number * 37 + n) & 0xFF for n in range(256)) * (cluster // 256)
    pieces = bytearray(cluster)
    for n, place in enumerate(_PLACES):
        plain = bytes([number, n, 0x55, n]) * (cluster // 4)
        packed = zstandard.compress(plain) if zstd else _deflate(plain)
        end = min(place + len(packed), cluster)
        pieces[place:end] = packed[: end - place]
    return bytes(pieces)


def _deflate(plain: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-12)
    return packer.compress(plain) + packer.flush()


def _table(pick, clusters: int, bits: int, extended: bool) -> bytes:
    size = 16 if extended else 8
    table = bytearray(1 << bits)
    for slot, entry, bitmap in _entries(pick, clusters, bits, extended, (1 << bits) // size):
        struct.pack_into(">Q", table, slot * size, entry)
        if extended:
            struct.pack_into(">Q", table, slot * size + 8, bitmap)
    return bytes(table)


def _entries(
    pick, clusters: int, bits: int, extended: bool, slots: int
) -> Iterator[tuple[int, int, int]]:
    slot = 0
    for _ in range(pick(12)):
        slot = (slot + 1 + pick(3)) % slots if pick(8) else pick(slots)
        host = pick(clusters + 1) << bits
        if pick(2):
            more = pick(4)
            offset = host + _PLACES[pick(len(_PLACES))]
            yield slot, _COMPRESSED | more << (62 - (bits - 8)) | offset, 0
        elif extended:
            ones = pick(256) * 0x01010101
            zeros = (pick(256) * 0x01010101) & ~ones
            yield slot, _COPIED | host if ones else host, zeros << 32 | ones
        else:
            yield slot, _COPIED | host | (_ZERO if not pick(6) else 0), 0
