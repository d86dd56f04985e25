"""A few threads with a bounded amount of work before them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final

THREADS: Final = 4
"""More than two processors are kept busy by, for a thread that writes past the page cache waits for
the disk; a disk does its best with as many writes before it (bench/README.md, «Writing»)."""


class Pool:
    """Threads that all exist from the start, for afterwards the sandbox lets none begin.

    At most ``2 × threads`` pieces of work are under way, which bounds the memory they hold.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._executor = ThreadPoolExecutor(threads)
        self._limit = 2 * threads
        self._slots = threading.Semaphore(self._limit)
        self._failure: BaseException | None = None
        self._abandoned = False
        self._started: list[Future[Any]] = []
        all_running = threading.Barrier(threads + 1)
        for _ in range(threads):
            self._executor.submit(all_running.wait)
        all_running.wait()

    def run(self, work: Callable[..., object], *arguments: object) -> None:
        """Do it soon. Raises what an earlier piece of work raised."""
        self._slots.acquire()
        try:
            self._raise_failure()
            self._executor.submit(self._work, work, arguments)
        except BaseException:
            self._slots.release()
            raise

    def start(self, work: Callable[..., object], *arguments: object) -> Future[Any]:
        """Do it beside the rest, for as long as it takes."""
        future = self._executor.submit(work, *arguments)
        self._started = [other for other in self._started if not other.done()] + [future]
        return future

    def finish(self) -> None:
        """Wait until all is done. Raises what any of it raised."""
        self._wait()
        self._raise_failure()

    def abandon(self) -> None:
        """Wait until nothing runs any more; what has not begun does not begin."""
        self._abandoned = True
        for future in self._started:
            future.cancel()
        wait(self._started)
        self._wait()
        self._started.clear()
        self._failure = None
        self._abandoned = False

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _work(self, work: Callable[..., object], arguments: tuple[object, ...]) -> None:
        try:
            if not self._abandoned and self._failure is None:
                work(*arguments)
        except BaseException as error:  # whoever gives or awaits work gets it
            self._failure = error
        finally:
            self._slots.release()

    def _wait(self) -> None:
        for _ in range(self._limit):
            self._slots.acquire()
        self._slots.release(self._limit)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure:
            raise failure
