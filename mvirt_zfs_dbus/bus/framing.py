"""Where messages begin and end in what comes from the bus, and which of them are not read.

Reading a message takes the event loop's time by its size: one of 24 MiB, which every local process
may send, holds it up for half a second. So a message is measured by its first 16 bytes, and one
that is too large goes by unread but for the header, which says whom to tell. And a flood of calls
that want no answer, which no bus holds back, goes by unread too.

Source: the D-Bus specification, "Message Protocol", "Message Format".
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

METHOD_CALL: Final = 1
SIGNAL: Final = 4
NO_REPLY_EXPECTED: Final = 1
_SENDER: Final = 7
"""Header field."""

_HEAD: Final = 16
"""Bytes up to and with the length of the header fields."""
_CHUNK: Final = 8 * 1024
"""Bytes read at a time: some 40 small messages, which is less than a turn's share of them."""
_LARGE_CHUNK: Final = 256 * 1024
"""Bytes of a large message that go by in a turn; about what a socket holds (socket(7))."""
_FDS_SPACE: Final = socket.CMSG_SPACE(253 * array.array("i").itemsize)
"""Room for SCM_MAX_FD fds, the most the kernel passes with one message (unix(7)). dbus-fast 1.84
has room for one."""
_CLOEXEC: Final = int(socket.MSG_CMSG_CLOEXEC)
_SENDER_FIELD: Final = bytes((_SENDER, 1)) + b"s\0"

Control = list[tuple[int, int, bytes]]
"""Ancillary data, as socket.recvmsg() has it."""
Received = tuple[bytes, Control, int, Any]


@dataclass(frozen=True, slots=True)
class LargeMessage:
    """What is known of a message that was not read."""

    kind: int
    flags: int
    serial: int
    size: int
    sender: str
    """Empty where the header does not say."""


@dataclass(slots=True)
class _Passing:
    """A large message that goes by."""

    head: bytes
    header: int
    """Bytes of header fields."""
    left: int
    """Bytes still to come."""
    fields: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        self.left -= len(data)
        self.fields += data[: self.header - len(self.fields)]


