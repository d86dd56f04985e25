"""Answers put together of pieces that were marshalled before: GetManagedObjects.

An entry of a dictionary begins at a multiple of eight bytes, and nothing in it is aligned to more
(D-Bus specification, «Marshaling»): its bytes are the same wherever it stands. So those of an
object are kept until the object changes, and the objects of a large pool are listed in the time
that copying takes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from . import library
from .library import Message

MANAGED: Final = "a{oa{sa{sv}}}"
"""Object path → interface name → property name → value."""

_LENGTH: Final = struct.Struct("<I")
_LENGTH_OF_BODY: Final = 4
"""Where a message has it. Both libraries write little-endian."""
_ALIGNMENT: Final = 8


class Entries:
    """A dictionary of signature ``MANAGED``, the only value of a message's body."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        """``entries`` of :func:`entry`, all of them but the last ``padded``."""
        self._entries = entries

    def follow(self, head: bytearray) -> bytes:
        """The message with this body. LimitsExceeded: it would be larger than a bus takes."""
        length = sum(map(len, self._entries))
        library.check_size(len(head) + _ALIGNMENT + length)
        _LENGTH.pack_into(head, _LENGTH_OF_BODY, _ALIGNMENT + length)
        return b"".join((head, _LENGTH.pack(length).ljust(_ALIGNMENT, b"\0"), *self._entries))


def entry(path: str, interfaces: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The bytes of one object, whose values were made by :mod:`.values`."""
    message = Message(
        destination="a.a",
        path="/",
        member="a",
        signature=MANAGED,
        body=[{path: interfaces}],
        serial=1,
    )
    return _split(library.marshalled(message, counted=True))[1][_ALIGNMENT:]


def padded(entry: bytes) -> bytes:
    """An entry that another one follows."""
    return entry + bytes(-len(entry) % _ALIGNMENT)


def marshalled(message: Message, *, counted: bool = False) -> bytes | bytearray:
    """As :func:`.library.marshalled`, of a message whose body may be Entries."""
    if not (message.body and isinstance(entries := message.body[0], Entries)):
        return library.marshalled(message, counted=counted)
    message.body = [{}]
    head, _ = _split(library.marshalled(message, counted=True))
    return entries.follow(head)


def _split(data: bytes | bytearray) -> tuple[bytearray, bytes]:
    """The head of a message, and its body."""
    (length,) = _LENGTH.unpack_from(data, _LENGTH_OF_BODY)
    return bytearray(data[:-length]), bytes(data[-length:])
