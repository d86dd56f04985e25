"""Closing what may hang."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from hung_files import FLUSH, hung_files, needs_fuse

from mvirt_zfs_dbus import fds


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_pipe_is_closed_at_once() -> None:
    for fd in os.pipe():
        fds.close(fd)
        assert not is_open(fd)


def test_anything_else_is_closed_soon() -> None:
    for _ in range(3 * fds.MAX_THREADS):
        ours, theirs = socket.socketpair()
        with ours:
            fds.close(theirs.detach())
            assert ours.recv(1) == b""  # the end


def test_what_is_closed_already_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    fds.close(reader)
    os.close(writer)


def test_a_socket_that_still_has_to_send_does_not_hold_anybody_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    linger = struct.pack("ii", 1, 3600)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            client.send(bytes(1 << 20))
    fds.close(client.detach())
    accepted.setblocking(True)
    with accepted:
        while accepted.recv(1 << 20):
            pass


@needs_fuse
def test_a_file_system_that_does_not_answer_holds_nobody_up(tmp_path: Path) -> None:
    with hung_files(tmp_path / "hung") as files:
        opened = [os.open(files.path, os.O_RDONLY) for _ in range(fds.MAX_THREADS + 10)]
        files.hung = {FLUSH}
        for fd in opened[:-20]:
            fds.close(fd)
        assert files.hanging.wait(60)
        ours, theirs = socket.socketpair()
        with ours:
            fds.close(theirs.detach())
            assert ours.recv(1) == b""
        before = threading.active_count()
        for fd in opened[-20:]:  # now there are more than threads
            fds.close(fd)
        assert threading.active_count() <= before + 20
        ours, theirs = socket.socketpair()
        fds.close(theirs.detach())
    with ours:  # the file system is gone, and everything goes on
        assert ours.recv(1) == b""
    end = time.monotonic() + 60
    while any(map(is_open, opened)):  # nothing tells when the threads have closed them
        assert time.monotonic() < end
        time.sleep(0.001)
