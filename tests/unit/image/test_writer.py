"""The sparse writer: every byte right, and no zero written that is there already."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvirt_zfs_dbus.errors import Error, NoSpace, PoolUnavailable
from mvirt_zfs_dbus.image import room, writer
from mvirt_zfs_dbus.image.buffer import BLOCK, SHORTEST_HOLE, Buffer, data_runs, runs
from mvirt_zfs_dbus.image.writer import Target

blocks = st.lists(st.sampled_from([b"\0", b"x", b"\0" * 7 + b"y"]), max_size=12).map(
    lambda parts: b"".join(part.ljust(BLOCK, part[:1]) for part in parts)
)


@pytest.fixture
def file():
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


@settings(deadline=None)
@given(blocks, st.binary(max_size=20))
def test_runs_cover_a_buffer_and_tell_its_zeros(data, tail):
    data += tail
    found = list(runs(data))
    assert b"".join(data[start:end] for start, end, _ in found) == data
    for start, end, zero in found:
        assert zero == (not any(data[start:end])) or not zero
    assert all(a[2] != b[2] for a, b in pairwise(found))


@settings(deadline=None)
@given(blocks, st.binary(max_size=20), st.integers(0, 2 * BLOCK), st.booleans())
def test_what_is_written_is_what_is_read(data, tail, offset, is_zero):
    data += tail
    before = (b"\0" if is_zero else b"o") * (offset + len(data) + BLOCK)
    with tempfile.TemporaryFile() as file:
        os.pwrite(file.fileno(), before, 0)
        Target(file.fileno(), len(before), is_zero=is_zero).write(data, offset)
        expected = before[:offset] + data + before[offset + len(data) :]
        assert os.pread(file.fileno(), len(before) + 1, 0) == expected


def test_zeros_are_not_written_to_a_target_that_has_them(file):
    os.truncate(file, 4 << 20)
    Target(file, 4 << 20, is_zero=True).write(bytes(1 << 20) + b"x" + bytes(1 << 20), 0)
    assert os.fstat(file).st_blocks * 512 <= 2 * BLOCK


def test_zeros_over_old_data_give_the_space_back(file):
    os.pwrite(file, b"x" * (1 << 20), 0)
    Target(file, 1 << 20, is_zero=False).zero(0, 1 << 20)
    assert os.pread(file, 1 << 20, 0) == bytes(1 << 20)
    assert os.fstat(file).st_blocks * 512 <= BLOCK


def test_zeros_are_written_where_no_hole_can_be_punched(file, monkeypatch):
    monkeypatch.setattr(room._libc, "fallocate", lambda *_: -1)
    os.pwrite(file, b"x" * (3 << 20), 0)
    Target(file, 3 << 20, is_zero=False).zero(1, (3 << 20) - 2)
    assert os.pread(file, 3 << 20, 0) == b"x" + bytes((3 << 20) - 2) + b"x"


@settings(deadline=None)
@given(blocks, st.integers(0, 3), st.integers(0, 3))
def test_data_runs_leave_out_long_holes_and_nothing_else(data, skip, less):
    start, end = skip * BLOCK, max(len(data) - less * BLOCK, skip * BLOCK)
    found = list(data_runs(data, start, end))
    written = bytearray(len(data))
    for first, last in found:
        assert start <= first < last <= end
        assert any(data[first : first + BLOCK])
        assert any(data[last - BLOCK : last])
        written[first:last] = data[first:last]
    assert written[start:end] == data[start:end]
    assert all(b[0] - a[1] >= SHORTEST_HOLE for a, b in pairwise(found))


def test_a_buffer_begins_at_a_page():
    for size in (4096, 1 << 20):
        buffer = Buffer(size)
        assert len(buffer.view) == size
        address = ctypes.addressof(ctypes.c_char.from_buffer(buffer.view))
        assert address % mmap.PAGESIZE == 0
        buffer.view[:] = b"x" * size
        assert buffer.memory.count(b"x") == size


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 700)), max_size=8))
def test_what_is_gathered_is_written_where_it_belongs(pieces):
    expected = bytearray(3 << 20)
    with tempfile.TemporaryFile() as file:
        os.truncate(file.fileno(), len(expected))
        target = Target(file.fileno(), len(expected), is_zero=True)
        with target.gather() as gather:
            end = 0
            for number, (gap, length) in enumerate(pieces, 1):
                start, end = end + gap * BLOCK, end + (gap + length) * BLOCK
                if end > len(expected):
                    break
                expected[start:end] = bytes([number]) * (end - start)
                gather.add(bytes([number]) * (end - start), start)
        assert os.pread(file.fileno(), len(expected), 0) == expected


def test_what_was_gathered_is_not_written_after_an_error(file):
    with pytest.raises(ValueError, match="x"), Target(file, 10, is_zero=True).gather() as gather:
        gather.add(b"data", 0)
        raise ValueError("x")
    assert os.pread(file, 10, 0) == b""


def is_direct(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)


@pytest.fixture
def direct(tmp_path):
    """A file of 4 MiB and a half block on a file system that can O_DIRECT."""
    with (tmp_path / "disk").open("w+b") as file:
        os.truncate(file.fileno(), (4 << 20) + 2048)
        target = Target(file.fileno(), (4 << 20) + 2048, is_zero=True)
        target.begin_direct()
        if not is_direct(file.fileno()):
            pytest.skip("the temporary directory's file system has no O_DIRECT")
        yield target


def test_what_is_written_past_the_page_cache_is_what_is_read(direct):
    data = os.urandom(3 << 20) + bytes(1 << 20) + os.urandom(2048)
    direct.write(data, 0)
    direct.sync()
    assert not is_direct(direct.fd)
    assert os.pread(direct.fd, len(data) + 1, 0) == data
    assert os.fstat(direct.fd).st_blocks * 512 <= (3 << 20) + 2 * BLOCK


def test_what_is_reserved_reads_as_zeros_and_is_written_over(direct):
    direct.reserve([(0, 1 << 20), (1 << 20, 1 << 20), (3 << 20, 4096)])
    assert os.fstat(direct.fd).st_blocks * 512 >= (2 << 20) + 4096
    direct.write(b"x" * 4096, 1 << 20)
    direct.sync()
    expected = bytearray(direct.size)
    expected[1 << 20 : (1 << 20) + 4096] = b"x" * 4096
    assert direct.read(0, direct.size) == expected


def test_nothing_is_reserved_where_the_page_cache_is_written(file):
    os.truncate(file, 1 << 20)
    Target(file, 1 << 20, is_zero=True).reserve([(0, 1 << 20)])
    assert os.fstat(file).st_blocks == 0


def test_a_disks_end_inside_a_block_is_written_when_direct_writing_ends(direct):
    direct.write(b"x" * 2048, 4 << 20)
    direct.end_direct()
    assert direct.read(4 << 20, 4096) == b"x" * 2048


def test_a_file_system_that_wants_more_of_o_direct_is_written_through_the_page_cache(
    direct, monkeypatch
):
    pwrite = os.pwrite

    def choosy(fd: int, view: memoryview, offset: int) -> int:
        if is_direct(fd):
            raise OSError(errno.EINVAL, "not like this")
        return pwrite(fd, view, offset)

    monkeypatch.setattr(os, "pwrite", choosy)
    direct.write(b"x" * 8192, 4096)
    direct.sync()
    assert direct.read(0, 16384) == bytes(4096) + b"x" * 8192 + bytes(4096)


def test_a_target_that_may_hold_old_data_is_written_through_the_page_cache(tmp_path):
    with (tmp_path / "disk").open("w+b") as file:
        Target(file.fileno(), 8192, is_zero=False).begin_direct()
        assert not is_direct(file.fileno())


def test_what_cannot_be_shared_says_so(file):
    reading, writing = os.pipe()
    try:
        target = Target(file, 10, is_zero=True)
        assert not target.clone(reading, 0, 0, 10)
        assert os.fstat(file).st_size == 0
    finally:
        os.close(reading)
        os.close(writing)


def test_a_full_disk_is_no_space():
    with Path("/dev/full").open("wb") as full:
        target = Target(full.fileno(), 10, is_zero=True)
        with pytest.raises(NoSpace, match="no space left"):
            target.write(b"x", 0)


def test_a_broken_disk_is_a_pool_that_is_unavailable_and_named_by_its_error():
    error = writer.failed(OSError(errno.EIO, "x"))
    assert type(error) is PoolUnavailable
    assert str(error) == "the pool does not take the disk: Input/output error"


def test_a_target_that_cannot_sync_is_an_error():
    reading, writing = os.pipe()
    try:
        with pytest.raises(Error, match="writing the disk failed: Invalid argument"):
            Target(writing, 10, is_zero=True).sync()
    finally:
        os.close(reading)
        os.close(writing)
