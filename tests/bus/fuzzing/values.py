"""Signatures taken apart, and how deep values are."""

from __future__ import annotations

from typing import Any, Final

from mvirt_zfs_dbus.bus.wire import Variant

DEEPEST: Final = 64
"""Containers in one another in a message: a bus ends the connection of whoever sends more
(validate_body_helper() in libdbus's dbus-marshal-validate.c)."""


def depth(value: Any) -> int:
    """How many containers are in one another; a dictionary is an array of entries."""
    match value:
        case Variant():
            return 1 + depth(value.value)
        case dict():
            return 2 + max(map(depth, value.values()), default=0)
        case list():
            return 1 + max(map(depth, value), default=0)
    return 0


def parts(signature: str) -> list[str]:
    """The complete types of a signature."""
    found, position = [], 0
    while position < len(signature):
        end = _end(signature, position)
        found.append(signature[position:end])
        position = end
    return found


def _end(signature: str, position: int) -> int:
    match signature[position]:
        case "a":
            return _end(signature, position + 1)
        case "(" | "{":
            depth = 0
            for end in range(position, len(signature)):
                depth += (signature[end] in "({") - (signature[end] in ")}")
                if not depth:
                    return end + 1
    return position + 1
