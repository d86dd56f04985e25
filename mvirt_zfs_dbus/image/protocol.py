"""What the daemon, the fork server and the worker processes say to each other.

A frame is a small JSON object with a ``type`` and the fields of one message class below. Whatever
else arrives is an ``Error``, never a guess: the other end may be a decoder that a hostile image has
taken over. ``channel.py`` carries the frames.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, Final

from ..errors import Error

MAX_FRAME: Final = 64 * 1024
_MAX_NUMBER: Final = 2**63 - 1
"""Sizes are what off_t can hold."""


@dataclass(frozen=True, slots=True)
class Message:
    """One frame. ``fds`` is how many file descriptors travel with it."""

    fds: ClassVar[int] = 0


# Daemon → fork server, and back


@dataclass(frozen=True, slots=True)
class Ready(Message):
    """The fork server has loaded its modules."""


@dataclass(frozen=True, slots=True)
class Fork(Message):
    """Start a worker; with its control socket and the socket its fate is reported on."""

    fds: ClassVar[int] = 2
    role: str


@dataclass(frozen=True, slots=True)
class Forked(Message):
    """The worker runs; with its pidfd."""

    fds: ClassVar[int] = 1
    pid: int


@dataclass(frozen=True, slots=True)
class Exited(Message):
    """The worker is dead and reaped. ``status`` is a wait status (wait(2)).

    The daemon tells a converter the same of its qemu-img.
    """

    status: int


# Daemon → converter


@dataclass(frozen=True, slots=True)
class Open(Message):
    """What to read; with the source. ``length`` is a stream's, where it is known."""

    fds: ClassVar[int] = 1
    image_format: str
    checksum_algorithm: str | None
    length: int | None


@dataclass(frozen=True, slots=True)
class Write(Message):
    """Where to write; with the target."""

    fds: ClassVar[int] = 1
    size: int
    is_zero: bool


@dataclass(frozen=True, slots=True)
class Spool(Message):
    """The temporary file that was asked for."""

    fds: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Program(Message):
    """The process that was asked for; with the other end of its control socket."""

    fds: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Resized(Message):
    """The target has ``size`` bytes now."""

    size: int


# Converter → daemon


@dataclass(frozen=True, slots=True)
class Image(Message):
    """What the source turned out to be."""

    format: str
    virtual_size: int | None
    allocated: int | None


@dataclass(frozen=True, slots=True)
class NeedSpool(Message):
    """A temporary file is needed."""


@dataclass(frozen=True, slots=True)
class NeedProgram(Message):
    """A process that becomes qemu-img is needed."""


@dataclass(frozen=True, slots=True)
class AwaitProgram(Message):
    """The newest of them has closed its output; ``Exited`` is the answer."""


@dataclass(frozen=True, slots=True)
class Resize(Message):
    """The target has to hold ``least`` bytes now, and ``size`` if there is room for it."""

    size: int
    least: int


@dataclass(frozen=True, slots=True)
class Report(Message):
    """Progress, in bytes of the source. ``total`` 0: unknown."""

    phase: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Done(Message):
    """The target is written and synced. ``received`` counts the source's bytes."""

    size: int
    digest: str | None
    received: int


# Converter → the process that becomes qemu-img


@dataclass(frozen=True, slots=True)
class Inspect(Message):
    """Tell what the image is; with a pipe for the answer, a file for messages, the image."""

    fds: ClassVar[int] = 3
    image_format: str


@dataclass(frozen=True, slots=True)
class Convert(Message):
    """Write the disk in the image; with the same, and the target. ``seconds`` of CPU time."""

    fds: ClassVar[int] = 4
    image_format: str
    target_is_zero: bool
    seconds: int


# Daemon → downloader, and back


@dataclass(frozen=True, slots=True)
class Fetch(Message):
    """What to download; with the pipe it goes into. ``stall_timeout`` in milliseconds.

    ``allow`` and ``deny`` are the lists of ``hosts.HostRules``; ``checked_later``: a checksum will
    tell whether all of it came.
    """

    fds: ClassVar[int] = 1
    url: str
    stall_timeout: int
    allow: list[str]
    deny: list[str]
    checked_later: bool


@dataclass(frozen=True, slots=True)
class Response(Message):
    """The server's answer has begun."""

    length: int | None


@dataclass(frozen=True, slots=True)
class Fetched(Message):
    """All of it went into the pipe."""

    received: int


@dataclass(frozen=True, slots=True)
class Unwanted(Message):
    """The pipe's reader is gone."""


# Either worker → daemon


@dataclass(frozen=True, slots=True)
class Failure(Message):
    """The end: an error name of ``names.ErrorName`` and a message for people."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Fault(Message):
    """The end, for a reason the worker was not made for: a traceback for the log."""

    text: str


_TYPES: Final[Mapping[str, type[Message]]] = {cls.__name__: cls for cls in Message.__subclasses__()}


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_NUMBER


def _is_text(value: object) -> bool:
    return type(value) is str


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


_CHECKS: Final[Mapping[str, Callable[[object], bool]]] = {
    "str": _is_text,
    "str | None": lambda value: value is None or _is_text(value),
    "list[str]": _is_list,
    "int": _is_number,
    "int | None": lambda value: value is None or _is_number(value),
    "bool": lambda value: type(value) is bool,
}


def encode(message: Message) -> bytes:
    data = json.dumps({"type": type(message).__name__, **asdict(message)}).encode()
    if len(data) > MAX_FRAME:
        raise Error(f"a {type(message).__name__} message of {len(data)} bytes is too long to send")
    return data


def decode(data: bytes) -> Message:
    """The message in a frame. Error: the frame is none of the messages above."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise Error(f"an import worker sent {len(data)} bytes that are no message")
    name = values.pop("type", None)
    cls = _TYPES.get(name) if isinstance(name, str) else None
    if cls is None:
        raise Error(f"an import worker sent a message of the unknown type {str(name)[:100]!r}")
    expected = {field.name: _CHECKS[str(field.type)] for field in fields(cls)}
    if values.keys() != expected.keys() or not all(
        check(values[field]) for field, check in expected.items()
    ):
        raise Error(f"an import worker sent a {name} message with wrong fields")
    return cls(**values)
