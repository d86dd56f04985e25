"""Packed images: what is in them is imported, and no bomb goes off."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import random
import subprocess
import sys
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mvirt_zfs_dbus.errors import CorruptImage, Truncated, UnsafeImage, UnsupportedImage
from mvirt_zfs_dbus.image import decompress, unpack, zstd_frames

from .builder import Qcow2, deflate
from .inprocess import import_bytes, import_pipe


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACK = {"gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress, "zstd": zstd}
each = pytest.mark.parametrize("name", PACK)
some = random.Random(2).randbytes
DISK = some(300_000) + bytes(3_000_000) + some(1000) * 20


def unpacked(packed: bytes, name: str, size: int = 1 << 20) -> bytes:
    chunks = (packed[start : start + size] for start in range(0, len(packed), size))
    return b"".join(unpack.unpacked(chunks, name))


@each
@pytest.mark.parametrize("run", [import_bytes, import_pipe])
def test_a_packed_raw_image_becomes_the_disk(name, run):
    packed = PACK[name](DISK)
    result = run(packed, algorithm="sha256")
    assert result.disk == DISK
    assert (result.info.format, result.info.virtual_size) == ("raw", None)
    assert result.done.size == len(DISK)
    assert result.done.received == len(packed)
    assert result.done.digest == hashlib.sha256(packed).hexdigest()


@each
@pytest.mark.parametrize("asked", ["auto", "qcow2"])
def test_a_packed_qcow2_image_becomes_the_disk_without_a_spool(name, asked):
    image = Qcow2(size=1 << 20).data(0, b"x" * 4096).packed(3, deflate(b"y" * 4096)).build()
    result = import_pipe(PACK[name](image), image_format=asked)
    assert result.disk == import_bytes(image).disk
    assert result.info.format == "qcow2"
    assert result.spools == 0


@each
def test_who_asks_for_raw_gets_the_packed_bytes(name):
    packed = PACK[name](DISK)
    assert import_bytes(packed, image_format="raw").disk == packed


@each
def test_progress_counts_packed_bytes(name):
    packed = PACK[name](DISK)
    for result in (import_bytes(packed), import_pipe(packed, length=len(packed))):
        assert result.reports[-1].done == result.reports[-1].total == len(packed)
    assert import_pipe(packed).reports[-1].done == len(packed)


@each
@settings(max_examples=20, deadline=None)
@given(members=st.lists(st.binary(max_size=300), min_size=1, max_size=4), size=st.integers(1, 99))
def test_a_file_of_several_members_is_all_of_them_in_any_chunks(name, members, size):
    packed = b"".join(PACK[name](member) for member in members)
    assert unpacked(packed, name, size) == b"".join(members)


@each
def test_what_the_formats_own_tool_packs_is_unpacked(name):
    if name == "zstd":
        pytest.importorskip("zstandard")
        packed = zstandard.ZstdCompressor(level=19, write_content_size=False).compress(DISK)
    else:
        packed = subprocess.run([name, "-9", "-c"], input=DISK, stdout=-1, check=True).stdout
    assert unpacked(packed, name) == DISK


@each
def test_packed_data_that_ends_early_is_truncated(name):
    packed = PACK[name](DISK)
    for length in (len(packed) - 1, len(packed) // 2, 100_000):
        with pytest.raises(Truncated, match=name):
            import_pipe(packed[:length])


@each
def test_packed_data_that_is_damaged_is_refused(name):
    packed = bytearray(PACK[name](DISK))
    for at in (len(packed) - 5, len(packed) // 2):  # in the checksum, and in the data
        damaged = packed[:at] + bytes([packed[at] ^ 0x55]) + packed[at + 1 :]
        with pytest.raises((CorruptImage, Truncated)):
            unpacked(bytes(damaged), name)


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_what_follows_the_last_member_is_taken_as_the_tools_take_it(size):
    for name in ("gzip", "bzip2"):
        assert unpacked(PACK[name](DISK[:500]) + b"garbage", name, size) == DISK[:500]
    assert unpacked(gzip.compress(b"x") + bytes(1000), "gzip", size) == b"x"
    assert unpacked(lzma.compress(b"x") + bytes(8), "xz", size) == b"x"
    skippable = b"\x50\x2a\x4d\x18\x05\0\0\0hello"
    assert unpacked(skippable + zstd(b"x") + skippable, "zstd", size) == b"x"
    for name in ("xz", "zstd"):
        with pytest.raises(CorruptImage, match="follows"):
            unpacked(PACK[name](b"x") + b"some garbage", name, size)


def test_an_ignored_end_is_part_of_the_checksum_all_the_same():
    packed = gzip.compress(DISK) + some(3 << 20)
    result = import_pipe(packed, algorithm="sha256")
    assert result.disk == DISK
    assert result.done.received == len(packed)
    assert result.done.digest == hashlib.sha256(packed).hexdigest()


@each
def test_a_bomb_is_refused(name, monkeypatch):
    monkeypatch.setattr(unpack, "FREE", 4 << 20)
    monkeypatch.setattr(unpack, "RATIO", 100)
    assert unpacked(PACK[name](bytes(4 << 20)), name) == bytes(4 << 20)
    bomb = PACK[name](bytes(64 << 20))
    with pytest.raises(UnsafeImage, match=rf"bytes of {name} unpack to more than"):
        import_pipe(bomb)


@each
def test_however_little_it_is_packed_there_is_a_most(name, monkeypatch):
    monkeypatch.setattr(unpack, "MOST", 1 << 20)
    with pytest.raises(UnsafeImage):
        import_pipe(PACK[name](some(2 << 20)))


@each
def test_a_bomb_takes_no_memory(name):
    """In a process of its own, whose address space may grow by 160 MiB for all it does."""
    code = f"""
