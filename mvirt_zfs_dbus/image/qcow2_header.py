"""The qcow2 header: what an image says of itself, and what of it is refused.

Source of every offset, bit and limit: QEMU's docs/interop/qcow2.txt; limits that are QEMU's own are
marked so. Nothing here reads but from the bytes it is given.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..errors import CorruptImage, Truncated, UnsafeImage, UnsupportedImage

_V2: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_V3: Final = struct.Struct(">QQQII")
_MAX_CLUSTER_BITS: Final = 21
"""QEMU's limit: clusters of 2 MiB."""
_MAX_L1_BYTES: Final = 32 << 20
"""QEMU's limit."""
_MAX_REFCOUNT_TABLE_BYTES: Final = 8 << 20
"""QEMU's limit."""
_MAX_SIZE: Final = 1 << 56
"""Bytes of a disk: what L1 and L2 entries can address."""

_DIRTY, _CORRUPT, _EXTERNAL, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN: Final = _DIRTY | _CORRUPT | _EXTERNAL | _COMPRESSION | _EXTENDED_L2
_FEATURE_NAMES: Final = 0x6803F857
_COMPRESSIONS: Final = ("zlib", "zstd")
_REPAIR: Final = "; «qemu-img check -r all» repairs it"


@dataclass(frozen=True, slots=True)
class Header:
    version: int
    size: int
    """Bytes of the disk in the image."""
    cluster_bits: int
    l1_offset: int
    l1_entries: int
    """As many as the disk needs; what follows in the table belongs to saved VM states."""
    refcount_offset: int
    refcount_clusters: int
    compression: str
    extended_l2: bool

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def unit(self) -> int:
        """Bytes of the disk of which each is stored in one way: clusters, or parts of them."""
        return self.cluster_size // 32 if self.extended_l2 else self.cluster_size

    @property
    def entry_size(self) -> int:
        return 16 if self.extended_l2 else 8

    @property
    def table_span(self) -> int:
        """Bytes of the disk that one L2 table maps."""
        return (self.cluster_size // self.entry_size) << self.cluster_bits


def parse(head: bytes) -> Header:
    """The header at the start of an image, of which ``head`` holds the first bytes.

    Errors: UnsafeImage, UnsupportedImage, CorruptImage, Truncated; each says what is wrong.
    """
    if len(head) < _V2.size:
        raise Truncated(f"the image ends after {len(head)} bytes, inside its header")
    (
        _magic,
        version,
        backing_offset,
        backing_size,
        cluster_bits,
        size,
        crypt_method,
        l1_entries,
        l1_offset,
        refcount_offset,
        refcount_clusters,
        _snapshots,
        _snapshots_offset,
    ) = _V2.unpack_from(head)
    if version not in (2, 3):
        raise UnsupportedImage(f"qcow2 version {version} is not supported; 2 and 3 are")
    if not 9 <= cluster_bits <= _MAX_CLUSTER_BITS:
        raise CorruptImage(
            f"cluster_bits is {cluster_bits}; clusters have 2^9 to 2^{_MAX_CLUSTER_BITS} bytes"
        )
    _refuse_references(head, backing_offset, backing_size, crypt_method)
    compression, extended_l2 = _features(head, cluster_bits) if version == 3 else ("zlib", False)
    header = Header(
        version=version,
        size=size,
        cluster_bits=cluster_bits,
        l1_offset=l1_offset,
        l1_entries=0,
        refcount_offset=refcount_offset,
        refcount_clusters=refcount_clusters,
        compression=compression,
        extended_l2=extended_l2,
    )
    return _check_tables(header, l1_entries)


def _refuse_references(head: bytes, offset: int, length: int, crypt_method: int) -> None:
    if offset:
        name = head[offset : offset + min(length, 1023)].decode(errors="replace")
        raise UnsafeImage(
            f"the image has the backing file {name!r}, and an image may not point outside itself;"
            " «qemu-img convert» makes one that stands alone"
        )
    if crypt_method:
        method = {1: "AES", 2: "LUKS"}.get(crypt_method, f"method {crypt_method}")
        raise UnsupportedImage(f"the image is encrypted ({method})")


def _features(head: bytes, cluster_bits: int) -> tuple[str, bool]:
    """The compression and whether L2 entries are extended, of a version 3 image."""
    if len(head) < _V2.size + _V3.size:
        raise Truncated(f"the image ends after {len(head)} bytes, inside its header")
    incompatible, _compatible, _autoclear, refcount_order, length = _V3.unpack_from(head, _V2.size)
    if length < _V2.size + _V3.size or length % 8 or length > 1 << cluster_bits:
        raise CorruptImage(f"header_length is {length}; it is a multiple of 8 from 104 on")
    if unknown := incompatible & ~_KNOWN:
        raise UnsupportedImage(
            "the image needs features that are not known here: "
            + ", ".join(_feature_names(head, length, unknown))
        )
    if incompatible & _EXTERNAL:
        raise UnsafeImage(
            "the image keeps its data in an external file, and may not point outside itself;"
            " «qemu-img convert» makes one that stands alone"
        )
    if incompatible & _CORRUPT:
        raise CorruptImage(f"the image is marked corrupt{_REPAIR}")
    if incompatible & _DIRTY:
        raise CorruptImage(f"the image is marked dirty: it was not closed{_REPAIR}")
    if refcount_order > 6:
        raise CorruptImage(f"refcount_order is {refcount_order}; refcounts have at most 2^6 bits")
    extended_l2 = bool(incompatible & _EXTENDED_L2)
    if extended_l2 and cluster_bits < 14:
        raise CorruptImage(
            f"extended L2 entries need clusters of 16384 bytes; these have {1 << cluster_bits}"
        )
    return _compression(head, length, bool(incompatible & _COMPRESSION)), extended_l2


def _compression(head: bytes, header_length: int, announced: bool) -> str:
    kind = head[104] if header_length > 104 and len(head) > 104 else 0
    if kind >= len(_COMPRESSIONS):
        raise UnsupportedImage(f"compression type {kind} is not known; 0 is zlib and 1 is zstd")
    if announced != bool(kind):
        raise CorruptImage(
            f"the compression type is {kind}, which the incompatible feature bit 3 contradicts"
        )
    return _COMPRESSIONS[kind]


def _check_tables(header: Header, l1_entries: int) -> Header:
    """The header with its tables found to be possible."""
    if not header.size:
        raise CorruptImage("the disk in the image has 0 bytes")
    if header.size > _MAX_SIZE:
        raise CorruptImage(f"a disk of {header.size} bytes is more than an image can hold")
    if l1_entries * 8 > _MAX_L1_BYTES:
        raise CorruptImage(
            f"the L1 table has {l1_entries} entries; at most {_MAX_L1_BYTES // 8} are possible"
        )
    needed = -(-header.size // header.table_span)
    if l1_entries < needed:
        raise CorruptImage(
            f"the L1 table has {l1_entries} entries where a disk of {header.size} bytes"
            f" takes {needed}"
        )
    if header.refcount_clusters << header.cluster_bits > _MAX_REFCOUNT_TABLE_BYTES:
        raise CorruptImage(
            f"the refcount table has {header.refcount_clusters} clusters; at most"
            f" {_MAX_REFCOUNT_TABLE_BYTES >> header.cluster_bits} are possible"
        )
    for name, offset in (("L1", header.l1_offset), ("refcount", header.refcount_offset)):
        if not offset or offset % header.cluster_size:
            raise CorruptImage(f"the {name} table is at byte {offset}, which begins no cluster")
    return Header(
        **{name: getattr(header, name) for name in Header.__slots__} | {"l1_entries": needed}
    )


def _feature_names(head: bytes, header_length: int, bits: int) -> Iterator[str]:
    """The names of incompatible feature bits, as the image's own table has them."""
    names = dict(_named_features(head, header_length))
    for bit in range(64):
        if bits >> bit & 1:
            yield f"{names[bit]!r} (bit {bit})" if bit in names else f"bit {bit}"


def _named_features(head: bytes, header_length: int) -> Iterator[tuple[int, str]]:
    offset = header_length
    while offset + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, offset)
        offset += 8
        if kind == _FEATURE_NAMES:
            for start in range(offset, min(offset + length, len(head)) - 47, 48):
                if head[start] == 0:  # an incompatible feature
                    name = head[start + 2 : start + 48].rstrip(b"\0")
                    yield head[start + 1], name.decode(errors="replace")
        if not kind:
            return
        offset += -(-length // 8) * 8
