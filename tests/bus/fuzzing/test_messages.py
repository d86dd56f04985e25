"""Messages as no library makes them, and as every bus passes them on."""

from __future__ import annotations

import asyncio
import struct
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hostile import Socket
from service.process import Client, ServiceProcess

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.names import Interface

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ImportWarning)
    gio = pytest.importorskip("gi.repository.Gio", reason="python3-gi is not installed")
    glib = pytest.importorskip("gi.repository.GLib")


class Raw:
    """A connection whose messages are bytes; a bus that does not like one ends it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket = Socket(address)
        self._serial = 100

    def send(self, data: bytes) -> None:
        self._socket.send_bytes(data)

    def close(self) -> None:
        self._socket.close()

    def message(
        self,
        signature: str,
        body: bytes,
        *,
        member: str = "Refresh",
        flags: int = 0,
        more_fields: bytes = b"",
    ) -> bytes:
        self._serial += 1
        fields = b""
        for code, kind, text in (
            (1, b"o", names.ROOT),
            (2, b"s", str(Interface.MANAGER)),
            (3, b"s", member),
            (6, b"s", names.BUS_NAME),
        ):
            fields += bytes(-len(fields) % 8) + bytes((code, 1)) + kind + b"\0"
            fields += struct.pack("<I", len(text)) + text.encode() + b"\0"
        fields += bytes(-len(fields) % 8) + b"\x08\x01g\0"
        fields += bytes((len(signature),)) + signature.encode() + b"\0"
        if more_fields:
            fields += bytes(-len(fields) % 8) + more_fields
        head = struct.pack("<cBBBIII", b"l", 1, flags, 1, len(body), self._serial, len(fields))
        return head + fields + bytes(-len(fields) % 8) + body


@pytest.fixture
def raw(service: ServiceProcess) -> Iterator[Raw]:
    connection = Raw(service.address)
    yield connection
    connection.close()


async def still_well(client: Client, service: ServiceProcess) -> None:
    assert await client.get(names.ROOT, Interface.MANAGER, "Version")
    assert service.process
    assert service.process.returncode is None
    assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize("depth", [1, 31, 32, 33, 60, 61, 62, 63, 64])
async def test_variants_in_variants(
    raw: Raw, client: Client, service: ServiceProcess, depth: int
) -> None:
    """The bus ends a connection over more than 64 containers in one another."""
    body = b"\x01v\0" * (depth - 1) + b"\x01y\0" + b"\x07"
    for signature in ("v", "a{sv}"):
        if signature == "a{sv}":
            entry = struct.pack("<I", 1) + b"k\0" + body
            body = struct.pack("<II", len(entry), 0) + entry
        raw.send(raw.message(signature, body))
        await still_well(client, service)


@pytest.mark.parametrize("depth", [1, 16, 31, 32])
async def test_arrays_and_structures_in_one_another(
    raw: Raw, client: Client, service: ServiceProcess, depth: int
) -> None:
    raw.send(raw.message("a" * depth + "y", struct.pack("<I", 0)))
    await still_well(client, service)
    raw.send(raw.message("(" * depth + "y" + ")" * depth, b"\x07"))
    await still_well(client, service)
    nested = "a(" * depth + "y" + ")" * depth
    raw.send(raw.message(nested, struct.pack("<II", 0, 0)))
    await still_well(client, service)


async def test_all_flags_and_unknown_header_fields(
    raw: Raw, client: Client, service: ServiceProcess
) -> None:
    for flags in range(256):
        raw.send(raw.message("a{sv}", struct.pack("<II", 0, 0), flags=flags))
    for code in range(11, 256, 7):
        field = bytes((code, 1)) + b"s\0" + struct.pack("<I", 3) + b"odd\0"
        raw.send(raw.message("a{sv}", struct.pack("<II", 0, 0), more_fields=field))
    await still_well(client, service)


@pytest.mark.parametrize(
    ("path", "interface", "member", "body"),
    [
        (names.ROOT, "org.freedesktop.DBus.Properties", "GetAll", ("(s)", ("",))),
        (names.ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", None),
        (
            names.ROOT,
            str(Interface.MANAGER),
            "CreateVolume",
            ("(sta{sv})", ("web", 2**20, {"labels": glib.Variant("a{ss}", {"a": "b"})})),
        ),
        (names.ROOT, str(Interface.MANAGER), "Refresh", ("(xndaay)", (-1, -2, 0.5, [b"a", b""]))),
    ],
)
async def test_numbers_with_their_large_end_first(
    raw: Raw,
    client: Client,
    service: ServiceProcess,
    path: str,
    interface: str,
    member: str,
    body: Any,
) -> None:
    message = gio.DBusMessage.new_method_call(names.BUS_NAME, path, interface, member)
    message.set_byte_order(gio.DBusMessageByteOrder.BIG_ENDIAN)
    message.set_serial(7)
    if body:
        message.set_body(glib.Variant(*body))
    raw.send(bytes(message.to_blob(gio.DBusCapabilityFlags.NONE)))
    while not await asyncio.to_thread(raw._socket.read):
        pass  # it was told its name
    await still_well(client, service)
    volumes = await client.manager("ListVolumes", "a{sv}", {})
    assert len(volumes) == (member == "CreateVolume")
