"""Closing file descriptors that came from somebody else, without waiting for their file system.

close(2) waits: for the server of a FUSE or network file system, which may be the caller's own and
never answer, and for what a socket still has to send (socket(7), SO_LINGER). A service that closes
such a descriptor itself stands still for everybody.
"""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from typing import Final

MAX_THREADS: Final = 32
"""So many descriptors may hang; those that come after wait for them, open."""


def close(fd: int) -> None:
    """Close a descriptor, now or soon. One that is closed already is no error."""
    try:  # its file system is not asked: that may wait as well
        opened = str(Path(f"/proc/self/fd/{fd}").readlink())
    except FileNotFoundError:
        return  # before a thread got to it, the number might be another's
    if opened.startswith("pipe:"):  # which never waits
        _close(fd)
    else:
        _closer.close(fd)


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:  # the descriptor is gone in any case: close(2)
        return


class _Closer:
    """Threads that come as they are needed, and stay. They keep no process from ending."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._threads = 0

    def close(self, fd: int) -> None:
        self._waiting.put(fd)
        if self._idle.acquire(blocking=False):
            return
        with self._lock:
            if self._threads == MAX_THREADS:
                return
            self._threads += 1
        threading.Thread(target=self._run, name="closer", daemon=True).start()

    def _run(self) -> None:
        while True:
            _close(self._waiting.get())
            self._idle.release()


_closer: Final = _Closer()
