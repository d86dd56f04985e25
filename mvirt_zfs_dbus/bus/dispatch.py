"""A message's way: method call → member → arguments → authorisation → handler → reply or error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from .. import errors
from . import arguments, standard
from .admission import CALLS_PER_SENDER, SECONDS_PER_CHANGE, Admission
from .answers import FAULT, Answers, shown
from .audit import AuditLog
from .framing import LargeMessage
from .interface import Call, Interface, MethodSpec
from .objects import Node, ObjectTree
from .polkit import Authority
from .users import Request, User
from .wire import Connection, Message, MessageFlag

_log = logging.getLogger(__name__)

LARGEST_CALL: Final = 128 * 1024
"""Bytes of a message that is read. The largest call there is use for has 6 KiB of labels, 8 KiB of
a URL, and names."""
MAX_BACKLOG: Final = 128 * 1024 * 1024
"""Bytes of replies and signals the bus has not taken; with more, calls are refused."""
FLOOD: Final = 0.1
"""Seconds in which the calls of a connection with too many are not read if they want no answer. No
bus holds those back, and reading them takes longer than sending them."""

_STOPPING: Final = "the service is stopping"


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
        max_calls_per_sender: int = CALLS_PER_SENDER,
    ) -> None:
        self._connection = connection
        self._tree = tree
        self._authority = authority
        self._audit = AuditLog()
        self._admission = Admission(
            connection, self._handle, self._refuse, calls_per_sender=max_calls_per_sender
        )
        self._answers = Answers(connection, tree, self._admission.finished)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        connection.framing.limit(LARGEST_CALL, self._too_large)
        connection.on_call(self._receive)

    async def close(self) -> None:
        """Cut off the calls in flight, each with an answer, and refuse those that still come."""
        self._closing = True
        await self._admission.close()
        await asyncio.sleep(0)  # a task cancelled before its first step could not answer
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    # From a message to who answers it

    def _receive(self, message: Message) -> None:
        """Every method call. Each way from here ends in its answer, which closes its fds."""
        request = Request(message)
        try:
            self._refuse_overload()
            arguments.check_fds(message)
            self._admission.admit(request)
        except errors.Error as error:
            self._refuse(request, error)

    def _refuse_overload(self) -> None:
        if self._closing:
            raise errors.Interrupted(_STOPPING)
        if self._connection.backlog > MAX_BACKLOG:
            raise errors.LimitsExceeded("too many replies wait to be read by their callers")

    def _refuse(self, request: Request, error: errors.Error) -> None:
        """Answer a call that is not even looked at; one that would change something is recorded."""
        try:
            target = self._target(request.message)
            if target.method.changes:
                self._audit.write(_call(request, target), {}, error)
        except errors.Error:
            pass  # it is wrong in more than one way
        self._answers.finish(request, error)
        if isinstance(error, errors.LimitsExceeded) and request.user and request.user.bounded:
            self._connection.framing.pass_over(request.message.sender or "", FLOOD)

    def _too_large(self, large: LargeMessage) -> None:
        self._admission.charge(large.sender, large.size)
        self._answers.too_large(large, LARGEST_CALL)

    def _handle(self, request: Request) -> None:
        """It is the call's turn."""
        message = request.message
        try:
            found = standard.find(message.interface or "", message.member or "")
            if found is not None:
                self._standard(request, found)
            else:
                self._member(request, self._target(message))
        except errors.Error as error:
            self._answers.finish(request, error)
        except Exception:
            _log.exception("%s failed", shown(message))
            self._answers.finish(request, errors.Error(FAULT))

    def _standard(self, request: Request, method: standard.StandardMethod) -> None:
        message = request.message
        if message.signature != method.signature:
            raise errors.InvalidArgs(
                f"{message.member} has signature {method.signature!r};"
                f" the call has {message.signature!r}"
            )
        answer = method.answer(self._tree, message.path, *message.body)
        if isinstance(answer, list):
            self._answers.finish(request, None, method.out_signature, answer)
        else:
            self._spawn(self._answer_later(request, method, answer))

    async def _answer_later(
        self,
        request: Request,
        method: standard.StandardMethod,
        answer: Coroutine[Any, Any, list[Any]],
    ) -> None:
        body, error = await _outcome(request.message, self._read(request, answer))
        self._answers.finish(request, error, method.out_signature, body or [])

    async def _read(self, request: Request, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            async with self._admission.reading(_user(request)):
                return await work
        finally:
            work.close()  # where it never had its turn

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

    def _member(self, request: Request, target: _Target) -> None:
        call = _call(request, target)
        if target.method.changes:
            _user(request).charge(SECONDS_PER_CHANGE)
            self._spawn(self._change(request, target, call))
        else:
            self._spawn(self._query(request, target, call))

    # From the start of a call to its end

    async def _query(self, request: Request, target: _Target, call: Call) -> None:
        work = self._read(request, self._perform(request.message, target, call))
        result, error = await _outcome(request.message, work)
        error = self._of_its_object(call, error)
        self._answers.result(request, target.method, result, error)

    async def _change(self, request: Request, target: _Target, call: Call) -> None:
        details: dict[str, str] = {}
        work = self._perform_if_allowed(request.message, target, call, details)
        result, error = await _outcome(request.message, work)
        error = self._of_its_object(call, error)
        self._audit.write(
            call, details, self._answers.result(request, target.method, result, error)
        )

    def _of_its_object(self, call: Call, error: errors.Error | None) -> errors.Error | None:
        """What a method of an object does not find is the object, which went meanwhile."""
        if isinstance(error, errors.NotFound) and call.path != self._tree.root:
            return errors.UnknownObject(error.message)
        return error

    async def _perform_if_allowed(
        self, message: Message, target: _Target, call: Call, details: dict[str, str]
    ) -> Any:
        self._read_arguments(message, target, call)
        await self._authorize(target, call, details)
        return await self._run(target, call)

    async def _perform(self, message: Message, target: _Target, call: Call) -> Any:
        self._read_arguments(message, target, call)
        return await self._run(target, call)

    def _read_arguments(self, message: Message, target: _Target, call: Call) -> None:
        arguments.check_signature(target.method, message.signature)
        call.args = arguments.arguments(target.method, message)
        call.options = arguments.options(target.method, message)

    async def _run(self, target: _Target, call: Call) -> Any:
        handler = getattr(target.interface, target.method.attribute)
        return await handler(call, target.node.key, *call.args)

    async def _authorize(self, target: _Target, call: Call, details: dict[str, str]) -> None:
        """Ask until the answer is for what is there now: a prompt can stay open for minutes, and
        the object may get another name, or go, meanwhile. ``details`` is for the record."""
        key = target.node.key
        asked = None
        while (wanted := _wanted(target, call)) != asked:
            action, told = asked = wanted
            details.clear()
            details.update(told)
            if action is None:
                return
            await self._authority.authorize(call, action, told)
            if standard.object_at(self._tree, call.path).key != key:
                raise errors.UnknownObject(f"the object at {call.path} is another one now")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _user(request: Request) -> User:
    assert request.user
    return request.user


def _call(request: Request, target: _Target) -> Call:
    message = request.message
    return Call(
        sender=message.sender or "",
        uid=request.user.uid if request.user else -1,
        interactive=_has(message, MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION),
        path=message.path or "",
        interface=target.interface.name,
        member=target.method.name,
        fds=message.unix_fds,
    )


def _wanted(target: _Target, call: Call) -> tuple[Any, dict[str, str]]:
    details = target.interface.details(call, target.node.key)
    return target.method.action(target.interface, call, target.node.key), details


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
        _log.exception("%s failed", shown(message))
        return None, errors.Error(FAULT)


def _has(message: Message, flag: MessageFlag) -> bool:
    return bool(message.flags.value & flag.value)
