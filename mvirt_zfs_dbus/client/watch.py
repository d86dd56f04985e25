"""What comes, changes and goes, as it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from ..bus import wire
from .inventory import Inventory
from .remote import RemoteObject
from .signals import Signals


class Happened(StrEnum):
    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Event:
    happened: Happened
    object: RemoteObject
    """With its properties as they are now; of a removed one, as they were last."""
    changed: Mapping[str, Any]
    """The properties that changed, with their new values; empty unless ``happened`` is that."""


class Watch:
    """``async for event in watch`` yields every event; ``inventory.by_path`` follows them.

    ServiceUnreachable when the service or the bus goes.
    """

    MEMBERS: Final = ("InterfacesAdded", "InterfacesRemoved", "PropertiesChanged")

    def __init__(
        self,
        inventory: Inventory,
        signals: Signals,
        made: Callable[[str, Mapping[str, dict[str, Any]]], RemoteObject | None],
    ) -> None:
        self.inventory = inventory
        self._signals = signals
        self._made = made

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            for message in await self._signals.next():
                if event := self._event(message):
                    yield event

    def _event(self, message: wire.Message) -> Event | None:
        """None for what the inventory knew already, or what is none of its objects."""
        match message.member:
            case "InterfacesAdded":
                return self._added(*message.body)
            case "InterfacesRemoved":
                return self._removed(*message.body)
            case _:
                return self._changed(message)

    def _added(self, path: str, interfaces: Mapping[str, dict[str, Any]]) -> Event | None:
        found = self._made(path, wire.unpacked(interfaces))
        if found is None or path in self.inventory.by_path:
            return None
        self.inventory.by_path[path] = found
        return Event(Happened.ADDED, found, {})

    def _removed(self, path: str, interfaces: list[str]) -> Event | None:
        found = self.inventory.by_path.get(path)
        if found is None or found.interface not in interfaces:
            return None
        del self.inventory.by_path[path]
        return Event(Happened.REMOVED, found, {})

    def _changed(self, message: wire.Message) -> Event | None:
        found = self.inventory.by_path.get(message.path or "")
        if found is None:
            return None
        before = dict(found.properties)
        values = found.take(message)
        changed = {name: value for name, value in values.items() if value != before.get(name)}
        return Event(Happened.CHANGED, found, changed) if changed else None
