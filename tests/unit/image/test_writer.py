"""The sparse writer: every byte right, and no zero written that is there already."""

from __future__ import annotations

import errno
import os
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvirt_zfs_dbus.errors import Error, NoSpace, Truncated
from mvirt_zfs_dbus.image import writer
from mvirt_zfs_dbus.image.writer import BLOCK, Target, runs

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
    monkeypatch.setattr(writer._libc, "fallocate", lambda *_: -1)
    os.pwrite(file, b"x" * (3 << 20), 0)
    Target(file, 3 << 20, is_zero=False).zero(1, (3 << 20) - 2)
    assert os.pread(file, 3 << 20, 0) == b"x" + bytes((3 << 20) - 2) + b"x"


def test_a_file_is_copied_inside_the_kernel(file):
    data = os.urandom(1 << 20)
    with tempfile.TemporaryFile() as source:
        source.write(data)
        source.flush()
        assert Target(file, 1 << 20, is_zero=True).copy(source.fileno(), 100, 5000, 70000)
    assert os.pread(file, 80000, 0) == bytes(5000) + data[100:70100]


def test_a_copy_beyond_the_sources_end_is_truncated(file):
    with tempfile.TemporaryFile() as source:
        source.write(b"abc")
        source.flush()
        with pytest.raises(Truncated, match="ends at byte 3"):
            Target(file, 10, is_zero=True).copy(source.fileno(), 0, 0, 10)


def test_files_that_cannot_be_copied_in_the_kernel_say_so(file):
    reading, writing = os.pipe()
    try:
        assert not Target(file, 10, is_zero=True).copy(reading, 0, 0, 10)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_full_disk_is_no_space():
    with Path("/dev/full").open("wb") as full:
        target = Target(full.fileno(), 10, is_zero=True)
        with pytest.raises(NoSpace, match="no space left"):
            target.write(b"x", 0)


def test_a_broken_disk_is_named_by_its_error():
    error = writer.failed(OSError(errno.EIO, "x"))
    assert type(error) is Error
    assert str(error) == "writing the disk failed: Input/output error"


def test_a_target_that_cannot_sync_is_an_error():
    reading, writing = os.pipe()
    try:
        with pytest.raises(Error, match="writing the disk failed: Invalid argument"):
            Target(writing, 10, is_zero=True).sync()
    finally:
        os.close(reading)
        os.close(writing)
