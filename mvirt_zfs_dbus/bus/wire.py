"""The connection to a bus: calls, signals, names, and the end of it.

The library authenticates, reads and builds messages (:mod:`.library`). Who gets a message is
decided here, how messages leave in :mod:`.socket_io`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from .. import errors
from .entries import marshalled
from .failures import BusError, ConnectionLost, NameTaken, RemoteError, body_or_error
from .library import (
    Bus,
    Message,
    MessageFlag,
    MessageType,
    Variant,
    bus_address,
    unpacked,
)
from .signals import MatchRule, Subscription
from .socket_io import SocketWriter, close_fds

__all__ = [
    "BusError",
    "Connection",
    "ConnectionLost",
    "MatchRule",
    "Message",
    "MessageFlag",
    "MessageType",
    "NameTaken",
    "RemoteError",
    "Subscription",
    "Variant",
    "connect",
    "unpacked",
]

_log = logging.getLogger(__name__)

BUS: Final = "org.freedesktop.DBus"
BUS_PATH: Final = "/org/freedesktop/DBus"

_DEFAULT_TIMEOUT: Final = 25.0
"""Seconds a call waits for its reply: libdbus's default (dbus-connection.c)."""
_DO_NOT_QUEUE: Final = 4
_PRIMARY_OWNER: Final = 1
_ALREADY_OWNER: Final = 4


