"""Sources: what can seek, what cannot, and what is no source."""

from __future__ import annotations

import os
import socket
import tempfile
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvirt_zfs_dbus.errors import Error, InvalidArgs, Truncated
from mvirt_zfs_dbus.image.source import CHUNK, HEAD, Seekable, Stream, open_source


@pytest.fixture
def file():
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:
            continue


def feed(fd: int, data: bytes) -> threading.Thread:
    def write() -> None:
        with os.fdopen(fd, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_a_file_is_seekable_and_has_a_size(file):
    os.pwrite(file, b"abc", 0)
    source = open_source(file)
    assert isinstance(source, Seekable)
    assert source.size == 3
    assert source.head() == b"abc"


def test_pipes_and_sockets_are_streams(pipe):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert isinstance(open_source(ours.fileno()), Stream)
    assert isinstance(open_source(pipe[0]), Stream)


@pytest.mark.parametrize("path", ["/dev/null", "/"])
def test_anything_else_is_refused(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(InvalidArgs, match="neither a file, a block device"):
            open_source(fd)
    finally:
        os.close(fd)


def test_a_file_that_is_not_open_for_reading_is_refused(tmp_path):
    fd = os.open(tmp_path / "x", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"abc")
    try:
        with pytest.raises(InvalidArgs, match="not open for reading"):
            open_source(fd).head()
    finally:
        os.close(fd)


def test_a_socket_without_a_peer_is_an_error():
    with socket.socket() as lonely, pytest.raises(Error, match="reading the source failed"):
        open_source(lonely.fileno()).head()


def test_reading_beyond_the_end_is_truncated(file):
    os.pwrite(file, b"abc", 0)
    with pytest.raises(Truncated, match="ends at byte 3 where at least 5"):
        open_source(file).read(1, 4)


def test_a_file_that_shrank_meanwhile_is_truncated(file):
    os.truncate(file, 100)
    source = open_source(file)
    source.check_size()
    os.truncate(file, 99)
    with pytest.raises(Truncated, match="became shorter"):
        source.check_size()


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=8))
def test_extents_and_holes_are_those_of_the_file(parts):
    with tempfile.TemporaryFile() as file:
        position = 0
        for is_data, blocks in parts:
            if is_data:
                os.pwrite(file.fileno(), b"x" * blocks * 4096, position)
            position += blocks * 4096
        os.truncate(file.fileno(), position)
        source = open_source(file.fileno())
        found = bytearray(position)
        for start, end in source.extents():
            found[start:end] = source.read(start, end - start)
        assert bytes(found) == os.pread(file.fileno(), position, 0)
        assert sum(end - start for start, end in source.extents()) <= position


def test_a_sparse_file_has_few_extents(file):
    os.truncate(file, 1 << 40)
    os.pwrite(file, b"x", 1 << 30)
    assert sum(end - start for start, end in open_source(file).extents()) <= 1 << 20


def test_a_stream_gives_every_byte_once_though_its_head_was_looked_at(pipe):
    data = os.urandom(3 * CHUNK + 17)
    thread = feed(pipe[1], data)
    source = Stream(pipe[0])
    assert source.head() == data[:HEAD]
    assert source.head() == data[:HEAD]
    assert b"".join(source.chunks()) == data
    assert source.received == len(data)
    thread.join()


def test_a_stream_shorter_than_a_head_is_all_head(pipe):
    feed(pipe[1], b"abc").join()
    source = Stream(pipe[0])
    assert source.head() == b"abc"
    assert list(source.chunks()) == [b"abc"]


def test_a_non_blocking_pipe_is_waited_for_and_stays_non_blocking(pipe):
    os.set_blocking(pipe[0], False)
    source = Stream(pipe[0])
    heads = []
    reading = threading.Thread(target=lambda: heads.append(source.head()))
    reading.start()
    feed(pipe[1], b"abc").join()
    reading.join()
    assert heads == [b"abc"]
    assert not os.get_blocking(pipe[0])


def test_a_stream_that_ends_before_its_length_is_truncated(pipe):
    feed(pipe[1], b"abc").join()
    with pytest.raises(Truncated, match="after 3 of 4 bytes"):
        list(Stream(pipe[0], 4).chunks())


def test_a_stream_longer_than_its_length_is_an_error(pipe):
    feed(pipe[1], b"abc").join()
    with pytest.raises(Error, match="more than the announced 2 bytes"):
        list(Stream(pipe[0], 2).chunks())


@pytest.mark.parametrize("offset", [4, 1 << 40, 1 << 63, 1 << 80])
def test_what_lies_beyond_a_files_end_is_truncated_however_far_away(offset):
    with tempfile.TemporaryFile() as file:
        file.write(b"data")
        file.flush()
        source = open_source(file.fileno())
        assert isinstance(source, Seekable)
        with pytest.raises(Truncated, match="ends at byte"):
            source.read(offset, 10)
