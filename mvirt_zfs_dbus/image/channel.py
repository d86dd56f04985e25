"""How messages and file descriptors travel between processes.

An AF_UNIX SOCK_SEQPACKET socket keeps frames apart, and file descriptors go beside them
(SCM_RIGHTS, unix(7)).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from ..errors import Error
from .protocol import MAX_FRAME, Message, decode, encode

MAX_FDS: Final = 4
_FD_SIZE: Final = array("i").itemsize

Received = tuple[Message, list[int]]


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    socket.send_fds(sock, [encode(message)], list(fds))


def receive(sock: socket.socket) -> Received:
    """The next message and its file descriptors, which the caller then owns.

    EOFError: the other end is closed. Error: what came is no message.
    """
    try:
        # Not socket.recv_fds(): Python 3.11's drops the flags.
        data, ancillary, flags, _ = sock.recvmsg(
            MAX_FRAME, socket.CMSG_SPACE(MAX_FDS * _FD_SIZE), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError as error:
        raise EOFError from error
    fds = list(_passed(ancillary))
    try:
        if flags & socket.MSG_TRUNC:
            raise Error(f"an import worker sent a message of more than {MAX_FRAME} bytes")
        if not data:
            raise EOFError
        message = decode(data)
        if flags & socket.MSG_CTRUNC or len(fds) != message.fds:
            raise Error(
                f"an import worker sent a {type(message).__name__} message with"
                f" {len(fds)} file descriptors in place of {message.fds}"
            )
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return message, fds


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _passed(ancillary: Iterable[tuple[int, int, bytes]]) -> Iterator[int]:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds = array("i")
            fds.frombytes(data[: len(data) - len(data) % _FD_SIZE])
            yield from fds


Expected = TypeVar("Expected", bound=Message)


class Connection:
    """The worker's end: it blocks."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        send(self._sock, message, fds)

    def receive(self) -> Received:
        """As :func:`receive`."""
        return receive(self._sock)

    def expect(self, cls: type[Expected]) -> tuple[Expected, list[int]]:
        """The next message, which must be of this class."""
        message, fds = self.receive()
        if not isinstance(message, cls):
            for fd in fds:
                os.close(fd)
            raise Error(f"{cls.__name__} was expected, {type(message).__name__} came")
        return message, fds


class AsyncConnection:
    """The daemon's end. One task at a time may send, and one receive."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    async def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """BrokenPipeError: the other end is closed."""
        while True:
            try:
                return send(self._sock, message, fds)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await _ready(self._sock, loop.add_writer, loop.remove_writer)

    async def receive(self) -> Received:
        """As :func:`receive`."""
        while True:
            try:
                return receive(self._sock)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await _ready(self._sock, loop.add_reader, loop.remove_reader)

    def fileno(self) -> int:
        return self._sock.fileno()

    def finish_sending(self) -> None:
        """Let the other end see that nothing comes any more; it can still be heard."""
        with contextlib.suppress(OSError):  # closed already
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()


async def _ready(
    sock: socket.socket,
    add: Callable[..., None],
    remove: Callable[[socket.socket], bool],
) -> None:
    ready = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    add(sock, wake)
    try:
        await ready
    finally:
        remove(sock)
