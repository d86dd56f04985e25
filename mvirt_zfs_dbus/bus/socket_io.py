"""The two ends of the bus's socket: a writer that waits, and a reader that gives way.

The D-Bus libraries' own writer ends the connection when the socket is full (``EAGAIN``), dbus-fast
1.84 sends what had to wait in reverse order, and their reader does not return to the event loop
before the socket is empty, which under a flood of calls is never.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from ..fds import close
from .framing import Framing, Received

MESSAGES_PER_TURN: Final = 64
"""Messages read in one turn of the event loop, before everybody else gets theirs."""
READS_PER_TURN: Final = 32
"""Reads in one turn, for what is not even read as messages."""

_BUFFERS_PER_SEND: Final = 256
"""Buffers in one sendmsg(2); the kernel takes at most IOV_MAX, which is 1024."""


def close_fds(fds: Iterable[int]) -> None:
    """What came with a message, from anybody: a file system that hangs must not hold up the bus."""
    for fd in fds:
        close(fd)


class SocketWriter:
    """Sends buffers in order through a non-blocking socket, and waits when it is full.

    Buffers written in one turn of the event loop leave together at its end. ``failed`` is told why
    no more can be sent, unless the socket's owner has closed it.
    """

    def __init__(self, sock: socket.socket, failed: Callable[[OSError], None]) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[memoryview, list[int]]] = deque()
        self._scheduled = False
        self._waiting = False
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()
        self.backlog = 0
        """Bytes that wait to be sent."""

    def write(self, data: bytes | bytearray, fds: Sequence[int] = ()) -> None:
        """Send ``data`` after all that was written before, with copies of ``fds``."""
        if self._closed:
            return
        self._queue.append((memoryview(data), [os.dup(fd) for fd in fds]))
        self.backlog += len(data)
        self._empty.clear()
        if not (self._scheduled or self._waiting):
            self._scheduled = True
            self._loop.call_soon(self._flush)

    async def drained(self) -> None:
        """Wait until everything written has left, or the writer was closed."""
        await self._empty.wait()

    def close(self) -> None:
        """Forget what was not sent yet. The socket is its owner's to close."""
        self._closed = True
        self._wait(False)
        for _, fds in self._queue:
            close_fds(fds)
        self._queue.clear()
        self.backlog = 0
        self._empty.set()

    def _flush(self) -> None:
        self._scheduled = False
        try:
            while self._queue:
                self._send()
        except (BlockingIOError, InterruptedError):
            self._wait(True)
        except OSError as error:
            self.close()
            if self._sock.fileno() >= 0:
                self._failed(error)
        else:
            self._wait(False)
            self._empty.set()

    def _send(self) -> None:
        """One sendmsg(2). Passed fds travel with the first byte of the message they belong to."""
        _, fds = self._queue[0]
        if fds:
            buffers = [self._queue[0][0]]
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            sent = self._sock.sendmsg(buffers, control)
            close_fds(fds)
            fds.clear()
        else:
            sent = self._sock.sendmsg(self._next_without_fds())
        self._forget(sent)

    def _next_without_fds(self) -> list[memoryview]:
        buffers: list[memoryview] = []
        for data, fds in self._queue:
            if fds or len(buffers) == _BUFFERS_PER_SEND:
                break
            buffers.append(data)
        return buffers

    def _forget(self, sent: int) -> None:
        self.backlog -= sent
        while sent:
            data, fds = self._queue[0]
            if sent < len(data):
                self._queue[0] = (data[sent:], fds)
                return
            sent -= len(data)
            self._queue.popleft()

    def _wait(self, wait: bool) -> None:
        if wait and not self._waiting and not self._closed:
            self._loop.add_writer(self._fd, self._flush)
        elif self._waiting and not wait:
            self._loop.remove_writer(self._fd)
        self._waiting = wait


class PacedSocket:
    """A socket whose ``recvmsg`` says "nothing more for now" when a turn has had its share.

    The event loop polls the socket again in its next turn, so nothing is lost and everybody else
    gets to run in between. Everything but ``recvmsg`` is the socket's own.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.framing = Framing(sock, self._may_read, close_fds)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._messages = 0
        self._reads = 0

    def count_message(self) -> None:
        """Take a message off the share of this turn."""
        self._messages += 1

    def recvmsg(self, size: int, _: int = 0, flags: int = 0) -> Received:
        """As :meth:`Framing.recvmsg`."""
        return self.framing.recvmsg(size)

    def _may_read(self) -> bool:
        """Messages that are not read take a share as well, of the reads."""
        if not self._reads:
            self._loop.call_soon(self._next_turn)
        self._reads += 1
        return self._messages < MESSAGES_PER_TURN and self._reads <= READS_PER_TURN

    def _next_turn(self) -> None:
        self._messages = self._reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
