"""The tools administrators have, and GDBus's object manager, on the toy service."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from .toy import HOUSE, LAMP, NAME, ROOT, Toy, path

pytestmark = pytest.mark.skipif(
    not (shutil.which("busctl") and shutil.which("gdbus")), reason="needs systemd and GLib's tools"
)


async def run(*command: str, status: int = 0) -> str:
    """What a tool prints, once it ended with this status."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == status, output.decode()
    return output.decode()


async def test_busctl_shows_the_tree_and_every_member(toy: Toy, bus_address: str) -> None:
    busctl = ("busctl", f"--address={bus_address}", "--no-pager")
    tree = await run(*busctl, "tree", "--list", NAME)
    assert set(tree.split()) == {
        *("/", "/org", "/org/example", ROOT, f"{ROOT}/lamp", path("a")),
    }
    members = await run(*busctl, "introspect", NAME, path("a"))
    assert ".SetLevel" in members
    assert "ta{sv}" in members
    assert [line.split() for line in members.splitlines() if ".Level" in line] == [
        [".Level", "property", "t", "0", "emits-change"]
    ]


async def test_busctl_calls_reads_and_is_told_what_is_wrong(toy: Toy, bus_address: str) -> None:
    busctl = ("busctl", f"--address={bus_address}")
    call = (*busctl, "call", NAME, path("a"), LAMP, "SetLevel", "ta{sv}")
    assert await run(*call, "5", "1", "slowly", "b", "true") == ""
    assert await run(*busctl, "get-property", NAME, path("a"), LAMP, "Level") == "t 5\n"
    refused = await run(*call, "5", "1", "fast", "b", "true", status=1)
    assert "option 'fast' is not known here; allowed: slowly (b)" in refused
    refused = await run(*busctl, "set-property", NAME, path("a"), LAMP, "Level", "t", "1", status=1)
    assert "cannot be set" in refused


async def test_gdbus_calls_and_introspects(toy: Toy, bus_address: str) -> None:
    at = (f"--address={bus_address}", f"--dest={NAME}")
    told = await run("gdbus", "introspect", *at, f"--object-path={ROOT}", "--recurse")
    assert "SetLevel(in  t level," in told
    echoed = await run(
        "gdbus", "call", *at, f"--object-path={ROOT}", f"--method={HOUSE}.Echo", "hello"
    )
    assert echoed == "('hello',)\n"


async def test_a_gdbus_object_manager_client_follows_the_objects(
    toy: Toy, bus_address: str
) -> None:
    client = f"""
from gi.repository import Gio, GLib
kind = Gio.DBusConnectionFlags
flags = kind.AUTHENTICATION_CLIENT | kind.MESSAGE_BUS_CONNECTION
bus = Gio.DBusConnection.new_for_address_sync("{bus_address}", flags, None, None)
manager = Gio.DBusObjectManagerClient.new_sync(
    bus, Gio.DBusObjectManagerClientFlags.NONE, "{NAME}", "{ROOT}", None, None, None)
loop = GLib.MainLoop()
def changed(_, lamp, proxy, properties, invalidated):
    print("changed", lamp.get_object_path(), properties.unpack(), flush=True)
def added(_, lamp):
    print("added", lamp.get_object_path(), flush=True)
def removed(_, lamp):
    print("removed", lamp.get_object_path(), flush=True)
    loop.quit()
manager.connect("interface-proxy-properties-changed", changed)
manager.connect("object-added", added)
manager.connect("object-removed", removed)
print("found", [lamp.get_object_path() for lamp in manager.get_objects()], flush=True)
loop.run()
"""
    process = await asyncio.create_subprocess_exec(
        "/usr/bin/python3", "-W", "ignore", "-c", client, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    lines = process.stdout
    assert (await lines.readline()).decode() == f"found ['{path('a')}']\n"
    toy.add("b")
    assert (await lines.readline()).decode() == f"added {path('b')}\n"
    toy.lights["b"].level = 2
    toy.tree.changed(path("b"))
    assert (await lines.readline()).decode() == f"changed {path('b')} {{'Level': 2}}\n"
    toy.remove("b")
    assert (await lines.readline()).decode() == f"removed {path('b')}\n"
    assert await process.wait() == 0
