"""Work that a cancelled caller cannot leave half-done."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from ...tasks import uninterrupted

P = ParamSpec("P")
T = TypeVar("T")


def settled(
    method: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """A method that runs to its end even when its caller is cancelled, which is told then.

    A change of a pool cannot be broken off in the kernel: it is either done or undone.
    """

    @wraps(method)
    async def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        return await uninterrupted(method(*args, **kwargs))

    return whole
