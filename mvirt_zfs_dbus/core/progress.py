"""How far a job is, how fast it goes and when it will end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ..model import Job, JobState, Phase
from .clock import now

INTERVAL: Final = 0.25
"""Seconds between two reports to clients: at most four a second, as the contract has it."""
WINDOW: Final = 5.0
"""Seconds the rate is an average over: long enough to be calm, short enough to be true."""
SHORTEST: Final = 0.01
"""Seconds below which a rate says nothing, and may not even fit into its property."""
HORIZON: Final = 100 * 365 * 24 * 3600 * 1_000_000
"""Microseconds; an end farther away than a hundred years is as good as unknown."""


class Meter:
    """Bytes per second over the last few seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def rate(self, done: int) -> int:
        """Note that ``done`` bytes are done now; the answer is the rate of late."""
        moment = self._clock()
        if self._samples and done < self._samples[-1][1]:
            self._samples.clear()  # another phase, counting from the start
        self._samples.append((moment, done))
        while len(self._samples) > 2 and self._samples[1][0] <= moment - WINDOW:
            self._samples.popleft()
        first, counted = self._samples[0]
        elapsed = moment - first
        return round((done - counted) / elapsed) if elapsed >= SHORTEST else 0


class Progress:
    """Turns what an operation reports into a job's properties, and tells of them in measure."""

    def __init__(self, job: Job, publish: Callable[[Job], None]) -> None:
        self.job = job
        """As last reported, which may be later than what was last told."""
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._meter = Meter(self._loop.time)
        self._next = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.committed = False
        """Past the last point at which the operation can be undone."""

    def begin(self) -> None:
        """It is the job's turn."""
        self.job = replace(self.job, state=JobState.RUNNING, started_at=now())
        self._tell()

    def commit(self) -> None:
        """From here on the job comes to its end whatever happens."""
        self.committed = True

    def report(self, phase: Phase | None = None, done: int = 0, total: int = 0) -> None:
        """``total`` 0: unknown."""
        rate = self._meter.rate(done)
        left = (total - done) * 1_000_000 // rate if rate and total > done else 0
        self.job = replace(
            self.job,
            phase=self.job.phase if phase is None else phase,
            bytes_done=done,
            bytes_total=total,
            rate=rate,
            expected_end_at=now() + left if 0 < left < HORIZON else 0,
        )
        if self._timer is None:
            delay = max(0.0, self._next - self._loop.time())
            if delay:
                self._timer = self._loop.call_later(delay, self._tell)
            else:
                self._tell()

    def close(self) -> Job:
        """The job as last reported; nothing is told any more."""
        if self._timer:
            self._timer.cancel()
        return self.job

    def _tell(self) -> None:
        self._timer = None
        self._next = self._loop.time() + INTERVAL
        self._publish(self.job)
