"""Rates, expected ends, and how often clients are told."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from mvirt_zfs_dbus.core import progress as progress_module
from mvirt_zfs_dbus.core.clock import now
from mvirt_zfs_dbus.core.progress import Meter, Progress
from mvirt_zfs_dbus.model import Job, JobState, Operation, Phase

JOB = Job("id", Operation.IMPORT_VOLUME, "web", "/image", 0)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_the_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    meter = Meter(clock)
    for second in range(20):
        clock.seconds = second
        slow = meter.rate(second * 100)
    assert slow == 100
    for second in range(20, 40):
        clock.seconds = second
        fast = meter.rate(1900 + (second - 19) * 1000)
    assert fast == 1000


def test_a_count_that_starts_again_starts_the_rate_again() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.rate(0)
    clock.seconds = 1
    assert meter.rate(500) == 500
    assert meter.rate(0) == 0


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 10**12)), max_size=30))
def test_the_rate_is_never_negative(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    meter = Meter(clock)
    for seconds, done in steps:
        clock.seconds += seconds
        assert meter.rate(done) >= 0


async def test_clients_are_told_in_measure_and_the_last_report_is_exact() -> None:
    told: list[Job] = []
    twice = asyncio.Event()

    def tell(job: Job) -> None:
        told.append(job)
        if len(told) == 2:
            progress.report(Phase.WRITING, 1000, 1000)
            twice.set()

    progress = Progress(JOB, tell)
    progress.begin()
    for done in range(1000):
        progress.report(Phase.WRITING, done, 1000)
    assert [job.state for job in told] == [JobState.RUNNING]
    async with asyncio.timeout(60):
        await twice.wait()
    assert [job.bytes_done for job in told] == [0, 999]
    assert progress.close().bytes_done == 1000
    await asyncio.sleep(progress_module.INTERVAL * 1.2)
    assert len(told) == 2


async def test_the_end_is_expected_from_the_rate_and_unknown_without_a_total() -> None:
    progress = Progress(JOB, lambda job: None)
    progress.report(Phase.DOWNLOADING, 0, 1000)
    assert progress.job.expected_end_at == 0
    await asyncio.sleep(0.05)
    progress.report(Phase.DOWNLOADING, 500, 1000)
    assert now() < progress.job.expected_end_at < now() + 5_000_000
    progress.report(Phase.DOWNLOADING, 600, 0)
    assert progress.job.expected_end_at == 0
    assert not progress.job.progress_valid


async def test_an_end_centuries_away_is_unknown() -> None:
    """A server may announce any length and then send a byte a second."""
    progress = Progress(JOB, lambda job: None)
    progress.report(Phase.DOWNLOADING, 0, 2**63 - 1)
    await asyncio.sleep(0.05)
    progress.report(Phase.DOWNLOADING, 1, 2**63 - 1)
    assert progress.job.rate
    assert progress.job.expected_end_at == 0
