"""The D-Bus library: dbus-fast, or dbus-next where only that is installed.

Both are used at the level of messages: they authenticate, read and build messages. This file also
has what evens out their differences; the rest of the package takes all of it from :mod:`.wire`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

from ..errors import LimitsExceeded
from .socket_io import PacedSocket

if TYPE_CHECKING:
    from dbus_fast import Message, MessageFlag, MessageType, Variant, constants
    from dbus_fast.aio.message_bus import MessageBus
else:
    try:
        from dbus_fast import Message, MessageFlag, MessageType, Variant, constants
        from dbus_fast.aio import MessageBus
    except ImportError:
        from dbus_next import Message, MessageFlag, MessageType, Variant, constants
        from dbus_next.aio import MessageBus

__all__ = [
    "Bus",
    "Message",
    "MessageFlag",
    "MessageType",
    "Variant",
    "bus_address",
    "countable",
    "marshalled",
    "unpacked",
]

_LONGEST_LINE: Final = 16384
"""Bytes that a bus says in one line of its handshake, at most: libdbus's own bound for both ends
(MAX_BUFFER in dbus-auth.c)."""

LARGEST_SENT: Final = 32 * 2**20
"""Bytes; dbus-daemon's system bus ends a connection over more (max_message_size in its
bus/config-parser.c). dbus-broker takes 128 MiB, as the specification does."""

for _flags in range(256):
    # The specification: unknown flags must be ignored. dbus-fast 1.84 would end the connection.
    getattr(constants, "MESSAGE_FLAG_MAP", {}).setdefault(_flags, MessageFlag(_flags & 7))


def bus_address(bus: str) -> str:
    """The address of the system or session bus, as sd_bus_open_system(3) and its like find it."""
    if bus == "system":
        default = "unix:path=/run/dbus/system_bus_socket"
        return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or default
    if bus == "session":
        default = f"unix:path={os.environ.get('XDG_RUNTIME_DIR', '')}/bus"
        return os.environ.get("DBUS_SESSION_BUS_ADDRESS") or default
    return bus


class Bus(MessageBus):
    """The library's connection, reading through a PacedSocket once it is authenticated."""

    def __init__(self, address: str, *, passes_fds: bool = True) -> None:
        self.raw_socket: Any = None
        try:
            super().__init__(bus_address=address, negotiate_unix_fd=passes_fds)
        except BaseException:
            self.close_socket()
            raise

    async def open(self) -> None:
        try:
            await self.connect()
        except BaseException:
            self.close_socket()
            raise

    @property
    def paced_socket(self) -> PacedSocket:
        assert isinstance(self._sock, PacedSocket)
        return self._sock

    async def disconnected(self) -> None:
        """Return when an end has closed the connection, or raise what else ended it."""
        with contextlib.suppress(EOFError):
            await self.wait_for_disconnect()  # type: ignore[no-untyped-call]

    def close_socket(self) -> None:
        """What the library does by itself in some of its versions only."""
        for name in ("_stream", "_sock"):
            opened = getattr(self, name, None)
            if opened is not None:
                opened.close()

    async def _auth_readline(self) -> str:
        """One line of the other end. dbus-next and dbus-fast 1.84 wait for it for ever, without
        giving way to anybody, once the other end has gone."""
        loop = asyncio.get_running_loop()
        line = b""
        while not line.endswith(b"\r\n"):
            piece = await loop.sock_recv(self._sock, 1)
            if not piece:
                raise ConnectionError("it ended the connection before it had let us in")
            if len(line) == _LONGEST_LINE:
                raise ConnectionError("what it says is no handshake of D-Bus")
            line += piece
        return line[:-2].decode()

    async def _authenticate(self) -> None:
        await super()._authenticate()
        self.raw_socket = self._sock
        self._sock: Any = PacedSocket(self.raw_socket)


def unpacked(value: Any) -> Any:
    """A value with every Variant in it replaced by what it holds."""
    if isinstance(value, Variant):
        return unpacked(value.value)
    if isinstance(value, dict):
        return {key: unpacked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unpacked(item) for item in value]
    return value


def marshalled(message: Message, *, counted: bool = False) -> bytes | bytearray:
    """The message as it is sent. LimitsExceeded: it is larger than a bus takes.

    dbus-fast 1.84 tells the length of a text in characters, not bytes; dbus-daemon disconnects
    whoever sends that. ``counted``: every text in the body is known to be :func:`countable`, so
    that they need not be looked for, which takes longer than all else.
    """
    if _MISCOUNTS and not counted:
        message.body = _counted(message.body)
    data = message._marshall(True)
    check_size(len(data))
    return data


def check_size(size: int) -> None:
    """LimitsExceeded: a message of so many bytes is more than a bus takes."""
    if size > LARGEST_SENT:
        raise LimitsExceeded(
            f"a message of {size} bytes is more than the {LARGEST_SENT} a bus takes"
        )


class _Counted(str):
    """A text whose length is that of its UTF-8."""

    def __len__(self) -> int:
        return len(self.encode())


def countable(text: str) -> str:
    """A text that goes out with its right length."""
    return _Counted(text) if _MISCOUNTS and not text.isascii() else text


def _counted(value: Any) -> Any:
    if isinstance(value, str):
        return countable(value)
    if isinstance(value, Variant):
        return Variant(value.signature, _counted(value.value))
    if isinstance(value, dict):
        return {_counted(key): _counted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_counted(item) for item in value]
    return value


def _miscounts() -> bool:
    message = Message(destination="a.a", path="/", member="a", signature="s", body=["ä"], serial=1)
    return not bytes(message._marshall(False)).endswith(b"\2\0\0\0\xc3\xa4\0")


_MISCOUNTS = _miscounts()
