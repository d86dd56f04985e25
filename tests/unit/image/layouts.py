"""qcow2 images with their parts in any order, and the disk that is in them."""

from __future__ import annotations

import os
import random
import struct
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import zstandard
from hypothesis import strategies as st

from mvirt_zfs_dbus.image import qcow2_header
from mvirt_zfs_dbus.image.pool import Pool
from mvirt_zfs_dbus.image.qcow2_settle import settle
from mvirt_zfs_dbus.image.qcow2_stream import Arrival
from mvirt_zfs_dbus.image.rest import Rest
from mvirt_zfs_dbus.image.writer import Target

from .builder import COMPRESSED, COPIED, Qcow2, deflate

ALL = (1 << 32) - 1


@dataclass
class Layout:
    """The parts of an image file in their order, and which cluster of the disk is where.

    A part is ``l1``, ``refcounts``, ``junk``, ``l2:N``, ``data:N`` or ``packed:N``; packed ones in
    a row share clusters and sectors, with ``gap`` bytes of ``filler`` between them.
    """

    parts: list[str]
    guests: dict[int, str]
    """Cluster of the disk → ``data:N`` or ``packed:N``; several may name the same."""
    size: int
    cluster_bits: int = 9
    zstd: bool = False
    extended: bool = False
    bitmaps: dict[int, int] = field(default_factory=dict)
    gap: int = 0
    filler: bytes = b"\0"
    seed: int = 0

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def entries(self) -> int:
        return self.cluster_size // (16 if self.extended else 8)

    @property
    def tables(self) -> int:
        return -(-self.size // (self.entries << self.cluster_bits))

    def content(self, part: str) -> bytes:
        """What a cluster holds: half of it random, so that packing it makes it smaller."""
        noise = random.Random(f"{self.seed} {part}").randbytes(self.cluster_size // 2)
        return noise.ljust(self.cluster_size, part[-1:].encode())

    def disk(self) -> bytes:
        disk = bytearray(-(-self.size // self.cluster_size) * self.cluster_size)
        for guest, part in self.guests.items():
            data = self.content(part)
            if part.startswith("data") and self.extended:
                size = self.cluster_size // 32
                data = b"".join(
                    data[n * size : (n + 1) * size] if self.bitmap(guest) >> n & 1 else bytes(size)
                    for n in range(32)
                )
            disk[guest * self.cluster_size : (guest + 1) * self.cluster_size] = data
        return bytes(disk[: self.size])

    def bitmap(self, guest: int) -> int:
        return self.bitmaps.get(guest, ALL)

    def build(self) -> bytes:
        places, payload = self._place()
        options = {"compression_type": 1, "incompatible": 8} if self.zstd else {}
        image = bytearray(payload)
        header = Qcow2(
            size=self.size,
            cluster_bits=self.cluster_bits,
            extended_l2=self.extended,
            l1_offset=places["l1"][0],
            refcount_offset=places["refcounts"][0],
            **options,
        ).header()
        image[: len(header)] = header
        for table in range(self.tables):
            if f"l2:{table}" in places:
                place = places[f"l2:{table}"][0]
                struct.pack_into(">Q", image, places["l1"][0] + 8 * table, COPIED | place)
        for guest, part in self.guests.items():
            self._enter(image, places, guest, part)
        return bytes(image)

    def _enter(self, image: bytearray, places, guest: int, part: str) -> None:
        offset, length = places[part]
        entry = offset | COPIED
        if part.startswith("packed"):
            more = (offset + length - 1) // 512 - offset // 512
            entry = COMPRESSED | more << (62 - (self.cluster_bits - 8)) | offset
        table = places[f"l2:{guest // self.entries}"][0]
        at = table + guest % self.entries * (16 if self.extended else 8)
        struct.pack_into(">Q", image, at, entry)
        if self.extended:
            bitmap = 0 if part.startswith("packed") else self.bitmap(guest)
            struct.pack_into(">Q", image, at + 8, bitmap)

    def _place(self) -> tuple[dict[str, tuple[int, int]], bytes]:
        payload = bytearray(self.cluster_size)
        places = {}
        last = ""
        for part in self.parts:
            kind = part.partition(":")[0]
            if kind == "packed" and last == "packed":
                payload += (self.filler * self.gap)[: self.gap]
            else:
                payload += bytes(-len(payload) % self.cluster_size)
            data = self._bytes(kind, part)
            places[part] = len(payload), len(data)
            payload += data
            last = kind
        return places, bytes(payload)

    def _bytes(self, kind: str, part: str) -> bytes:
        if kind == "data":
            return self.content(part)
        if kind == "packed":
            pack = zstandard.ZstdCompressor().compress if self.zstd else deflate
            return pack(self.content(part))
        if kind == "junk":
            return random.Random(part).randbytes(self.cluster_size)
        length = self.tables * 8 if kind == "l1" else self.cluster_size
        return bytes(-(-length // self.cluster_size) * self.cluster_size)


@st.composite
def layouts(draw) -> Layout:
    """Every order of the parts, with clusters used once, twice and never."""
    extended = draw(st.booleans()) and draw(st.booleans())
    cluster_bits = 14 if extended else draw(st.integers(9, 12))
    cluster_size = 1 << cluster_bits
    entries = cluster_size // (16 if extended else 8)
    tables = draw(st.integers(1, 4))
    spare = draw(st.integers(0, cluster_size - 1))
    size = max(1, tables * (entries << cluster_bits) - spare)
    clusters = [f"data:{n}" for n in range(draw(st.integers(0, 6)))]
    clusters += [f"packed:{n}" for n in range(draw(st.integers(0, 8)))]
    guests = {}
    last = -(-size // cluster_size) - 1
    for part in clusters:
        for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
            table = draw(st.integers(0, tables - 1))
            near = draw(st.sampled_from([0, 1, 2, 3, entries - 1]))
            guests[min(table * entries + near, last)] = part
    bitmaps = {
        guest: draw(st.one_of(st.just(ALL), st.integers(0, ALL)))
        for guest, part in guests.items()
        if extended and part.startswith("data")
    }
    used = sorted({guest // entries for guest in guests})
    parts = ["l1", "refcounts", "junk", *(f"l2:{table}" for table in used), *clusters]
    return Layout(
        parts=draw(st.permutations(parts)),
        guests=guests,
        size=size,
        cluster_bits=cluster_bits,
        zstd=draw(st.booleans()),
        extended=extended,
        bitmaps=bitmaps,
        gap=draw(st.sampled_from([0, 0, 0, 1, 100, 700])),
        filler=draw(st.sampled_from([b"\0", b"\xa5"])),
        seed=draw(st.integers(0, 1 << 30)),
    )


def cut(image: bytes, sizes: Iterable[int]) -> Iterable[bytes]:
    """The image in chunks of these sizes, in turn."""
    sizes = list(sizes)
    start, turn = 0, 0
    while start < len(image):
        yield image[start : start + sizes[turn % len(sizes)]]
        start += sizes[turn % len(sizes)]
        turn += 1


@dataclass
class OnePass:
    disk: bytes
    spools: int
    settled: int
    """Bytes of the image that were written at the end only."""


_pool: list[Pool] = []


def one_pass(image: bytes, sizes: Iterable[int], before: bytes | None = None) -> OnePass:
    """Convert what arrives in chunks of these sizes. Raises what is wrong with it."""
    header = qcow2_header.parse(image[: 64 << 10])
    if not _pool:
        _pool.append(Pool(2))
    (pool,) = _pool
    spools, reports = [], []
    memory = os.memfd_create("rest")

    def open_spool() -> int:
        spools.append(tempfile.TemporaryFile())  # noqa: SIM115
        return spools[-1].fileno()

    try:
        with tempfile.TemporaryFile() as disk:
            os.truncate(disk.fileno(), header.size)
            if before is not None:
                os.pwrite(disk.fileno(), (before * header.size)[: header.size], 0)
            target = Target(disk.fileno(), header.size, is_zero=before is None)
            arrival = Arrival(header, target, pool, Rest(memory, open_spool, pool))
            kept = arrival.receive(cut(image, sizes))
            assert kept.size == len(image)
            settle(arrival, kept, target, pool, reports.append)
            settled = reports[-1].bytes_total if reports else 0
            return OnePass(os.pread(disk.fileno(), header.size, 0), len(spools), settled)
    finally:
        pool.abandon()
        os.close(memory)
        for spool in spools:
            spool.close()


def write(image: bytes, path: Path) -> Path:
    path.write_bytes(image)
    return path