class Connection:
    """A connection to a bus; :func:`connect` makes one."""

    def __init__(self, bus: Bus) -> None:
        self.unique_name: str = bus.unique_name or ""
        self.lost = asyncio.Event()
        """Set when the bus has died or a requested name went to somebody else."""
        self.why_lost = ""
        self._bus = bus
        self._paced = bus.paced_socket
        self.framing = self._paced.framing
        self._writer = SocketWriter(bus.raw_socket, self._write_failed)
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._subscriptions: list[Subscription] = []
        self._names: set[str] = set()
        self._call_handler: Callable[[Message], None] | None = None
        bus.add_message_handler(self._receive)
        self._watcher = asyncio.create_task(self._watch())

    # Calls that come in

    def on_call(self, handler: Callable[[Message], None] | None) -> None:
        """Who gets the method calls; the handler also closes the fds that come with them."""
        self._call_handler = handler

    # Calls that go out

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
        *,
        timeout: float | None = _DEFAULT_TIMEOUT,
        flags: MessageFlag = MessageFlag.NONE,
        unix_fds: Sequence[int] = (),
    ) -> list[Any]:
        """Call a method and answer the body of its reply, as the library unmarshals it.

        The errors of this service come back as what they were (:mod:`mvirt_zfs_dbus.errors`), any
        other error reply is RemoteError. ``timeout`` is in seconds, None waits for ever;
        TimeoutError. ``h`` in ``body`` is an index into ``unix_fds``, which stay the caller's.
        """
        if self._bus_is_gone():
            raise ConnectionLost(self.why_lost or "the connection to the bus is closed")
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
            unix_fds=list(unix_fds),
            flags=flags,
        )
        message.serial = self._bus.next_serial()
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[message.serial] = reply
        try:
            self.send(message)
            async with asyncio.timeout(timeout):
                answer = await reply
        finally:
            del self._pending[message.serial]
        return body_or_error(answer)

    def send(self, message: Message, *, counted: bool = False) -> int:
        """Send a message that nobody waits for, and answer its size in bytes. One that cannot be
        built raises. LimitsExceeded: it is larger than a bus takes. ``counted``: the values in it
        were made by :mod:`.values`, as :func:`.library.marshalled` would like to know."""
        if not message.serial:
            message.serial = self._bus.next_serial()
        data = marshalled(message, counted=counted)
        self._writer.write(data, message.unix_fds or ())
        return len(data)

    @property
    def backlog(self) -> int:
        """Bytes of messages that the bus has not taken yet."""
        return self._writer.backlog

    # Signals that come in

    async def subscribe(self, rule: MatchRule, handler: Callable[[Message], None]) -> Subscription:
        """Hand every signal that matches to ``handler`` until the subscription is closed."""
        subscription = Subscription(rule, handler, self._unsubscribe)
        self._subscriptions.append(subscription)
        try:
            await self.call_bus("AddMatch", "s", [str(rule)])
        except BaseException:
            subscription.close()
            raise
        return subscription

    def _unsubscribe(self, subscription: Subscription) -> None:
        if subscription not in self._subscriptions:
            return
        self._subscriptions.remove(subscription)
        self.send(
            Message(
                destination=BUS,
                path=BUS_PATH,
                interface=BUS,
                member="RemoveMatch",
                signature="s",
                body=[str(subscription.rule)],
                flags=MessageFlag.NO_REPLY_EXPECTED,
            )
        )

    # Names

    async def call_bus(self, member: str, signature: str = "", body: Sequence[Any] = ()) -> Any:
        """Call a method of the bus itself; the answer is the first value of the reply, if any."""
        reply = await self.call(BUS, BUS_PATH, BUS, member, signature, body)
        return reply[0] if reply else None

    async def request_name(self, name: str) -> None:
        """Own a well-known name from now on. NameTaken: somebody else does, nothing is queued."""
        self._names.add(name)
        try:
            answer = await self.call_bus("RequestName", "su", [name, _DO_NOT_QUEUE])
            if answer not in (_PRIMARY_OWNER, _ALREADY_OWNER):
                raise NameTaken(
                    f"the bus name {name} already belongs to another process:"
                    " is the service running twice?"
                )
        except BaseException:
            self._names.discard(name)
            raise

    async def name_owner(self, name: str) -> str:
        """The unique name of whoever owns a name; empty if nobody does."""
        try:
            return str(await self.call_bus("GetNameOwner", "s", [name]))
        except RemoteError as error:
            if error.name == f"{BUS}.Error.NameHasNoOwner":
                return ""
            raise

    # The end

    async def close(self) -> None:
        """Send what is still to be sent, as far as the bus takes it, and disconnect."""
        self._call_handler = None
        try:
            async with asyncio.timeout(1):
                await self._writer.drained()
        except TimeoutError:
            _log.warning("closing the bus connection with %d bytes unsent", self.backlog)
        finally:
            self._writer.close()
            if not self._bus_is_gone():
                self._bus.disconnect()
            await self._watcher
            self._bus.close_socket()

    def _bus_is_gone(self) -> bool:
        return self._watcher.done()

    async def _watch(self) -> None:
        try:
            await self._bus.disconnected()
            reason = "the bus has closed the connection"
        except Exception as error:
            reason = f"the connection to the bus is lost: {str(error) or type(error).__name__}"
        self._writer.close()
        self._lose(reason)
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(ConnectionLost(reason))

    def _write_failed(self, error: OSError) -> None:
        self._lose(f"the connection to the bus is lost: {error}")
        self._bus.disconnect()

    def _lose(self, reason: str) -> None:
        if not self.lost.is_set():
            self.why_lost = reason
            self.lost.set()

    # Messages that come in

    def _receive(self, message: Message) -> bool:
        """Every message read from the bus; True keeps it from the library's own handlers."""
        self._paced.count_message()
        # dbus-fast gives a message without fds the very list that those of the next one go into.
        message.unix_fds = list(message.unix_fds)
        try:
            if message.message_type is MessageType.METHOD_CALL:
                self._receive_call(message)
            elif message.message_type is MessageType.SIGNAL:
                self._receive_signal(message)
            else:
                self._receive_reply(message)
        except Exception:
            _log.exception("a message from %s could not be handled", message.sender)
        return True

    def _receive_call(self, message: Message) -> None:
        if self._call_handler is not None:
            self._call_handler(message)
            return
        close_fds(message.unix_fds)
        if not message.flags.value & MessageFlag.NO_REPLY_EXPECTED.value:
            error = str(errors.UnknownObject.name)
            self.send(Message.new_error(message, error, "this connection has no objects"))

    def _receive_signal(self, message: Message) -> None:
        close_fds(message.unix_fds)
        is_loss = message.sender == BUS and message.member == "NameLost"
        if is_loss and message.body[0] in self._names:
            self._lose(f"the bus name {message.body[0]} went to another process")
        for subscription in list(self._subscriptions):
            if subscription.rule.matches(message):
                subscription.handler(message)

    def _receive_reply(self, message: Message) -> None:
        reply = self._pending.get(message.reply_serial or 0)
        close_fds(message.unix_fds)
        if reply is not None and not reply.done():
            reply.set_result(message)


async def connect(
    bus: str, *, passes_fds: bool = True, timeout: float | None = _DEFAULT_TIMEOUT
) -> Connection:
    """Connect to the ``system`` bus, the ``session`` bus, or a bus at an address.

    ``passes_fds``: whether file descriptors can be sent; what ends in a network has none.
    BusError says why there is no connection.
    """
    address = bus_address(bus)
    try:
        async with asyncio.timeout(timeout):
            opened = Bus(address, passes_fds=passes_fds)
            await opened.open()
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise BusError(f"cannot connect to the bus at {address}: {reason}") from error
    return Connection(opened)
