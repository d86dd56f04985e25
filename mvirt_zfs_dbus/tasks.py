"""What must not be left half-way, and what may never come to an end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

MAX_HUNG: Final = 32
"""Threads of :func:`bounded` at a time, those that hang among them."""

T = TypeVar("T")


async def uninterrupted(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end even when cancelled meanwhile, and raise the cancellation only then."""
    task = asyncio.ensure_future(coroutine)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task.exception()  # looked at, so that nobody is told it was not
        raise asyncio.CancelledError
    return task.result()


async def bounded(call: Callable[[], T], *, seconds: float, undo: Callable[[T], None]) -> T:
    """Run what may hang for ever, as a call into somebody's file system, in a thread of its own.

    TimeoutError: it did not end in time, or too many others hang already. The thread is left
    alone then, and ends with the process; what it answers after all is undone.
    """
    if not _free_threads.acquire(blocking=False):
        raise TimeoutError(f"{MAX_HUNG} calls hang already")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:
            tell(_fail, answer, error)
        else:
            if not tell(_finish, answer, result, undo):
                undo(result)
        finally:
            _free_threads.release()

    def tell(*what: Any) -> bool:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(*what)
            return True
        return False

    threading.Thread(target=run, name="bounded", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await answer


_free_threads: Final = threading.BoundedSemaphore(MAX_HUNG)


def _finish(answer: asyncio.Future[T], result: T, undo: Callable[[T], None]) -> None:
    if answer.done():  # nobody waits any more
        undo(result)
    else:
        answer.set_result(result)


def _fail(answer: asyncio.Future[Any], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)
