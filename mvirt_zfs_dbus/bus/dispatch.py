"""A message's way: method call → member → arguments → authorisation → handler → reply or error."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from .. import errors
from . import arguments, standard
from .audit import Audit
from .interface import Call, Interface, MethodSpec
from .objects import Node, ObjectTree
from .polkit import Authority
from .socket_io import close_fds
from .values import converter
from .wire import BusError, Connection, Message, MessageFlag

_log = logging.getLogger(__name__)

MAX_CALLS_PER_SENDER: Final = 256
MAX_BACKLOG: Final = 128 * 1024 * 1024
"""Bytes of replies and signals the bus has not taken; with more, calls are refused."""
_KNOWN_UIDS: Final = 1024

_FAULT: Final = (
    "a fault of the service, which is not the caller's doing; the service's log has the details"
)


@dataclass(slots=True)
class _Target:
    """The member a message is for."""

    node: Node
    interface: Interface
    method: MethodSpec


class Dispatcher:
    """Answers the method calls of a connection from an object tree, from its making to close()."""

    def __init__(
        self,
        connection: Connection,
        tree: ObjectTree,
        authority: Authority,
        *,
        max_calls_per_sender: int = MAX_CALLS_PER_SENDER,
    ) -> None:
        self._connection = connection
        self._tree = tree
        self._authority = authority
        self._limit = max_calls_per_sender
        self._in_flight: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._uids: OrderedDict[str, int] = OrderedDict()
        self._closing = False
        connection.on_call(self._receive)

    async def close(self) -> None:
        """Cut off the calls in flight, each with an answer, and refuse those that still come."""
        self._closing = True
        await asyncio.sleep(0)  # a task cancelled before its first step could not answer
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    # From a message to who answers it

    def _receive(self, message: Message) -> None:
        """Every method call. Each way from here ends in _finish, which closes its fds."""
        try:
            found = standard.find(message.interface or "", message.member or "")
            if found is not None:
                self._standard(message, found)
            else:
                self._member(message, self._target(message))
        except errors.Error as error:
            self._finish(message, error)
        except Exception:
            _log.exception("%s failed", _shown(message))
            self._finish(message, errors.Error(_FAULT))

    def _standard(self, message: Message, method: standard.StandardMethod) -> None:
        if message.signature != method.signature:
            raise errors.InvalidArgs(
                f"{message.member} has signature {method.signature!r};"
                f" the call has {message.signature!r}"
            )
        self._refuse_overload(message)
        close_fds(message.unix_fds)  # no standard method takes any
        message.unix_fds.clear()
        answer = method.answer(self._tree, message.path, *message.body)
        if isinstance(answer, list):
            self._finish(message, None, method.out_signature, answer)
        else:
            self._spawn(message, self._answer_later(message, method, answer))

    async def _answer_later(
        self, message: Message, method: standard.StandardMethod, answer: Awaitable[list[Any]]
    ) -> None:
        body, error = await _outcome(message, answer)
        self._finish(message, error, method.out_signature, body or [])

    def _target(self, message: Message) -> _Target:
        node = standard.object_at(self._tree, message.path or "")
        interfaces = node.interfaces
        if message.interface:
            interface = node.interface(message.interface)
            if interface is None and not standard.is_standard(message.interface):
                raise errors.UnknownInterface(
                    f"the object at {message.path} has no interface {message.interface!r}"
                )
            interfaces = (interface,) if interface is not None else ()
        for interface in interfaces:
            method = interface.methods.get(message.member or "")
            if method is not None:
                return _Target(node, interface, method)
        raise errors.UnknownMethod(
            f"the object at {message.path} has no method {message.member!r}"
            + (f" in {message.interface}" if message.interface else "")
        )

    def _member(self, message: Message, target: _Target) -> None:
        call = Call(
            sender=message.sender,
            uid=self._uids.get(message.sender, -1) if target.method.changes else -1,
            interactive=_has(message, MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION),
            path=message.path or "",
            interface=target.interface.name,
            member=target.method.name,
            fds=message.unix_fds,
        )
        audit = Audit(call) if target.method.changes else None
        try:
            self._refuse_overload(message)
        except errors.Error as error:
            if audit is not None:
                audit.write(error)
            raise
        self._spawn(message, self._run(message, target, call, audit))

    # From the start of a call to its end

    async def _run(
        self, message: Message, target: _Target, call: Call, audit: Audit | None
    ) -> None:
        result, error = await _outcome(message, self._perform(message, target, call, audit))
        if error is None:
            error = self._reply(message, target.method, result)
        else:
            self._finish(message, error)
        if audit is not None:
            audit.write(error)

    async def _perform(
        self, message: Message, target: _Target, call: Call, audit: Audit | None
    ) -> Any:
        if audit is not None:
            call.uid = await self._uid(call.sender)
        arguments.check_signature(target.method, message.signature)
        arguments.check_fds(target.method, len(message.unix_fds))
        call.args = arguments.arguments(target.method, message)
        call.options = arguments.options(target.method, message)
        if audit is not None:
            await self._authorize(target, call, audit)
        handler = getattr(target.interface, target.method.attribute)
        return await handler(call, target.node.key, *call.args)

    async def _authorize(self, target: _Target, call: Call, audit: Audit) -> None:
        """Ask until the answer is for what is there now: a prompt can stay open for minutes, and
        the object may get another name, or go, meanwhile."""
        key = target.node.key
        asked = None
        while (wanted := self._wanted(target, call, audit)) != asked:
            action, details = asked = wanted
            if action is None:
                return
            await self._authority.authorize(call, action, details)
            if standard.object_at(self._tree, call.path).key != key:
                raise errors.UnknownObject(f"the object at {call.path} is another one now")

    def _wanted(self, target: _Target, call: Call, audit: Audit) -> tuple[Any, dict[str, str]]:
        audit.details = target.interface.details(call, target.node.key)
        return target.method.action(target.interface, call, target.node.key), audit.details

    async def _uid(self, sender: str) -> int:
        """Whose connection this is. A unique name is never given to another connection."""
        uid = self._uids.get(sender)
        if uid is None:
            try:
                uid = await self._connection.user_id(sender)
            except BusError as error:
                raise errors.AccessDenied(f"the bus does not say who {sender} is") from error
            self._uids[sender] = uid
            if len(self._uids) > _KNOWN_UIDS:
                self._uids.popitem(last=False)
        return uid

    # Bounds

    def _refuse_overload(self, message: Message) -> None:
        if self._closing:
            raise errors.Interrupted("the service is stopping")
        if self._in_flight[message.sender] >= self._limit:
            raise errors.LimitsExceeded(
                f"{self._limit} calls of this connection are being worked on already;"
                " wait for some of them"
            )
        if self._connection.backlog > MAX_BACKLOG:
            raise errors.LimitsExceeded("too many replies wait to be read by their callers")

    def _spawn(self, message: Message, work: Coroutine[Any, Any, None]) -> None:
        sender = message.sender
        self._in_flight[sender] += 1
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(done, sender))

    def _done(self, task: asyncio.Task[None], sender: str) -> None:
        self._tasks.discard(task)
        self._in_flight[sender] -= 1
        if not self._in_flight[sender]:
            del self._in_flight[sender]

    # Replies

    def _reply(self, message: Message, method: MethodSpec, result: Any) -> errors.Error | None:
        """Answer with what a handler returned, or with the error that is, and tell which."""
        try:
            body = _body(method, result)
            self._finish(message, None, method.out_signature, body)
        except Exception:
            _log.exception("%s answered %r", _shown(message), result)
            error = errors.Error(_FAULT)
            self._finish(message, error)
            return error
        return None

    def _finish(
        self,
        message: Message,
        error: errors.Error | None,
        signature: str = "",
        body: list[Any] | None = None,
    ) -> None:
        """Say all that waits to be said, then reply if the caller wants it; close the fds."""
        self._tree.flush()
        if not _has(message, MessageFlag.NO_REPLY_EXPECTED):
            if error is not None:
                text = error.message or type(error).__name__
                self._connection.send(Message.new_error(message, str(error.name), text))
            else:
                self._connection.send(Message.new_method_return(message, signature, body or []))
        close_fds(message.unix_fds)
        message.unix_fds.clear()


async def _outcome(message: Message, work: Awaitable[Any]) -> tuple[Any, errors.Error | None]:
    """What came of it: a result, or the error the caller is to see. Nothing escapes but the end
    of the process: a cancelled call is one that was cut off, and its caller is told."""
    try:
        return await work, None
    except errors.Error as error:
        return None, error
    except asyncio.CancelledError:
        return None, errors.Interrupted("the service is stopping; the call was cut off")
    except Exception:
        _log.exception("%s failed", _shown(message))
        return None, errors.Error(_FAULT)


def _body(method: MethodSpec, result: Any) -> list[Any]:
    if not method.outs:
        values: tuple[Any, ...] = ()
    elif len(method.outs) == 1:
        values = (result,)
    else:
        values = result
    return [converter(arg.signature)(value) for arg, value in zip(method.outs, values, strict=True)]


def _has(message: Message, flag: MessageFlag) -> bool:
    return bool(message.flags.value & flag.value)


def _shown(message: Message) -> str:
    return f"{message.interface}.{message.member} on {message.path} by {message.sender}"
