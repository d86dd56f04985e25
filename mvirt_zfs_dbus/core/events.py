"""What happened to the things that exist, for whoever shows them to clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum


class ObjectKind(StrEnum):
    POOL = "pool"
    VOLUME = "volume"
    SNAPSHOT = "snapshot"
    TEMPLATE = "template"
    JOB = "job"


class Change(Enum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    COMPLETED = "completed"
    """A job is finished; its last CHANGED came before."""


@dataclass(frozen=True, slots=True)
class Event:
    change: Change
    kind: ObjectKind
    id: str
    """The object's UUID; a pool's name."""


Listener = Callable[[Event], None]


class Events:
    """Hands each event to every listener at once, in order. Listeners do not raise."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def emit(self, change: Change, kind: ObjectKind, object_id: str) -> None:
        event = Event(change, kind, object_id)
        for listener in self._listeners:
            listener(event)
