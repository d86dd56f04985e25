"""A few threads with a bounded amount of work before them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

THREADS = max(2, min(4, os.cpu_count() or 1))


class Pool:
    """Threads that all exist from the start, for afterwards the sandbox lets none begin.

    At most ``2 × threads`` pieces of work are under way, which bounds the memory they hold.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._executor = ThreadPoolExecutor(threads)
        self._limit = 2 * threads
        self._running: set[Future[Any]] = set()
        self._started: list[Future[Any]] = []
        all_running = threading.Barrier(threads + 1)
        for _ in range(threads):
            self._executor.submit(all_running.wait)
        all_running.wait()

    def run(self, work: Callable[..., object], *arguments: object) -> None:
        """Do it soon. Raises what an earlier piece of work raised."""
        while len(self._running) >= self._limit:
            self._collect(FIRST_COMPLETED)
        self._running.add(self._executor.submit(work, *arguments))

    def start(self, work: Callable[..., object], *arguments: object) -> Future[Any]:
        """Do it beside the rest, for as long as it takes."""
        future = self._executor.submit(work, *arguments)
        self._started = [other for other in self._started if not other.done()] + [future]
        return future

    def abandon(self) -> None:
        """Wait until nothing runs any more; what has not begun does not begin."""
        futures = [*self._running, *self._started]
        for future in futures:
            future.cancel()
        wait(futures)
        self._running.clear()
        self._started.clear()

    def finish(self) -> None:
        """Wait until all is done. Raises what any of it raised."""
        while self._running:
            self._collect(FIRST_COMPLETED)

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _collect(self, when: str) -> None:
        done, self._running = wait(self._running, return_when=when)
        for future in done:
            future.result()
