"""qcow2 images written byte by byte, the hostile ones too (QEMU's docs/interop/qcow2.txt)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import zstandard

COPIED = 1 << 63
COMPRESSED = 1 << 62


def deflate(data: bytes) -> bytes:
    """As QEMU does: raw, with a window of 4 KiB."""
    packer = zlib.compressobj(wbits=-12)
    return packer.compress(data) + packer.flush()


@dataclass
class Qcow2:
    """Cluster 0 is the header, 1 the refcount table, 2 on the L1 table, then L2 tables, then data.

    Every field of the header can be set to what it should not be.
    """

    size: int = 1 << 20
    cluster_bits: int = 12
    version: int = 3
    magic: bytes = b"QFI\xfb"
    backing: bytes = b""
    crypt_method: int = 0
    l1_entries: int | None = None
    l1_offset: int | None = None
    refcount_offset: int | None = None
    refcount_clusters: int = 1
    incompatible: int = 0
    refcount_order: int = 4
    header_length: int | None = None
    compression_type: int | None = None
    extensions: bytes = b""
    extended_l2: bool = False
    l1: dict[int, int] = field(default_factory=dict)
    """L1 entries in place of the right ones."""
    clusters: dict[int, Callable[[int], int]] = field(default_factory=dict)
    """Guest cluster → its L2 entry, given where the data begins."""
    bitmaps: dict[int, int] = field(default_factory=dict)
    payload: bytes = b""

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def entries(self) -> int:
        return self.cluster_size // (16 if self.extended_l2 else 8)

    @property
    def l1_needed(self) -> int:
        return max(1, -(-self.size // (self.entries << self.cluster_bits)))

    @property
    def l1_at(self) -> int:
        return 2 * self.cluster_size

    @property
    def l2_at(self) -> int:
        return self.l1_at + self._padded(self.l1_needed * 8)

    @property
    def data_at(self) -> int:
        return self.l2_at + len(self._l2_used()) * self.cluster_size

    def entry(self, cluster: int, value: int, bitmap: int = 0) -> Qcow2:
        """Set an L2 entry to anything."""
        self.clusters[cluster] = lambda _: value
        self.bitmaps[cluster] = bitmap
        return self

    def data(self, cluster: int, data: bytes, bitmap: int = (1 << 32) - 1) -> Qcow2:
        """A plain cluster."""
        offset = len(self.payload)
        self.payload += data.ljust(self.cluster_size, b"\0")
        self.clusters[cluster] = lambda base: COPIED | (base + offset)
        self.bitmaps[cluster] = bitmap
        return self

    def packed(self, cluster: int, data: bytes, sectors: int | None = None) -> Qcow2:
        """A compressed cluster, whose compressed bytes are given, padded to a whole cluster."""
        offset = len(self.payload)
        self.payload += data + bytes(-len(data) % self.cluster_size)
        more = (len(data) - 1) // 512 if sectors is None else sectors
        shift = 62 - (self.cluster_bits - 8)
        self.clusters[cluster] = lambda base: COMPRESSED | more << shift | (base + offset)
        return self

    def build(self) -> bytes:
        return self.header() + bytes(self.cluster_size) + self._tables() + self.payload

    def header(self) -> bytes:
        """The first cluster."""
        header = struct.pack(
            ">4sIQIIQIIQQIIQ",
            self.magic,
            self.version,
            self.cluster_size - len(self.backing) if self.backing else 0,
            len(self.backing),
            self.cluster_bits,
            self.size,
            self.crypt_method,
            self.l1_needed if self.l1_entries is None else self.l1_entries,
            self.l1_at if self.l1_offset is None else self.l1_offset,
            self.cluster_size if self.refcount_offset is None else self.refcount_offset,
            self.refcount_clusters,
            0,
            0,
        )
        if self.version == 3:
            incompatible = self.incompatible | (16 if self.extended_l2 else 0)
            own = 104 if self.compression_type is None else 112
            length = own if self.header_length is None else self.header_length
            header += struct.pack(">QQQII", incompatible, 0, 0, self.refcount_order, length)
            if self.compression_type is not None:
                header += bytes([self.compression_type]) + bytes(7)
        head = (header + self.extensions).ljust(self.cluster_size, b"\0")
        if self.backing:
            head = head[: -len(self.backing)] + self.backing
        return head

    def _tables(self) -> bytes:
        used = self._l2_used()
        places = {index: self.l2_at + n * self.cluster_size for n, index in enumerate(used)}
        l1 = [
            self.l1.get(index, COPIED | places[index] if index in places else 0)
            for index in range(self.l1_needed)
        ]
        tables = struct.pack(f">{len(l1)}Q", *l1).ljust(self._padded(len(l1) * 8), b"\0")
        for index in used:
            for cluster in range(index * self.entries, (index + 1) * self.entries):
                entry = self.clusters.get(cluster, lambda _: 0)(self.data_at)
                tables += struct.pack(">Q", entry)
                if self.extended_l2:
                    tables += struct.pack(">Q", self.bitmaps.get(cluster, 0))
        return tables

    def _l2_used(self) -> list[int]:
        return sorted({cluster // self.entries for cluster in self.clusters})

    def _padded(self, size: int) -> int:
        return -(-size // self.cluster_size) * self.cluster_size


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)
