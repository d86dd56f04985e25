"""How calls are answered, each once, whoever ends it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from .. import errors
from .framing import METHOD_CALL, LargeMessage
from .interface import MethodSpec
from .objects import ObjectTree
from .socket_io import close_fds
from .users import Request
from .values import converter
from .wire import Connection, Message, MessageFlag, MessageType

_log = logging.getLogger(__name__)

FAULT: Final = (
    "a fault of the service, which is not the caller's doing; the service's log has the details"
)


class Answers:
    """``finished`` is told of each request that is answered, with the bytes of the answer."""

    def __init__(
        self,
        connection: Connection,
        tree: ObjectTree,
        finished: Callable[[Request, int], None],
    ) -> None:
        self._connection = connection
        self._tree = tree
        self._finished = finished

    def result(
        self, request: Request, method: MethodSpec, result: Any, error: errors.Error | None
    ) -> errors.Error | None:
        """Answer with what a handler returned, or with an error, and tell with which."""
        body: list[Any] = []
        if error is None:
            try:
                body = _body(method, result)
            except Exception:
                _log.exception("%s answered %r", shown(request.message), result)
                error = errors.Error(FAULT)
        return self.finish(request, error, method.out_signature, body)

    def finish(
        self,
        request: Request,
        error: errors.Error | None,
        signature: str = "",
        body: list[Any] | None = None,
    ) -> errors.Error | None:
        """Say all that waits to be said, then reply if the caller wants it; close the fds. The
        answer is the error that was sent, if it was one."""
        message, size = request.message, 0
        self._tree.flush()
        if wants_reply(message.flags.value) and not (request.user and request.user.silent):
            if error is None:
                size, error = self._send(message, signature, body or [])
            if error is not None:
                text = error.message or type(error).__name__
                size = self._connection.send(Message.new_error(message, str(error.name), text))
        close_fds(message.unix_fds)
        message.unix_fds.clear()
        self._finished(request, size)
        return error

    def _send(
        self, message: Message, signature: str, body: list[Any]
    ) -> tuple[int, errors.Error | None]:
        try:
            reply = Message.new_method_return(message, signature, body)
            return self._connection.send(reply, counted=True), None
        except errors.LimitsExceeded as too_large:
            return 0, too_large
        except Exception:
            _log.exception("%s cannot be answered", shown(message))
            return 0, errors.Error(FAULT)

    def too_large(self, large: LargeMessage, limit: int) -> None:
        """Refuse a call that was not read; a signal is nobody's loss."""
        if large.kind == METHOD_CALL and wants_reply(large.flags) and large.sender:
            text = f"a call of {large.size} bytes; at most {limit} are read"
            self._connection.send(
                Message(
                    message_type=MessageType.ERROR,
                    destination=large.sender,
                    reply_serial=large.serial,
                    error_name=str(errors.LimitsExceeded.name),
                    signature="s",
                    body=[text],
                )
            )


def wants_reply(flags: int) -> bool:
    return not flags & MessageFlag.NO_REPLY_EXPECTED.value


def shown(message: Message) -> str:
    return f"{message.interface}.{message.member} on {message.path} by {message.sender}"


def _body(method: MethodSpec, result: Any) -> list[Any]:
    if not method.outs:
        values: tuple[Any, ...] = ()
    elif len(method.outs) == 1:
        values = (result,)
    else:
        values = result
    return [converter(arg.signature)(value) for arg, value in zip(method.outs, values, strict=True)]
