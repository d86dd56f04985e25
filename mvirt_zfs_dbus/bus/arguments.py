"""What a method call brings along, checked against what the method takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidArgs
from .interface import Arg, MethodSpec
from .wire import Message, Variant, unpacked


def check_signature(method: MethodSpec, signature: str) -> None:
    if signature != method.signature:
        takes = ", ".join(f"{arg.name}: {arg.signature}" for arg in method.all_ins) or "nothing"
        raise InvalidArgs(
            f"{method.name} takes ({takes}), signature {method.signature!r};"
            f" the call has {signature!r}"
        )


def check_fds(message: Message) -> None:
    """A call holds its fds open as long as it takes: no more of them than it has use for."""
    passed, named = len(message.unix_fds), message.signature.count("h")
    if passed > named:
        raise InvalidArgs(
            f"{passed} file descriptors came with the call; its arguments have use for"
            f" {named or 'none'}"
        )


def arguments(method: MethodSpec, message: Message) -> tuple[Any, ...]:
    """The arguments without the options, with fds in the place of their indexes."""
    return tuple(
        _fd(arg, value, message.unix_fds) if arg.signature == "h" else unpacked(value)
        for arg, value in zip(method.ins, message.body, strict=False)
    )


def options(method: MethodSpec, message: Message) -> dict[str, Any]:
    """The trailing options, each one known and of its type."""
    if method.options is None:
        return {}
    given: dict[str, Variant] = message.body[-1]
    return {name: _option(method.options, name, value) for name, value in given.items()}


def _option(known: Mapping[str, str], name: str, value: Variant) -> Any:
    signature = known.get(name)
    if signature is None:
        raise InvalidArgs(f"option {name!r} is not known here; {_allowed(known)}")
    if value.signature != signature:
        raise InvalidArgs(
            f"option {name!r} has type {value.signature!r} and not {signature!r}; {_allowed(known)}"
        )
    return unpacked(value)


def _allowed(known: Mapping[str, str]) -> str:
    if not known:
        return "this method knows no options"
    return "allowed: " + ", ".join(f"{name} ({signature})" for name, signature in known.items())


def _fd(arg: Arg, index: int, fds: list[int]) -> int:
    if index >= len(fds):
        raise InvalidArgs(f"no file descriptor came with the call for {arg.name}")
    return fds[index]
