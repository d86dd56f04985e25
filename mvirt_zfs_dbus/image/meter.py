"""Progress, told now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from ..model import Phase
from .base import Progress

INTERVAL: Final = 0.1
"""Seconds between two reports, at least."""


class Meter:
    """Counts the bytes of one phase, from any thread, and reports them a few times a second."""

    def __init__(self, phase: Phase, total: int, report: Callable[[Progress], None]) -> None:
        self._phase = phase
        self._total = total
        self._report = report
        self._lock = threading.Lock()
        self._done = 0
        self._reported_at = 0.0
        self._tell()
        self._reported_at = 0.0  # the first bytes are news, and are told at once

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            if time.monotonic() - self._reported_at >= INTERVAL:
                self._tell()

    def finish(self) -> None:
        """The last report, which is exact."""
        with self._lock:
            self._done = self._total or self._done
            self._total = self._done
            self._tell()

    def _tell(self) -> None:
        self._reported_at = time.monotonic()
        done = min(self._done, self._total) if self._total else self._done
        self._report(Progress(self._phase, done, self._total))
