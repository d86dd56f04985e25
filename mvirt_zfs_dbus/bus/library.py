"""The D-Bus library: dbus-fast, or dbus-next where only that is installed.

Both are used at the level of messages: they authenticate, read and build messages. This file also
has what evens out their differences; the rest of the package takes all of it from :mod:`.wire`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .socket_io import PacedSocket

if TYPE_CHECKING:
    from dbus_fast import Message, MessageFlag, MessageType, Variant, constants
    from dbus_fast.aio import MessageBus
else:
    try:
        from dbus_fast import Message, MessageFlag, MessageType, Variant, constants
        from dbus_fast.aio import MessageBus
    except ImportError:
        from dbus_next import Message, MessageFlag, MessageType, Variant, constants
        from dbus_next.aio import MessageBus

__all__ = ["Bus", "Message", "MessageFlag", "MessageType", "Variant", "bus_address", "unpacked"]

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
        """Return when the connection has ended, or raise what ended it."""
        await self.wait_for_disconnect()  # type: ignore[no-untyped-call]

    def close_socket(self) -> None:
        """What the library does by itself in some of its versions only."""
        for name in ("_stream", "_sock"):
            opened = getattr(self, name, None)
            if opened is not None:
                opened.close()

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
