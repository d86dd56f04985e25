"""A service of lamps, with one member for everything the plumbing has to do."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mvirt_zfs_dbus import errors
from mvirt_zfs_dbus.bus.dispatch import Dispatcher
from mvirt_zfs_dbus.bus.interface import Call, Interface, Signal, method, prop, query
from mvirt_zfs_dbus.bus.objects import ObjectTree
from mvirt_zfs_dbus.bus.polkit import Authority
from mvirt_zfs_dbus.bus.wire import Connection, Variant, connect
from mvirt_zfs_dbus.names import Action

NAME = "org.example.Toy"
ROOT = "/org/example/Toy"
HOUSE = "org.example.Toy.House"
LAMP = "org.example.Toy.Lamp"


class Colour(StrEnum):
    WARM = "warm"


@dataclass
class Light:
    name: str = "desk"
    level: int = 0
    hours: int = 0
    labels: dict[str, str] = field(default_factory=dict)


class House(Interface):
    """The root's interface: calls with all sorts of arguments."""

    name = HOUSE

    def __init__(self, toy: Toy) -> None:
        self.toy = toy

    @query("Echo", "text:s", "text:s")
    async def echo(self, call: Call, key: str, text: str) -> str:
        return text

    @query("Pair", "number:t", "number:t text:s", options={"text": "s", "labels": "a{ss}"})
    async def pair(self, call: Call, key: str, number: int) -> tuple[int, str]:
        self.toy.calls.append(call)
        return number, str(call.options)

    @query("Describe", "", "lamps:aa{sv}", options={})
    async def describe(self, call: Call, key: str) -> list[dict[str, Variant]]:
        return [{"name": Variant("s", light.name)} for light in self.toy.lights.values()]

    @query("Wait")
    async def wait(self, call: Call, key: str) -> None:
        self.toy.waiting += 1
        self.toy.arrived.set()
        await self.toy.released.wait()

    @query("Lie", "", "number:t")
    async def lie(self, call: Call, key: str) -> Any:
        return "not a number"

    @query("Crash")
    async def crash(self, call: Call, key: str) -> None:
        raise ZeroDivisionError("a secret path /usr/lib/secret.py")

    @method("Take", "fd:h", "text:s", options={}, action=Action.IMPORT)
    async def take(self, call: Call, key: str, fd: int) -> str:
        """Read what comes through a passed fd."""
        taken = call.take_fd(fd)
        try:
            return os.read(taken, 100).decode()
        finally:
            os.close(taken)

    @method("Look", "fd:h other:h third:h fourth:h", action=Action.IMPORT)
    async def look(self, call: Call, key: str, *fds: int) -> None:
        for fd in fds:
            os.fstat(fd)
            assert not os.get_inheritable(fd)


class Lamp(Interface):
    """Every lamp's interface."""

    name = LAMP
    signals = (Signal("Burnt", "hours:t reason:s"),)

    def __init__(self, toy: Toy) -> None:
        self.toy = toy
        self.refreshed = 0

    def details(self, call: Call, key: str) -> dict[str, str]:
        return {"name": self.toy.lights[key].name, "id": key}

    async def refresh(self, key: str) -> None:
        self.refreshed += 1
        await asyncio.sleep(0)
        self.toy.lights[key].hours += 1

    @prop("Id", "s", emits="const")
    def id(self, key: str) -> str:
        return key

    @prop("Name", "s", emits="true")
    def lamp_name(self, key: str) -> str:
        return self.toy.lights[key].name

    @prop("Level", "t", emits="true")
    def level(self, key: str) -> int:
        return self.toy.lights[key].level

    @prop("Colour", "s", emits="const")
    def colour(self, key: str) -> Colour:
        return Colour.WARM

    @prop("Labels", "a{ss}", emits="true")
    def labels(self, key: str) -> dict[str, str]:
        return self.toy.lights[key].labels

    @prop("House", "o", emits="const")
    def house(self, key: str) -> str:
        return ROOT

    @prop("Neighbours", "ao", emits="true")
    def neighbours(self, key: str) -> tuple[str, ...]:
        return tuple(path(other) for other in self.toy.lights if other != key)

    @prop("Hours", "t", emits="false")
    def hours(self, key: str) -> int:
        return self.toy.lights[key].hours

    @method("SetLevel", "level:t", options={"slowly": "b"}, action=Action.MODIFY)
    async def set_level(self, call: Call, key: str, level: int) -> None:
        self.toy.calls.append(call)
        if level > 100:
            raise errors.InvalidSize(f"level {level} is more than 100")
        self.toy.lights[key].level = level
        self.toy.tree.changed(call.path)

    @method("Free", action=lambda interface, call, key: None)
    async def free(self, call: Call, key: str) -> None:
        """Needs no authorisation, as one's own job does."""


def path(key: str) -> str:
    return f"{ROOT}/lamp/{key}"


class OpenHouse:
    """An authority that lets everybody in and remembers whom it was asked about."""

    def __init__(self) -> None:
        self.asked: list[tuple[Call, Action, dict[str, str]]] = []

    async def authorize(self, call: Call, action: Action, details: dict[str, str]) -> None:
        self.asked.append((call, action, dict(details)))


class Toy:
    """The service: a house with lamps, on a connection of its own."""

    def __init__(self, connection: Connection, authority: Authority, **limits: int) -> None:
        self.connection = connection
        self.tree = ObjectTree(ROOT)
        self.lights: dict[str, Light] = {}
        self.calls: list[Call] = []
        self.waiting = 0
        self.arrived = asyncio.Event()
        self.released = asyncio.Event()
        self.lamp = Lamp(self)
        self.tree.add(ROOT, "", [House(self)])
        self.dispatcher = Dispatcher(connection, self.tree, authority, **limits)

    @classmethod
    async def on(cls, address: str, authority: Authority | None = None, **limits: int) -> Toy:
        return cls(await connect(address), authority or OpenHouse(), **limits)

    def add(self, key: str) -> Light:
        self.lights[key] = Light()
        self.tree.add(path(key), key, [self.lamp])
        return self.lights[key]

    def remove(self, key: str) -> None:
        del self.lights[key]
        self.tree.remove(path(key))

    async def start(self) -> None:
        self.tree.publish(self.connection.send)
        await self.connection.request_name(NAME)

    async def close(self) -> None:
        await self.dispatcher.close()
        await self.connection.close()
