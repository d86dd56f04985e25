"""Calls, properties and changes of the service's objects, for all kinds of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final, Generic, Self, TypeVar, overload

from .. import errors
from ..bus import wire
from ..names import BUS_NAME, ErrorName, Interface

_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_BUS_ERROR: Final = "org.freedesktop.DBus.Error."
_NOBODY_ANSWERS: Final = (
    "ServiceUnknown",
    "NameHasNoOwner",
    "NoReply",
    "Disconnected",
    "Timeout",
    "TimedOut",
    "Spawn.",
)
"""What the bus answers, instead of a service that is not there; dbus-protocol.h."""
_TIMEOUT: Final = 180
"""Seconds; polkit may have to ask a person for a password before the service can answer."""

_OPTION_SIGNATURES: Final[Mapping[str, str]] = {
    "id": "s",
    "size": "t",
    "block-size": "u",
    "thin": "b",
    "compression": "s",
    "labels": "a{ss}",
    "format": "s",
    "checksum": "s",
    "snapshots": "b",
    "defer": "b",
    "destroy-newer": "b",
}


class ServiceUnreachable(errors.Error):
    """The service, or the bus it is on, is not there or does not answer."""


def options(**values: object) -> dict[str, wire.Variant]:
    """The trailing ``a{sv}`` of a method: ``block_size=512`` is its option ``block-size``.

    What is None is left to the service.
    """
    named = {name.replace("_", "-"): value for name, value in values.items() if value is not None}
    return {name: wire.Variant(_OPTION_SIGNATURES[name], value) for name, value in named.items()}


class Remote:
    """The service at the other end of a bus connection."""

    def __init__(self, connection: wire.Connection, *, interactive: bool) -> None:
        self._connection = connection
        self._flags = (
            wire.MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
            if interactive
            else wire.MessageFlag.NONE
        )

    @classmethod
    @asynccontextmanager
    async def connect(cls, bus: str, *, interactive: bool) -> AsyncIterator[Remote]:
        try:
            connection = await wire.connect(bus)
        except wire.BusError as error:
            raise ServiceUnreachable(str(error)) from error
        try:
            yield cls(connection, interactive=interactive)
        finally:
            await connection.close()

    async def call(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *arguments: object,
        fds: Sequence[int] = (),
    ) -> Any:
        """Call a method; its answer without Variants, None where it has none.

        Errors of :mod:`mvirt_zfs_dbus.errors`, and ServiceUnreachable.
        """
        try:
            body = await self._connection.call(
                BUS_NAME,
                path,
                str(interface),
                member,
                signature,
                arguments,
                timeout=_TIMEOUT,
                flags=self._flags,
                unix_fds=fds,
            )
        except wire.RemoteError as error:
            raise _error_of(error) from error
        except wire.BusError as error:
            raise ServiceUnreachable(str(error)) from error
        except TimeoutError as error:
            raise ServiceUnreachable(f"no answer to {member} within {_TIMEOUT} s") from error
        return wire.unpacked(body[0]) if body else None

    @asynccontextmanager
    async def changes(self, watched: RemoteObject) -> AsyncIterator[Changes]:
        """Keep an object's properties as the service tells their changes."""
        owner = await self._connection.name_owner(BUS_NAME)
        if not owner:
            raise ServiceUnreachable(f"nobody owns {BUS_NAME} on this bus")
        changes = Changes(watched, self._connection)
        rules = {
            wire.MatchRule(owner, watched.path, member="PropertiesChanged"): changes.take,
            wire.MatchRule(wire.BUS, member="NameOwnerChanged", arg0=BUS_NAME): changes.end,
        }
        subscriptions = []
        try:
            for rule, handler in rules.items():
                subscriptions.append(await self._connection.subscribe(rule, handler))
            yield changes
        finally:
            for subscription in subscriptions:
                subscription.close()


class Changes:
    """The changes of one object, as they arrive; those that come together count once."""

    def __init__(self, watched: RemoteObject, connection: wire.Connection) -> None:
        self._watched = watched
        self._connection = connection
        self._arrived = asyncio.Event()
        self._ended = False

    def take(self, message: wire.Message) -> None:
        interface, changed, _ = message.body
        if interface == self._watched.interface:
            self._watched.properties.update(wire.unpacked(changed))
            self._arrived.set()

    def end(self, _: wire.Message) -> None:
        self._ended = True
        self._arrived.set()

    async def next(self) -> None:
        """Wait for a change. ServiceUnreachable when there will be none."""
        waits = [
            asyncio.ensure_future(self._arrived.wait()),
            asyncio.ensure_future(self._connection.lost.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._arrived.clear()
        if self._connection.lost.is_set():
            raise ServiceUnreachable(self._connection.why_lost)
        if self._ended:
            raise ServiceUnreachable("the service has left the bus")


class RemoteObject:
    """An object of the service, with the properties it had when they were read last."""

    interface: ClassVar[Interface]

    def __init__(
        self, remote: Remote, path: str, properties: Mapping[str, Any] | None = None
    ) -> None:
        self.remote = remote
        self.path = path
        self.properties: dict[str, Any] = dict(properties or {})

    def __getitem__(self, name: str) -> Any:
        """A property by its D-Bus name."""
        return self.properties[name]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    async def refresh(self) -> Self:
        """Read all properties."""
        self.properties = await self.remote.call(
            self.path, _PROPERTIES, "GetAll", "s", str(self.interface)
        )
        return self

    async def call(
        self, member: str, signature: str, *arguments: object, fds: Sequence[int] = ()
    ) -> Any:
        return await self.remote.call(
            self.path, self.interface, member, signature, *arguments, fds=fds
        )


Value = TypeVar("Value")


class Property(Generic[Value]):
    """A D-Bus property as an attribute of a RemoteObject."""

    def __init__(self, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type[RemoteObject]) -> Self: ...
    @overload
    def __get__(self, instance: RemoteObject, owner: type[RemoteObject]) -> Value: ...
    def __get__(self, instance: RemoteObject | None, owner: type[RemoteObject]) -> Value | Self:
        if instance is None:
            return self
        value: Value = instance[self._name]
        return value


def _error_of(error: wire.RemoteError) -> errors.Error:
    if error.name in list(ErrorName):
        return errors.from_name(error.name, error.message)
    if error.name.removeprefix(_BUS_ERROR).startswith(_NOBODY_ANSWERS):
        return ServiceUnreachable(error.message)
    return errors.Error(f"{error.message} [{error.name}]")
