"""A client of the bus that reads replies and looks at nothing but their size.

What it measures is the service and the bus alone: most clients take longer to make objects of a
large reply than the service takes to write it.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from mvirt_zfs_dbus.bus.library import Message, marshalled
from mvirt_zfs_dbus.names import BUS_NAME

_HEAD: Final = 16
"""Bytes of a message up to and with the length of its header fields (D-Bus specification)."""
_RETURN, _ERROR, _SIGNAL = 2, 3, 4
_CHUNK: Final = 1 << 20
_TIMEOUT: Final = 120.0
"""Seconds without a byte."""


class CallFailed(Exception):
    """A call was answered with an error; the message has its bytes."""


@dataclass(frozen=True, slots=True)
class Reply:
    seconds: float
    """From the call to the reply's last byte."""
    size: int
    """Bytes."""
    signals: int
    """Signals that came between the two."""
    start: bytes
    """Of the reply, as it came."""


class RawClient:
    """Blocking; one call at a time."""

    def __init__(self, address: str) -> None:
        """``address``: ``unix:path=PATH``, where nobody else may be between."""
        self._serial = 0
        self._data = bytearray()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_TIMEOUT)
        self._socket.connect(address.removeprefix("unix:path=").partition(",")[0])
        self._authenticate()
        self.call("Hello", to="org.freedesktop.DBus", path="/org/freedesktop/DBus")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def listen(self, rule: str) -> None:
        """Have signals sent here; they are counted while a call waits for its reply."""
        bus = "org.freedesktop.DBus"
        self.call("AddMatch", "s", rule, to=bus, path="/org/freedesktop/DBus", interface=bus)

    def call(
        self,
        member: str,
        signature: str = "",
        *body: Any,
        path: str,
        interface: str = "org.freedesktop.DBus",
        to: str = BUS_NAME,
    ) -> Reply:
        """CallFailed: the answer is an error."""
        self._serial += 1
        message = Message(
            destination=to,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
            serial=self._serial,
        )
        data = marshalled(message)
        began = time.perf_counter()
        self._socket.sendall(data)
        signals = 0
        while True:
            kind, size, start = self._read()
            if kind == _SIGNAL:
                signals += 1
            elif kind == _ERROR:
                raise CallFailed(f"{member}: {start!r}")
            elif kind == _RETURN:
                return Reply(time.perf_counter() - began, size, signals, start)

    def _authenticate(self) -> None:
        self._socket.sendall(b"\0AUTH EXTERNAL %s\r\n" % str(os.getuid()).encode().hex().encode())
        answer = self._socket.recv(1024)
        if not answer.startswith(b"OK"):
            raise CallFailed(f"the bus answers {answer!r}")
        self._socket.sendall(b"BEGIN\r\n")

    def _read(self) -> tuple[int, int, bytes]:
        """The kind and size of the next message, and its first bytes."""
        self._fill(_HEAD)
        order = "<" if self._data[:1] == b"l" else ">"
        body, _serial, fields = struct.unpack_from(f"{order}III", self._data, 4)
        size = _HEAD + (fields + 7) // 8 * 8 + body
        self._fill(size)
        kind, start = self._data[1], bytes(self._data[:400])
        del self._data[:size]
        return kind, size, start

    def _fill(self, size: int) -> None:
        while len(self._data) < size:
            received = self._socket.recv(_CHUNK)
            if not received:
                raise CallFailed("the bus has closed the connection")
            self._data += received
