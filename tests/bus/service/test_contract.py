"""The running service says of itself what the contract in ``data/dbus-1/interfaces/`` says."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.names import Interface

from .process import Client

CONTRACT = Path(__file__).parents[3] / "data" / "dbus-1" / "interfaces"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"

Said = dict[tuple[str, str], object]


def members(interface: ET.Element) -> Said:
    """Everything an interface says that a client can rely on."""
    said: Said = {}
    for method in interface.findall("method"):
        said["method", method.attrib["name"]] = [
            (arg.attrib["name"], arg.attrib["type"], arg.get("direction", "in"))
            for arg in method.findall("arg")
        ]
    for signal in interface.findall("signal"):
        said["signal", signal.attrib["name"]] = [
            (arg.attrib["name"], arg.attrib["type"]) for arg in signal.findall("arg")
        ]
    for prop in interface.findall("property"):
        emits = [a.attrib["value"] for a in prop.findall("annotation") if a.attrib["name"] == EMITS]
        said["property", prop.attrib["name"]] = (
            prop.attrib["type"],
            prop.attrib["access"],
            *emits,
        )
    return said


def contract(name: str) -> Said:
    root = ET.parse(CONTRACT / f"{name}.xml").getroot()
    return next(members(found) for found in root if found.get("name") == name)


async def introspected(client: Client, path: str) -> ET.Element:
    return ET.fromstring(await client.call(path, INTROSPECTABLE, "Introspect"))


@pytest.fixture
async def one_of_each(client: Client, image: Path) -> dict[str, str]:
    """An object of every kind, by its interface."""
    volume = await client.create("web")
    snapshot = await client.snapshot(volume)
    job = await client.import_path("imported", image)
    await client.completed(job)
    return {
        Interface.MANAGER: names.ROOT,
        Interface.POOL: (await client.get(names.ROOT, Interface.MANAGER, "Pools"))[0],
        Interface.VOLUME: volume,
        Interface.SNAPSHOT: snapshot,
        Interface.TEMPLATE: await client.template(snapshot),
        Interface.JOB: job,
    }


async def test_every_interface_is_the_contracts_to_the_letter(
    client: Client, one_of_each: dict[str, str]
) -> None:
    assert set(one_of_each) == set(Interface)
    for interface, path in one_of_each.items():
        node = await introspected(client, path)
        served = {found.attrib["name"]: found for found in node.findall("interface")}
        assert members(served[interface]) == contract(interface)
        assert {
            INTROSPECTABLE,
            "org.freedesktop.DBus.Peer",
            "org.freedesktop.DBus.Properties",
        } <= set(served)
        assert ("org.freedesktop.DBus.ObjectManager" in served) == (path == names.ROOT)


async def test_get_all_answers_every_property_with_the_contracts_type(
    client: Client, one_of_each: dict[str, str]
) -> None:
    for interface, path in one_of_each.items():
        reply = await client.connection.call(
            names.BUS_NAME,
            path,
            "org.freedesktop.DBus.Properties",
            "GetAll",
            "s",
            [str(interface)],
        )
        said = {
            name: value[0]
            for (kind, name), value in contract(interface).items()
            if kind == "property" and isinstance(value, tuple)
        }
        assert {name: variant.signature for name, variant in reply[0].items()} == said


async def test_the_object_manager_knows_every_object_but_its_own(
    client: Client, one_of_each: dict[str, str]
) -> None:
    managed = await client.objects()
    assert set(managed) >= set(one_of_each.values()) - {names.ROOT}
    assert names.ROOT not in managed
    for interface, path in one_of_each.items():
        if path != names.ROOT:
            assert set(managed[path][interface]) == {
                name for kind, name in contract(interface) if kind == "property"
            }


async def test_the_tree_can_be_walked_from_the_root(
    client: Client, one_of_each: dict[str, str]
) -> None:
    found = set()
    pending = ["/"]
    while pending:
        path = pending.pop()
        node = await introspected(client, path)
        interfaces = {interface.attrib["name"] for interface in node.findall("interface")}
        if interfaces & set(Interface):
            found.add(path)
        pending += [f"{path.rstrip('/')}/{child.attrib['name']}" for child in node.findall("node")]
    assert set(one_of_each.values()) <= found


async def test_no_property_can_be_written(client: Client, one_of_each: dict[str, str]) -> None:
    from mvirt_zfs_dbus.bus.wire import Variant
    from mvirt_zfs_dbus.errors import PropertyReadOnly

    for interface, path in one_of_each.items():
        for kind, name in contract(interface):
            if kind == "property":
                with pytest.raises(PropertyReadOnly, match=name):
                    await client.call(
                        path,
                        "org.freedesktop.DBus.Properties",
                        "Set",
                        "ssv",
                        interface,
                        name,
                        Variant("s", "x"),
                    )