import resource, sys
from mvirt_zfs_dbus.image import unpack
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (160 << 20),) * 2)
data = sys.stdin.buffer.read()
print(sum(len(piece) for piece in unpack.unpacked([data], {name!r})))
"""
    bomb = PACK[name](bytes(400 << 20))
    run = subprocess.run([sys.executable, "-c", code], input=bomb, capture_output=True, check=False)
    assert run.stdout.strip() == str(400 << 20).encode(), run.stderr


def test_windows_that_take_too_much_memory_are_refused():
    # A header that claims a window is enough, and costs the test no memory.
    packed = bytearray(lzma.compress(DISK, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6}]))
    packed[16] = 37  # dictionary of 1.5 GiB
    packed[20:24] = zlib.crc32(packed[12:20]).to_bytes(4, "little")
    with pytest.raises(UnsupportedImage, match="memory"):
        unpacked(bytes(packed), "xz")
    header = zstd_frames.MAGIC + bytes([0, 0xA8])  # a window of 2 GiB
    with pytest.raises((CorruptImage, UnsupportedImage), match="memory"):
        unpacked(header + b"\x09\0\0x", "zstd")


def test_an_image_packed_twice_or_of_another_format_is_refused_by_name():
    with pytest.raises(UnsupportedImage, match="gzip"):
        import_bytes(lzma.compress(gzip.compress(DISK)))
    with pytest.raises(UnsupportedImage, match="QED"):
        import_bytes(gzip.compress(b"QED\0".ljust(1000, b"\0")))


@each
def test_nothing_packed_is_an_empty_source(name):
    with pytest.raises(CorruptImage, match="empty"):
        import_bytes(PACK[name](b""))


def test_a_header_is_refused_before_anything_is_written():
    with pytest.raises(UnsafeImage, match="backing file"):
        import_bytes(gzip.compress(Qcow2(backing=b"/etc/shadow").build()))


def test_zstd_needs_its_library(monkeypatch):
    monkeypatch.setattr(decompress, "zstandard", None)
    with pytest.raises(UnsupportedImage, match="python3-zstandard"):
        import_bytes(zstd(DISK))


def test_gzip_needs_no_library(monkeypatch):
    monkeypatch.setattr(decompress, "zlib_library", zlib)
    test_a_packed_raw_image_becomes_the_disk("gzip", import_bytes)


@given(st.binary(max_size=2000), st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_frames_are_cut_into_pieces_that_are_all_of_them(data, size):
    frames = zstd_frames.Frames()
    packed = zstd(data) * 2
    pieces = [
        piece
        for start in range(0, len(packed), size)
        for piece in frames.feed(packed[start : start + size])
    ]
    assert b"".join(piece for piece, _ in pieces) == packed
    assert [ends for _, ends in pieces].count(True) == 2
    assert frames.between
    assert zstd_frames.first_frame(packed) == len(packed) // 2
