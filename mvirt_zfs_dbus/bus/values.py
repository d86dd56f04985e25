"""Plain values on their way to the bus, in exactly the types the D-Bus libraries take."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from .library import countable
from .wire import Variant

_MOST: Final = 2**64 - 1


def _text(value: Any) -> str:
    """What no D-Bus string can hold (NUL, lone surrogates) replaced: a text that cannot be sent
    would take with it every answer it is a part of."""
    text = str(value)
    if text.isascii() and "\0" not in text:
        return text
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    return countable(text)


def _count(value: Any) -> int:
    """A sum can be more than a D-Bus number holds, and says so by being the largest."""
    return min(int(value), _MOST)


_BASIC: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys("og", str),
    **dict.fromkeys("ynqiuxh", int),
    "s": _text,
    "t": _count,
    "b": bool,
    "d": float,
    "v": lambda value: value,
}


@lru_cache
def converter(signature: str) -> Callable[[Any], Any]:
    """What turns a value into one for this signature.

    An enumeration becomes its string, a tuple a list, any mapping a dict: the libraries refuse
    subclasses and look-alikes, or take them for something else.
    """
    if signature.startswith("a{"):
        key, value = converter(signature[2]), converter(signature[3:-1])
        return lambda mapping: {key(name): value(item) for name, item in mapping.items()}
    if signature.startswith("a"):
        element = converter(signature[1:])
        return lambda sequence: [element(item) for item in sequence]
    return _BASIC[signature]


def variant(signature: str, value: Any) -> Variant:
    return Variant(signature, converter(signature)(value))
