"""A client that does what none should, as fast as it can: ``python hostile.py ADDRESS ATTACK``.

It speaks D-Bus on a bare socket, since the libraries are too polite and too slow for it. Started by
root it becomes nobody first. It attacks until it is killed.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Final

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.bus.wire import BUS, BUS_PATH, Message, MessageFlag, Variant
from mvirt_zfs_dbus.names import Interface

NOBODY: Final = 65534
CONNECTIONS: Final = 8
PIPELINED: Final = 128
"""Calls without an answer yet; dbus-daemon(1), max_replies_per_connection."""
LARGE: Final = 24 * 2**20
"""Bytes; the system bus takes messages of up to 32 MiB."""
OBJECT_MANAGER: Final = "org.freedesktop.DBus.ObjectManager"
PROPERTIES: Final = "org.freedesktop.DBus.Properties"


class Socket:
    """One connection to the bus."""

    def __init__(self, address: str) -> None:
        path = address.removeprefix("unix:").partition(",")[0].partition("=")
        name = "\0" + path[2] if path[0] == "abstract" else path[2]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(name)
        self._serial = 0
        self._unread = bytearray()
        uid = str(os.getuid()).encode().hex()
        self._socket.sendall(f"\0AUTH EXTERNAL {uid}\r\n".encode())
        assert self._socket.recv(4096).startswith(b"OK")
        self._socket.sendall(b"BEGIN\r\n")
        self.send(Message(destination=BUS, path=BUS_PATH, interface=BUS, member="Hello"))
        self.read()

    def send(self, *messages: Message) -> None:
        self.send_bytes(b"".join(map(self.marshalled, messages)))

    def marshalled(self, message: Message) -> bytes:
        self._serial += 1
        message.serial = self._serial
        return bytes(message._marshall(False))

    def send_bytes(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close(self) -> None:
        self._socket.close()

    def read(self) -> int:
        """Wait for something and read what there is; answers how many answers came to their end."""
        data = self._socket.recv(1 << 20)
        if not data:
            sys.exit("the bus has closed the connection")
        self._unread += data
        answers, position = 0, 0
        while len(self._unread) - position >= 16:
            body, _, header = struct.unpack_from("<III", self._unread, position + 4)
            end = position + 16 + -(-header // 8) * 8 + body
            if end > len(self._unread):
                break
            answers += self._unread[position + 1] in (2, 3)  # METHOD_RETURN and ERROR
            position = end
        del self._unread[:position]
        return answers


def call(
    path: str, interface: str, member: str, signature: str = "", *body: object, quiet: bool = False
) -> Message:
    return Message(
        destination=names.BUS_NAME,
        path=path,
        interface=str(interface),
        member=member,
        signature=signature,
        body=list(body),
        flags=MessageFlag.NO_REPLY_EXPECTED if quiet else MessageFlag.NONE,
    )


def reads(quiet: bool = False) -> Message:
    return call(
        names.ROOT, PROPERTIES, "Get", "ss", Interface.MANAGER.value, "Version", quiet=quiet
    )


def bus_only() -> Message:
    """What the bus answers by itself: how much of a flood's harm is the bus's own."""
    return Message(
        destination=BUS,
        path=BUS_PATH,
        interface=BUS,
        member="GetId",
        flags=MessageFlag.NO_REPLY_EXPECTED,
    )


def changes() -> Message:
    return call(names.ROOT, Interface.MANAGER, "CreateVolume", "sta{sv}", "mine", 2**20, {})


def everything() -> Message:
    return call(names.ROOT, OBJECT_MANAGER, "GetManagedObjects")


def refreshes() -> Message:
    return call(names.ROOT, Interface.MANAGER, "Refresh", "a{sv}", {})


def lists() -> Message:
    return call(names.ROOT, Interface.MANAGER, "ListVolumes", "a{sv}", {})


def introspects() -> Message:
    return call(names.ROOT + "/volume", "org.freedesktop.DBus.Introspectable", "Introspect")


def large() -> Message:
    options = {str(number): Variant("y", 0) for number in range(LARGE // 24)}
    return call(names.ROOT, Interface.MANAGER, "Refresh", "a{sv}", options)


def pipelined(connections: list[Socket], make: Callable[[], Message], depth: int) -> Iterator[int]:
    """Keep ``depth`` calls of each connection without an answer."""
    waiting = dict.fromkeys(connections, 0)
    while True:
        for connection in connections:
            connection.send(*(make() for _ in range(depth - waiting[connection])))
            waiting[connection] = depth
        yield sum(waiting.values())
        for connection in connections:
            waiting[connection] -= connection.read()


def flood(connections: list[Socket], make: Callable[[], Message]) -> Iterator[int]:
    """The same bytes again and again, for calls that nobody answers."""
    data = b"".join(connections[0].marshalled(make()) for _ in range(1000))
    while True:
        for connection in connections:
            connection.send_bytes(data)
            yield 1000


def unread(connections: list[Socket], make: Callable[[], Message]) -> Iterator[int]:
    """Ask as much as the bus allows, and read no answer."""
    for connection in connections:
        connection.send(*(make() for _ in range(PIPELINED)))
    yield len(connections) * PIPELINED
    signal.pause()


def one_large(connections: list[Socket]) -> Iterator[int]:
    data = connections[0].marshalled(large())
    while True:
        connections[0].send_bytes(data)
        connections[0].read()
        yield 1


ATTACKS: Final[dict[str, Callable[[list[Socket]], Iterator[int]]]] = {
    "reads": lambda c: pipelined(c, reads, PIPELINED),
    "changes": lambda c: pipelined(c, changes, PIPELINED),
    "everything": lambda c: pipelined(c, everything, 2),
    "lists": lambda c: pipelined(c, lists, 16),
    "introspects": lambda c: pipelined(c, introspects, 16),
    "unread": lambda c: unread(c, everything),
    "refreshes": lambda c: pipelined(c, refreshes, PIPELINED),
    "no-reply": lambda c: flood(c, lambda: reads(quiet=True)),
    "large": one_large,
    "bus": lambda c: flood(c, bus_only),
}


def main(address: str, attack: str) -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    connections = [Socket(address) for _ in range(CONNECTIONS)]
    for turn, _ in enumerate(ATTACKS[attack](connections)):
        if turn == 0:
            print("attacking", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
