"""Any bytes as a qcow2 image whose header is right and whose tables mean something.

A fuzzer that turns single bits of an image spends its time on the header. Here each byte of its
input is a choice instead: what a cluster of the file holds, where a table is, what its entries
point to, in and out of order, twice, over each other, or beyond the end.
"""

from __future__ import annotations

import struct
import zlib

import zstandard

_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQIIB7x")
_COPIED, _COMPRESSED, _ZERO = 1 << 63, 1 << 62, 1
_L2, _DATA, _PACKED, _HOLE, _L1, _REFCOUNTS, _FIRST = range(7)
_PLACES = (0, 40, 128, 256, 300, 496)
"""Where in a cluster of 512 bytes compressed ones begin."""


class _Choices:
    """The input, a byte for each choice."""

    def __init__(self, choices: bytes) -> None:
        self._left = iter(choices)

    def pick(self, count: int) -> int:
        """A number below ``count``; 0 once the input has ended."""
        return next(self._left, 0) % count

    def aim(self, kinds: list[int], kind: int) -> int:
        """A cluster of a kind, mostly, and else any, or one beyond the end."""
        fitting = [number for number, found in enumerate(kinds) if found == kind]
        if fitting and self.pick(16):
            return fitting[self.pick(len(fitting))]
        return self.pick(len(kinds) + 1)


def image(data: bytes) -> bytes:
    choices = _Choices(data)
    pick = choices.pick
    extended, zstd = pick(8) == 7, pick(2)
    bits = 14 if extended else 9 + pick(2)
    cluster = 1 << bits
    entry_size = 16 if extended else 8
    tables = 1 if extended else 1 + pick(3)
    size = max((tables << bits) // entry_size * cluster - pick(256) * 7 * pick(2), 1)
    if extended:
        size = (1 + pick(20)) * cluster - pick(2) * 600
    kinds = [_FIRST, *(pick(_HOLE + 1) for _ in range(3 + pick(5 if extended else 16)))]
    for kind in (_L1, _REFCOUNTS):
        kinds.insert(1 + pick(len(kinds)), kind)
    l1, refcounts = (choices.aim(kinds, kind) * cluster for kind in (_L1, _REFCOUNTS))
    file = bytearray(b"".join(_content(kind, n, cluster, zstd) for n, kind in enumerate(kinds)))
    for number, kind in enumerate(kinds):
        if kind == _L2:
            table = _table(choices, kinds, bits, extended)
            file[number * cluster : (number + 1) * cluster] = table
    for number in range(tables):
        host = choices.aim(kinds, _L2) if pick(8) else 0
        entry = _COPIED | host * cluster if host else 0
        file[l1 + number * 8 : l1 + number * 8 + 8] = struct.pack(">Q", entry)
    incompatible = 8 * zstd | 16 * extended
    head = _HEADER.pack(
        b"QFI\xfb", 3, 0, 0, bits, size, 0, tables, l1, refcounts, pick(4) == 3, 0, 0,
        incompatible, 0, 0, 4, 112, zstd,
    )  # fmt: skip
    file[: len(head)] = head
    return bytes(file[: len(file) - (pick(256) if not pick(4) else 0)])


def _content(kind: int, number: int, cluster: int, zstd: int) -> bytes:
    if kind >= _HOLE:
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


def _table(choices: _Choices, kinds: list[int], bits: int, extended: bool) -> bytes:
    size = 16 if extended else 8
    table = bytearray(1 << bits)
    slot = -1
    for _ in range(choices.pick(12)):
        slot = (slot + 1 + choices.pick(3)) % ((1 << bits) // size)
        entry, bitmap = _entry(choices, kinds, bits, extended)
        struct.pack_into(">Q", table, slot * size, entry)
        if extended:
            struct.pack_into(">Q", table, slot * size + 8, bitmap)
    return bytes(table)


def _entry(choices: _Choices, kinds: list[int], bits: int, extended: bool) -> tuple[int, int]:
    """An entry of an L2 table, and its bitmap of subclusters."""
    pick = choices.pick
    if pick(2):
        more = pick(4) if not pick(4) else 0
        offset = (choices.aim(kinds, _PACKED) << bits) + _PLACES[pick(len(_PLACES))]
        return _COMPRESSED | more << (62 - (bits - 8)) | offset, 0
    host = choices.aim(kinds, _DATA) << bits
    if not extended:
        return _COPIED | host | (_ZERO if not pick(6) else 0), 0
    ones = pick(256) * 0x01010101
    zeros = (pick(256) * 0x01010101) & ~ones
    return (_COPIED | host if ones else host), zeros << 32 | ones
