"""A peer: a command line, run and measured."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

from . import proc
from .samples import Sample

_LOOK = 0.01
"""Seconds between two looks at the memory. What wait4(2) tells of it begins with what the process
that started the command had."""


class CommandFailed(Exception):
    """A peer could not do its work; the message names it."""


def measured(command: Sequence[str]) -> Sample:
    """Run it to its end. ``memory`` is that of its largest process."""
    began = time.monotonic()
    pid = os.posix_spawnp(command[0], list(command), os.environ)
    memory = _Memory(pid)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.monotonic() - began
    most = memory.stop()
    if status:
        raise CommandFailed(f"{' '.join(command)}: {os.waitstatus_to_exitcode(status)}")
    return Sample(seconds, usage.ru_utime, usage.ru_stime, most)


def shell(line: str) -> tuple[str, ...]:
    """A command line for :func:`measured` that ends with its first failure."""
    return ("/bin/sh", "-ec", line)


class _Memory:
    """Looks at a process and its children from beside until it is stopped."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._most = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(_LOOK):
            for pid in (self._pid, *proc.children(self._pid)):
                self._most = max(self._most, proc.peak(pid))

    def stop(self) -> int:
        self._stopped.set()
        self._thread.join()
        return self._most
