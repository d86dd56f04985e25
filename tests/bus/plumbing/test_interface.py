"""How interfaces are written down."""

from __future__ import annotations

from typing import Any

import pytest

from mvirt_zfs_dbus.bus.interface import Call, Interface, Signal, method, prop, query
from mvirt_zfs_dbus.names import Action

from .toy import House, Lamp


def test_a_method_cannot_be_written_without_an_action() -> None:
    untyped: Any = method
    with pytest.raises(TypeError, match="action"):
        untyped("Destroy")
    with pytest.raises(TypeError, match="Destroy needs a polkit action"):
        untyped("Destroy", action=None)


def test_a_property_says_how_it_emits() -> None:
    untyped: Any = prop
    with pytest.raises(TypeError, match="emits"):
        untyped("Name", "s")
    with pytest.raises(TypeError, match="'sometimes'"):
        untyped("Name", "s", emits="sometimes")


def test_arguments_are_written_with_their_signatures() -> None:
    with pytest.raises(TypeError, match="'name'"):
        query("Get", "name")
    take = House.methods["Take"]
    assert [arg.name for arg in take.all_ins] == ["fd", "options"]
    assert (take.signature, take.out_signature) == ("ha{sv}", "s")
    assert House.methods["Echo"].signature == "s"
    assert Signal("Burnt", "hours:t reason:s").signature == "ts"


def test_members_are_inherited_and_may_be_replaced() -> None:
    class Better(Lamp):
        @prop("Level", "t", emits="false")
        def better_level(self, key: str) -> int:
            return 1

    assert Better.properties["Level"].attribute == "better_level"
    assert Lamp.properties["Level"].attribute == "level"
    assert Better.methods.keys() == Lamp.methods.keys()


def test_an_action_is_fixed_or_picked_by_a_function() -> None:
    class Picky(Interface):
        name = "org.example.Picky"

        @method("Fixed", action=Action.DELETE)
        async def fixed(self, call: Call, key: str) -> None: ...

        @method(
            "Picked", action=lambda interface, call, key: Action.CANCEL if key == "other" else None
        )
        async def picked(self, call: Call, key: str) -> None: ...

    call = Call("", 0, False, "/", "", "")
    fixed, picked = Picky.methods["Fixed"], Picky.methods["Picked"]
    assert fixed.action(Picky(), call, "own") is Action.DELETE
    assert picked.action(Picky(), call, "own") is None
    assert picked.action(Picky(), call, "other") is Action.CANCEL
