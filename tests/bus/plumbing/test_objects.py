"""The object tree: what is said, when, and how little."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from xml.etree import ElementTree

import pytest

from mvirt_zfs_dbus import errors
from mvirt_zfs_dbus.bus.objects import ObjectTree
from mvirt_zfs_dbus.bus.wire import Message, RemoteError, Variant, unpacked

from .conftest import Ask
from .toy import HOUSE, LAMP, ROOT, House, Toy, path

Signals = asyncio.Queue[Message]
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PEER = "org.freedesktop.DBus.Peer"


async def settled(ask: Ask, heard: Signals) -> list[Message]:
    """All signals up to now: those of this turn leave before a reply to a call that follows."""
    await ask(ROOT, HOUSE, "Echo", "s", "")
    return [heard.get_nowait() for _ in range(heard.qsize())]


async def test_all_changes_of_a_turn_leave_as_one_signal_with_only_what_changed(
    toy: Toy, ask: Ask, heard: Signals
) -> None:
    for level in range(1, 11):
        toy.lights["a"].level = level
        toy.lights["a"].labels = {"level": str(level)}
        toy.tree.changed(path("a"))
    [signal] = await settled(ask, heard)
    assert (signal.path, signal.interface, signal.member) == (
        path("a"),
        PROPERTIES,
        "PropertiesChanged",
    )
    assert unpacked(signal.body) == [LAMP, {"Level": 10, "Labels": {"level": "10"}}, []]


async def test_what_did_not_change_is_not_said(toy: Toy, ask: Ask, heard: Signals) -> None:
    toy.lights["a"].level = 5
    toy.lights["a"].level = 0
    toy.lights["a"].hours = 7  # emits nothing
    toy.tree.changed(path("a"))
    toy.tree.changed(path("nobody"))
    assert await settled(ask, heard) == []
    assert await ask(path("a"), PROPERTIES, "Get", "ss", LAMP, "Hours") != []


async def test_changes_come_without_anybody_asking(toy: Toy, heard: Signals) -> None:
    toy.lights["a"].level = 5
    toy.tree.changed(path("a"))
    assert unpacked((await heard.get()).body[1]) == {"Level": 5}


async def test_an_object_is_announced_once_with_what_changed_since(
    toy: Toy, ask: Ask, heard: Signals
) -> None:
    toy.add("b").level = 3
    toy.tree.changed(path("b"))
    [signal] = await settled(ask, heard)
    assert (signal.path, signal.interface, signal.member) == (
        ROOT,
        OBJECT_MANAGER,
        "InterfacesAdded",
    )
    where, interfaces = unpacked(signal.body)
    assert where == path("b")
    assert interfaces[LAMP]["Level"] == 3
    assert interfaces[LAMP].keys() == toy.lamp.properties.keys()


async def test_a_removed_object_is_said_to_be_gone(
    toy: Toy, ask: Ask, heard: Signals, caplog: pytest.LogCaptureFixture
) -> None:
    toy.lights["a"].level = 3
    toy.tree.changed(path("a"))
    toy.remove("a")
    toy.tree.remove(path("a"))
    [signal] = await settled(ask, heard)
    assert (signal.path, signal.member) == (ROOT, "InterfacesRemoved")
    assert signal.body == [path("a"), [LAMP]]
    assert caplog.records == []


async def test_an_object_nobody_heard_of_goes_silently(toy: Toy, ask: Ask, heard: Signals) -> None:
    toy.add("b")
    toy.remove("b")
    assert await settled(ask, heard) == []


async def test_a_signal_of_an_object_follows_all_that_was_to_be_said_of_it(
    toy: Toy, ask: Ask, heard: Signals
) -> None:
    toy.add("b")
    toy.tree.emit(path("b"), LAMP, "Burnt", 7, "old")
    toy.lights["b"].level = 1
    toy.tree.changed(path("b"))
    toy.tree.flush(path("b"))
    toy.tree.emit(path("b"), LAMP, "Burnt", 8, "older")
    signals = await settled(ask, heard)
    assert [signal.member for signal in signals] == [
        "InterfacesAdded",
        "Burnt",
        "PropertiesChanged",
        "Burnt",
    ]
    assert signals[3].body == [8, "older"]


def test_nothing_is_said_before_the_tree_is_published() -> None:
    sent: list[Message] = []
    tree = ObjectTree(ROOT)
    toy: Any = None
    tree.add(ROOT, "", [House(toy)])
    tree.add(f"{ROOT}/room/1", "", [House(toy)])
    tree.remove(f"{ROOT}/room/1")
    tree.add(f"{ROOT}/room/2", "", [House(toy)])
    tree.changed(f"{ROOT}/room/2")
    tree.flush()
    tree.publish(sent.append)
    assert sent == []
    assert tree.paths() == [ROOT, f"{ROOT}/room/2"]
    tree.remove(f"{ROOT}/room/2")
    assert [message.member for message in sent] == ["InterfacesRemoved"]


def test_no_two_objects_share_a_path() -> None:
    tree = ObjectTree(ROOT)
    toy: Any = None
    tree.add(ROOT, "", [House(toy)])
    with pytest.raises(ValueError, match=ROOT):
        tree.add(ROOT, "", [House(toy)])


async def test_one_object_that_cannot_be_read_does_not_silence_the_others(
    toy: Toy, ask: Ask, heard: Signals, caplog: pytest.LogCaptureFixture
) -> None:
    toy.add("b")
    await settled(ask, heard)
    del toy.lights["a"]  # the object stays, its lamp is gone
    toy.tree.changed(path("a"))
    toy.lights["b"].level = 4
    toy.tree.changed(path("b"))
    with caplog.at_level(logging.ERROR):
        [signal] = await settled(ask, heard)
    assert signal.path == path("b")
    assert path("a") in caplog.text


async def test_managed_objects_are_all_but_the_root(toy: Toy, ask: Ask) -> None:
    toy.add("b")
    [objects] = unpacked(await ask(ROOT, OBJECT_MANAGER, "GetManagedObjects"))
    assert list(objects) == [path("a"), path("b")]
    assert objects[path("b")] == {
        LAMP: {
            "Id": "b",
            "Name": "desk",
            "Level": 0,
            "Colour": "warm",
            "Labels": {},
            "House": ROOT,
            "Neighbours": [path("a")],
            "Hours": 0,
        }
    }
    with pytest.raises(RemoteError) as caught:
        await ask(path("a"), OBJECT_MANAGER, "GetManagedObjects")
    assert caught.value.name.endswith("UnknownInterface")


async def test_properties_that_do_not_emit_are_fresh_when_they_are_read(toy: Toy, ask: Ask) -> None:
    assert unpacked(await ask(path("a"), PROPERTIES, "Get", "ss", LAMP, "Hours")) == [1]
    [values] = unpacked(await ask(path("a"), PROPERTIES, "GetAll", "s", LAMP))
    assert (values["Hours"], values["Level"]) == (2, 0)
    await ask(path("a"), PROPERTIES, "Get", "ss", LAMP, "Level")
    assert toy.lamp.refreshed == 2


async def test_a_property_reads_as_what_it_is_now(toy: Toy, ask: Ask) -> None:
    toy.lights["a"].level = 6
    toy.tree.changed(path("a"))
    assert unpacked(await ask(path("a"), PROPERTIES, "Get", "ss", LAMP, "Level")) == [6]
    assert unpacked(await ask(path("a"), PROPERTIES, "Get", "ss", "", "Colour")) == ["warm"]


@pytest.mark.parametrize(
    ("where", "member", "arguments", "error"),
    [
        ("a", "Get", ("ss", LAMP, "Nonsense"), "UnknownProperty"),
        ("a", "Get", ("ss", PEER, "Nonsense"), "UnknownProperty"),
        ("a", "Get", ("ss", "org.example.Other", "Level"), "UnknownInterface"),
        ("a", "GetAll", ("s", "org.example.Other"), "UnknownInterface"),
        ("a", "Get", ("s", LAMP), "InvalidArgs"),
        ("none", "Get", ("ss", LAMP, "Level"), "UnknownObject"),
        ("none", "GetAll", ("s", LAMP), "UnknownObject"),
    ],
)
async def test_what_does_not_exist_has_its_own_error(
    toy: Toy, ask: Ask, where: str, member: str, arguments: tuple[str, ...], error: str
) -> None:
    with pytest.raises(RemoteError) as caught:
        await ask(path(where), PROPERTIES, member, *arguments)
    assert caught.value.name == f"org.freedesktop.DBus.Error.{error}"


async def test_no_property_can_be_set(toy: Toy, ask: Ask) -> None:
    for name, error in (("Level", "PropertyReadOnly"), ("Nonsense", "UnknownProperty")):
        with pytest.raises(RemoteError) as caught:
            await ask(path("a"), PROPERTIES, "Set", "ssv", LAMP, name, Variant("t", 1))
        assert caught.value.name == f"org.freedesktop.DBus.Error.{error}"
    assert await ask(path("a"), PROPERTIES, "GetAll", "s", PEER) == [{}]


async def test_all_properties_are_read_even_where_they_cannot_be_fresh(toy: Toy, ask: Ask) -> None:
    async def refresh(key: str) -> None:
        raise errors.PoolUnavailable("the pool is suspended")

    toy.lamp.refresh = refresh  # type: ignore[method-assign]
    [values] = unpacked(await ask(path("a"), PROPERTIES, "GetAll", "s", LAMP))
    assert values["Hours"] == 0
    with pytest.raises(errors.PoolUnavailable, match="suspended"):
        await ask(path("a"), PROPERTIES, "Get", "ss", LAMP, "Hours")


async def test_an_object_removed_while_it_is_refreshed_is_unknown(toy: Toy, ask: Ask) -> None:
    async def refresh(key: str) -> None:
        toy.tree.remove(path(key))

    toy.lamp.refresh = refresh  # type: ignore[method-assign]
    with pytest.raises(RemoteError) as caught:
        await ask(path("a"), PROPERTIES, "GetAll", "s", LAMP)
    assert caught.value.name.endswith("UnknownObject")


async def test_every_step_of_a_path_is_introspected(toy: Toy, ask: Ask) -> None:
    toy.add("b")

    async def children(where: str) -> list[str | None]:
        [xml] = await ask(where, INTROSPECTABLE, "Introspect")
        return [node.get("name") for node in ElementTree.fromstring(xml).findall("node")]

    assert await children("/") == ["org"]
    assert await children("/org") == ["example"]
    assert await children(ROOT) == ["lamp"]
    assert await children(f"{ROOT}/lamp") == ["a", "b"]
    toy.remove("a")
    assert await children(f"{ROOT}/lamp") == ["b"]
    toy.remove("b")
    assert await children(ROOT) == []
    with pytest.raises(RemoteError) as caught:
        await children(f"{ROOT}/lamp")
    assert caught.value.name.endswith("UnknownObject")


async def test_introspection_names_arguments_and_says_how_properties_emit(
    toy: Toy, ask: Ask
) -> None:
    [xml] = await ask(path("a"), INTROSPECTABLE, "Introspect")
    node = ElementTree.fromstring(xml)
    names = {interface.get("name") for interface in node.findall("interface")}
    assert names == {LAMP, PROPERTIES, INTROSPECTABLE, PEER}
    lamp = node.find(f"interface[@name='{LAMP}']")
    assert lamp is not None
    arguments = lamp.findall("method[@name='SetLevel']/arg")
    assert [arg.attrib for arg in arguments] == [
        {"name": "level", "type": "t", "direction": "in"},
        {"name": "options", "type": "a{sv}", "direction": "in"},
    ]
    emits = {
        found.get("name"): annotation.get("value")
        for found in lamp.findall("property")
        for annotation in found.findall("annotation")
    }
    assert (emits["Id"], emits["Level"], emits["Hours"]) == ("const", "true", "false")
    [xml] = await ask(ROOT, INTROSPECTABLE, "Introspect")
    assert OBJECT_MANAGER in xml


async def test_every_path_answers_a_ping(toy: Toy, ask: Ask) -> None:
    assert await ask("/anywhere", PEER, "Ping") == []
    [machine] = await ask(ROOT, PEER, "GetMachineId")
    assert len(bytes.fromhex(machine)) == 16


async def test_what_has_changed_is_listed_as_it_is_now(toy: Toy, ask: Ask) -> None:
    toy.add("b")
    levels = []
    for level in (0, 3, 4):
        for name in ("a", "b"):  # the last of a listing, and one that others follow
            toy.lights[name].level = level
            toy.tree.changed(path(name))
        [objects] = unpacked(await ask(ROOT, OBJECT_MANAGER, "GetManagedObjects"))
        levels.append([interfaces[LAMP]["Level"] for interfaces in objects.values()])
    assert levels == [[0, 0], [3, 3], [4, 4]]
    toy.remove("b")
    toy.tree.remove(path("b"))
    [objects] = unpacked(await ask(ROOT, OBJECT_MANAGER, "GetManagedObjects"))
    assert list(objects) == [path("a")]
