"""The clients people have: busctl, gdbus and GLib's object manager."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.names import Interface

from .process import MIB, Client

SYSTEM_PYTHON = "/usr/bin/python3"
"""Debian's, which has python3-gi whatever runs the tests."""


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.fixture
def busctl(bus_address: str) -> list[str]:
    return ["busctl", f"--address={bus_address}", "--no-pager"]


@pytest.fixture
def gdbus(bus_address: str) -> list[str]:
    return ["gdbus", "call", "--address", bus_address, "--dest", names.BUS_NAME]


async def test_busctl_tree_shows_every_object(client: Client, busctl: list[str]) -> None:
    volume = await client.create("web")
    snapshot = await client.snapshot(volume)
    tree = await run(*busctl, "tree", "--list", names.BUS_NAME)
    assert {names.ROOT, volume, snapshot} <= set(tree.split())


async def test_busctl_introspect_shows_members_and_values(
    client: Client, busctl: list[str]
) -> None:
    volume = await client.create("web", MIB)
    shown = await run(*busctl, "introspect", names.BUS_NAME, volume)
    assert ".Resize" in shown
    assert f"{MIB}" in next(line for line in shown.splitlines() if ".SizeBytes" in line)
    assert "emits-change" in next(line for line in shown.splitlines() if ".Name" in line)
    assert "const" in next(line for line in shown.splitlines() if ".CreatedAt" in line)


async def test_busctl_calls_and_reads(client: Client, busctl: list[str]) -> None:
    created = await run(
        *busctl, "call", names.BUS_NAME, names.ROOT, Interface.MANAGER, "CreateVolume", "sta{sv}",
        "web", str(MIB), "1", "labels", "a{ss}", "1", "owner", "me",
    )  # fmt: skip
    path = created.split()[1].strip('"')
    read = await run(
        *busctl, "--json=short", "get-property", names.BUS_NAME, path, Interface.VOLUME, "Labels"
    )
    assert json.loads(read) == {"type": "a{ss}", "data": {"owner": "me"}}


async def test_busctl_says_what_is_wrong(client: Client, busctl: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *busctl, "call", names.BUS_NAME, names.ROOT, Interface.MANAGER, "GetVolume", "s", "absent",
        stderr=subprocess.PIPE,
    )  # fmt: skip
    _, error = await process.communicate()
    assert process.returncode == 1
    assert "there is no volume with the name or id 'absent'" in error.decode()


async def test_gdbus_calls_and_introspects(client: Client, gdbus: list[str]) -> None:
    created = await run(
        *gdbus, "--object-path", names.ROOT, "--method", f"{Interface.MANAGER}.CreateVolume",
        "web", str(MIB), "{'thin': <true>}",
    )  # fmt: skip
    path = created.split("'")[1]
    everything = await run(
        *gdbus, "--object-path", path, "--method", "org.freedesktop.DBus.Properties.GetAll",
        Interface.VOLUME,
    )  # fmt: skip
    assert "'Name': <'web'>" in everything
    shown = await run("gdbus", "introspect", "--recurse", *gdbus[2:], "--object-path", names.ROOT)
    assert "CreateSnapshot(in  s name" in shown


async def test_gdbus_monitor_sees_what_changes(client: Client, bus_address: str) -> None:
    monitor = await asyncio.create_subprocess_exec(
        "gdbus", "monitor", "--address", bus_address, "--dest", names.BUS_NAME,
        stdout=subprocess.PIPE, env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip
    assert monitor.stdout
    while b"is owned by" not in await monitor.stdout.readline():
        pass
    volume = await client.create("web")
    line = b""
    while b"InterfacesAdded" not in line:
        line = await monitor.stdout.readline()
        assert line
    assert volume.encode() in line
    monitor.kill()
    await monitor.wait()


OBJECT_MANAGER_CLIENT = """
import sys
import gi
gi.require_version("Gio", "2.0")
from gi.repository import Gio, GLib

bus = Gio.DBusConnection.new_for_address_sync(
    sys.argv[1],
    Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION,
    None, None)
manager = Gio.DBusObjectManagerClient.new_sync(
    bus, Gio.DBusObjectManagerClientFlags.NONE, "org.mvirt.Zfs1", "/org/mvirt/Zfs1",
    None, None, None)
loop = GLib.MainLoop()

def say(*words):
    print(*words, flush=True)

def named(proxy):
    value = proxy.get_cached_property("Name")
    return value.get_string() if value else None

def added(manager, thing):
    proxy = thing.get_interface("org.mvirt.Zfs1.Volume")
    if proxy:
        say("added", named(proxy))

def changed(manager, thing, proxy, properties, invalidated):
    if properties.lookup_value("Name", None):
        say("renamed", named(proxy))

def removed(manager, thing):
    if thing.get_interface("org.mvirt.Zfs1.Volume"):
        say("removed")
        loop.quit()

manager.connect("object-added", added)
manager.connect("interface-proxy-properties-changed", changed)
manager.connect("object-removed", removed)
say("ready", *sorted(
    named(o.get_interface("org.mvirt.Zfs1.Volume"))
    for o in manager.get_objects() if o.get_interface("org.mvirt.Zfs1.Volume")))
GLib.timeout_add_seconds(60, lambda: sys.exit("nothing came"))
loop.run()
"""


async def test_glibs_object_manager_follows_a_volume_from_birth_to_death(
    client: Client, bus_address: str, tmp_path: Path
) -> None:
    await client.create("old")
    script = tmp_path / "client.py"
    script.write_text(OBJECT_MANAGER_CLIENT)
    glib = await asyncio.create_subprocess_exec(
        SYSTEM_PYTHON, str(script), bus_address, stdout=subprocess.PIPE
    )
    assert glib.stdout

    async def heard() -> str:
        return (await glib.stdout.readline()).decode().strip()  # type: ignore[union-attr]

    assert await heard() == "ready old"
    volume = await client.create("new")
    assert await heard() == "added new"
    await client.call(volume, Interface.VOLUME, "Rename", "sa{sv}", "newer", {})
    assert await heard() == "renamed newer"
    await client.call(volume, Interface.VOLUME, "Delete", "a{sv}", {})
    assert await heard() == "removed"
    assert await glib.wait() == 0