class Framing:
    """Hands the library the bytes it asks for, and no more than one message at a time.

    Passed fds go with the first byte of their message. The kernel ends what it gives at once after
    the bytes they came with, so they belong to the last message that begins in it.
    """

    def __init__(
        self,
        sock: socket.socket,
        may_read: Callable[[], bool],
        close_fds: Callable[[Iterable[int]], None],
    ) -> None:
        """``may_read``: whether there is time for more before the event loop goes on."""
        self._sock = sock
        self._may_read = may_read
        self._close_fds = close_fds
        self._largest: int | None = None
        self._too_large: Callable[[LargeMessage], None] | None = None
        self._floods: dict[str, float] = {}
        self._data = b""
        self._at = 0
        """How much of the data has been handed out."""
        self._end = 0
        """Where in the data, or after it, the present message ends."""
        self._fds: dict[int, Control] = {}
        """Where in the data a message begins that these came with."""
        self._passing: _Passing | None = None
        self._closed = False

    def limit(self, largest: int, too_large: Callable[[LargeMessage], None]) -> None:
        """From now on, have calls and signals of more than ``largest`` bytes go by unread."""
        self._largest = largest
        self._too_large = too_large

    def pass_over(self, sender: str, seconds: float) -> None:
        """For a while, have calls of this sender that want no answer go by unread."""
        if len(self._floods) > 1000:
            self._floods.clear()
        self._floods[sender] = time.monotonic() + seconds

    def recvmsg(self, size: int) -> Received:
        """As socket.recvmsg(). BlockingIOError: there is nothing for the library now."""
        if self._at >= self._end:
            self._begin()
            if self._closed:
                return b"", [], 0, None
        if self._at >= len(self._data):
            self._fill(min(_LARGE_CHUNK, self._end - self._at))
        start = self._at
        self._at = min(start + size, self._end, len(self._data))
        return self._data[start : self._at], self._fds.pop(start, []), 0, None

    def _begin(self) -> None:
        """Go to the next message that is read."""
        while not self._closed:
            if self._passing:
                self._pass(self._passing)
            while len(self._data) - self._at < _HEAD and not self._closed:
                self._fill(_CHUNK)
            if self._closed:
                return
            head = self._data[self._at : self._at + _HEAD]
            header, body = _lengths(head)
            self._end = self._at + _HEAD + header + body
            if self._is_too_large(head, header + body):
                self._pass_by(_Passing(head, header, header + body))
            elif self._floods and self._is_of_a_flood(head, header):
                self._skip()
            else:
                return

    def _fill(self, size: int) -> None:
        """Read on; what was handed out is forgotten."""
        if not self._may_read():
            raise _nothing_now()
        data, control, *_ = self._sock.recvmsg(size, _FDS_SPACE, _CLOEXEC)
        self._closed = not data
        self._end -= self._at
        self._fds = {start - self._at: fds for start, fds in self._fds.items()}
        self._data = self._data[self._at :] + data
        self._at = 0
        if control:
            self._fds[self._last_start()] = control

    def _last_start(self) -> int:
        start, after = 0, max(self._end, 0)
        while after < len(self._data):
            start = after
            if after + _HEAD > len(self._data):
                break
            after += _HEAD + sum(_lengths(self._data[after : after + _HEAD]))
        return start

    def _is_too_large(self, head: bytes, size: int) -> bool:
        return (
            self._largest is not None
            and _HEAD + size > self._largest
            and head[1] in (METHOD_CALL, SIGNAL)
        )

    def _is_of_a_flood(self, head: bytes, header: int) -> bool:
        if head[1] != METHOD_CALL or not head[2] & NO_REPLY_EXPECTED:
            return False
        fields = self._data[self._at + _HEAD : self._at + _HEAD + header]
        found = fields.rfind(_SENDER_FIELD)
        name = fields[found + len(_SENDER_FIELD) + 4 :].partition(b"\0")[0]
        until = self._floods.get(name.decode("ascii", "replace"))
        return until is not None and time.monotonic() < until and self._end <= len(self._data)

    def _skip(self) -> None:
        self._close(self._fds.pop(self._at, []))
        self._at = self._end

    def _pass_by(self, passing: _Passing) -> None:
        self._close(self._fds.pop(self._at, []))
        self._passing = passing
        self._at += _HEAD
        data = self._data[self._at : self._end]
        passing.add(data)
        self._at = self._end = self._at + len(data)
        self._pass(passing)

    def _pass(self, passing: _Passing) -> None:
        """One read a turn, so that everybody else gets to run in between."""
        if passing.left:
            data, control, *_ = self._sock.recvmsg(min(_LARGE_CHUNK, passing.left), _FDS_SPACE)
            self._close(control)
            self._closed = not data
            passing.add(data)
            if passing.left:
                raise _nothing_now()
        self._passing = None
        assert self._too_large
        self._too_large(_large_message(passing))

    def _close(self, control: Control) -> None:
        for level, kind, data in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                self._close_fds(fds)


def _order(head: bytes) -> str:
    return ">" if head[:1] == b"B" else "<"


def _lengths(head: bytes) -> tuple[int, int]:
    """Bytes of the header fields with the padding after them, and of the body."""
    body, _, fields = struct.unpack_from(_order(head) + "III", head, 4)
    return fields + -fields % 8, body


def _large_message(passing: _Passing) -> LargeMessage:
    head = passing.head
    body, serial, fields = struct.unpack_from(_order(head) + "III", head, 4)
    return LargeMessage(
        kind=head[1],
        flags=head[2],
        serial=serial,
        size=_HEAD + passing.header + body,
        sender=_sender(bytes(passing.fields[:fields]), _order(head)),
    )


def _sender(fields: bytes, order: str) -> str:
    """The sender among header fields, ``a(yv)``, each of which is a string, signature or number."""
    position = 0
    try:
        while position < len(fields):
            position += -position % 8
            code, kind = fields[position], fields[position + 2 : position + 3]
            position += 4  # the code, and a signature of one character: its length, itself, NUL
            if kind == b"g":
                position += fields[position] + 2
                continue
            position += -position % 4
            (number,) = struct.unpack_from(order + "I", fields, position)
            position += 4
            if kind == b"u":
                continue
            if code == _SENDER:
                return fields[position : position + number].decode("ascii")
            position += number + 1
    except (IndexError, struct.error, UnicodeDecodeError):
        return ""
    return ""


def _nothing_now() -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
