"""A full copy: ``zfs send`` into ``zfs receive``, counted on its way and broken off at any moment.

The kernel writes into one pipe and reads from another; between them the bytes are spliced, which is
where they are counted. Closing the pipes ends both calls, and the receiving side then takes away
what it had.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final

from ...errors import Error
from .kernel import Kernel
from .properties import Properties

_PIPE: Final = 1024 * 1024
"""Bytes a pipe holds, and the most that is counted at once."""
_COPIES: Final = 2
"""Copies at a time; more only make the disks seek."""
_REPORTS: Final = 0.25
"""Seconds between two calls of ``progress``."""

Progress = Callable[[int, int], None]


class Copier:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._free = asyncio.Semaphore(_COPIES)
        self._threads = ThreadPoolExecutor(3 * _COPIES, thread_name_prefix="zfs-copy")

    def close(self) -> None:
        """Copies that still run are their callers' to cancel first."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def copy(
        self, source: str, target: str, properties: Properties, progress: Progress
    ) -> None:
        """Receive the snapshot ``source`` as the snapshot ``target`` of a new dataset.

        Cancelled, or failed, it leaves no dataset.
        """
        async with self._free:
            total = await self._kernel.run(self._kernel.send_size, source)
            await _Copy(self._kernel, self._threads, source, target, total).run(
                properties, progress
            )


class _Copy:
    def __init__(
        self, kernel: Kernel, threads: ThreadPoolExecutor, source: str, target: str, total: int
    ) -> None:
        self._kernel = kernel
        self._threads = threads
        self._source = source
        self._target = target
        self._total = total
        self._done = 0
        self._broken_off = False
        self._failures: list[Error] = []
        """In their order: the first is the reason, what follows is the other end noticing."""

    async def run(self, properties: Properties, progress: Progress) -> None:
        sent, sending = _pipe()
        receiving, to_receive = _pipe()
        together = asyncio.gather(
            self._in_thread(self._send, sending),
            self._in_thread(self._pump, sent, to_receive),
            self._in_thread(self._receive, receiving, properties),
        )
        try:
            while not together.done():
                await asyncio.wait([together], timeout=_REPORTS)
                progress(min(self._done, self._total), self._total)
        except asyncio.CancelledError:
            self._broken_off = True  # the pump closes both pipes, which ends the calls
            await _outlast(together)
            raise
        if self._failures:
            raise self._failures[0]
        together.result()
        progress(self._total, self._total)

    def _in_thread(self, work: Callable[..., None], *arguments: object) -> asyncio.Future[None]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _send(self, fd: int) -> None:
        with self._end(fd):
            self._kernel.send(self._source, fd)

    def _receive(self, fd: int, properties: Properties) -> None:
        with self._end(fd):
            self._kernel.receive(self._target, fd, properties)

    @contextmanager
    def _end(self, fd: int) -> Iterator[None]:
        try:
            yield
        except Error as error:
            self._failures.append(error)
        finally:
            os.close(fd)

    def _pump(self, source: int, target: int) -> None:
        try:
            while not self._broken_off:
                moved = os.splice(source, target, _PIPE)
                if not moved:
                    return
                self._done += moved
        except BrokenPipeError:
            return  # the receiving call says why it ended
        finally:
            os.close(source)
            os.close(target)


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with suppress(OSError):  # over the user's pipe limit (pipe(7)): the usual 64 KiB do as well
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE)
    return reading, writing


async def _outlast(work: asyncio.Future[tuple[None, None, None]]) -> None:
    while not work.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([work])
    work.exception()
