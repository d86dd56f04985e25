"""What can go wrong on the way to the bus and back."""

from __future__ import annotations

from typing import Any

from .. import errors
from .library import Message, MessageType


class BusError(Exception):
    """The bus, or somebody on it, did not do what was asked."""


class ConnectionLost(BusError):
    """The connection to the bus is gone."""


class NameTaken(BusError):
    """Somebody else owns the well-known name."""


class RemoteError(BusError):
    """An error reply with a name that is not one of this service's."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message or name)
        self.name = name
        self.message = message


def body_or_error(reply: Message) -> list[Any]:
    """What a reply carries; an error reply raises as the error it is."""
    if reply.message_type is not MessageType.ERROR:
        return list(reply.body)
    name = reply.error_name if isinstance(reply.error_name, str) else ""
    message = str(reply.body[0]) if reply.body else ""
    if name.startswith("org.mvirt."):
        raise errors.from_name(name, message)
    raise RemoteError(name, message)
