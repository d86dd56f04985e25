"""Calls, properties and changes of the service's objects, for all kinds of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final, Generic, Self, TypeVar, overload

from .. import errors
from ..bus import wire
from ..names import BUS_NAME, ErrorName, Interface
from .signals import ServiceUnreachable, Signals
from .ssh import connection_to

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


def options(**values: object) -> dict[str, wire.Variant]:
    """The trailing ``a{sv}`` of a method: ``block_size=512`` is its option ``block-size``.

    What is None is left to the service.
    """
    named = {name.replace("_", "-"): value for name, value in values.items() if value is not None}
    return {name: wire.Variant(_OPTION_SIGNATURES[name], value) for name, value in named.items()}


class Remote:
    """The service at the other end of a bus connection."""

    def __init__(
        self, connection: wire.Connection, *, host: str | None = None, interactive: bool
    ) -> None:
        self.host = host
        self._connection = connection
        self._flags = (
            wire.MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
            if interactive
            else wire.MessageFlag.NONE
        )

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, bus: str, *, host: str | None, interactive: bool
    ) -> AsyncIterator[Remote]:
        async with _local(bus) if host is None else connection_to(host) as connection:
            yield cls(connection, host=host, interactive=interactive)

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
        if fds and self.host:
            raise errors.InvalidArgs(f"an open file cannot be passed to {self.host}")
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
    async def signals(
        self, *members: str, path: str = "", path_namespace: str = ""
    ) -> AsyncIterator[Signals]:
        """The service's signals of these names, from now on."""
        owner = await self._connection.name_owner(BUS_NAME)
        if not owner:
            raise ServiceUnreachable(f"nobody owns {BUS_NAME} on this bus")
        signals = Signals(self._connection)
        rules = {
            wire.MatchRule(wire.BUS, member="NameOwnerChanged", arg0=BUS_NAME): signals.end,
            **{
                wire.MatchRule(
                    owner, path=path, path_namespace=path_namespace, member=member
                ): signals.take
                for member in members
            },
        }
        subscriptions = []
        try:
            for rule, handler in rules.items():
                subscriptions.append(await self._connection.subscribe(rule, handler))
            yield signals
        finally:
            for subscription in subscriptions:
                subscription.close()


@asynccontextmanager
async def _local(bus: str) -> AsyncIterator[wire.Connection]:
    try:
        connection = await wire.connect(bus)
    except wire.BusError as error:
        raise ServiceUnreachable(str(error)) from error
    try:
        yield connection
    finally:
        await connection.close()


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

    def take(self, message: wire.Message) -> dict[str, Any]:
        """Keep what a PropertiesChanged of this object says, and return it."""
        interface, changed, _ = message.body
        if message.path != self.path or interface != self.interface:
            return {}
        values: dict[str, Any] = wire.unpacked(changed)
        self.properties.update(values)
        return values

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
