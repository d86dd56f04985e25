"""The registry of jobs: their order, limits, progress, cancelling and records.

A job is one asyncio task that the registry owns. Its record is written when it is accepted and when
it ends, so that a service that starts again can tell which jobs were cut off.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from ..errors import Cancelled, Error, Interrupted, LimitsExceeded, NotCancelable, NotFound
from ..limits import Limits
from ..model import Job, JobState, Operation
from .clock import now
from .events import Change, Events, ObjectKind
from .progress import Progress
from .records import JobRecords

log = logging.getLogger(__name__)

KEPT: Final = 100
"""How many finished jobs stay readable; the oldest go."""

Work = Callable[[Progress], Awaitable[None]]
"""Makes a job's target. When it raises or is cancelled, it leaves nothing behind."""


@dataclass(slots=True)
class _Running:
    progress: Progress
    task: asyncio.Task[None] | None = None
    started: bool = False
    stopped_by: Error | None = None


class Jobs:
    def __init__(
        self, records: JobRecords, events: Events, max_running: int, limits: Limits
    ) -> None:
        self._records = records
        self._events = events
        self._jobs: dict[str, Job] = {}
        self._running: dict[str, _Running] = {}
        self._limits = limits
        self._unfinished: Counter[int] = Counter()
        """Jobs of each user."""
        self._slots = asyncio.Semaphore(max_running)  # first come, first served

    # Reading

    def get(self, job_id: str) -> Job:
        if job := self._jobs.get(job_id.lower()):
            return job
        raise NotFound(f"there is no job with the id {job_id!r}; the newest {KEPT} are kept")

    def all(self, *, finished: bool = True) -> list[Job]:
        """In the order they were accepted."""
        return [job for job in self._jobs.values() if finished or not job.state.finished]

    # Life

    async def start(self, exists: Callable[[str], bool]) -> None:
        """Remember the last run's jobs; ``exists`` tells whether a target had been published."""
        for job in await asyncio.to_thread(self._records.load):
            if not job.state.finished:
                job = _after_crash(job, published=exists(job.target_id))
                await self._record(job)
            self._jobs[job.id] = job
            self._events.emit(Change.ADDED, ObjectKind.JOB, job.id)
        await self._forget_old()

    async def close(self) -> None:
        """Interrupt what runs, and return when it has cleaned up after itself."""
        tasks = [
            self._stop(running, Interrupted("the service was stopped; start the job again"))
            for running in self._running.values()
        ]
        if tasks:
            await asyncio.wait(tasks)

    async def submit(
        self,
        operation: Operation,
        name: str,
        source: str,
        uid: int,
        target_id: str,
        work: Work,
        resources: ExitStack,
    ) -> str:
        """Accept a job; the answer is its id.

        ``resources`` (the name it reserved, the files it opened) are let go when it ends, or now
        when it cannot be accepted. LimitsExceeded: there are too many already.
        """
        job = Job(str(uuid.uuid4()), operation, name, source, uid, target_id=target_id)
        try:
            self._refuse_too_many(uid)
            self._unfinished[uid] += 1
            await self._record_new(job)
        except BaseException:
            resources.close()
            raise
        self._jobs[job.id] = job
        self._events.emit(Change.ADDED, ObjectKind.JOB, job.id)
        running = self._running[job.id] = _Running(Progress(job, self._show))
        running.task = asyncio.create_task(self._run(running, work, resources), name=job.id)
        return job.id

    def _refuse_too_many(self, uid: int) -> None:
        if self._unfinished[uid] >= self._limits.jobs_per_user:
            raise LimitsExceeded(
                f"{self._limits.jobs_per_user} jobs of uid {uid} are not finished; wait for some of"
                " them, or cancel some (max-jobs-per-user)"
            )
        if self._unfinished.total() >= self._limits.jobs:
            raise LimitsExceeded(f"{self._limits.jobs} jobs are not finished; wait (max-jobs)")

    async def _record_new(self, job: Job) -> None:
        try:
            await asyncio.to_thread(self._records.write, job)
        except BaseException:
            self._finished(job)
            raise

    def _finished(self, job: Job) -> None:
        self._unfinished[job.uid] -= 1
        if not self._unfinished[job.uid]:
            del self._unfinished[job.uid]

    async def cancel(self, job_id: str) -> None:
        """Return when everything the job had made is gone. NotCancelable: it is finished."""
        job = self.get(job_id)
        if running := self._running.get(job.id):
            await asyncio.wait([self._stop(running, Cancelled("the job was cancelled"))])
            if self._jobs[job.id].state is JobState.CANCELLED:
                return
        raise NotCancelable(f"the job is {self._jobs[job.id].state} and cannot be cancelled")

    async def remove(self, job_id: str) -> None:
        """Forget a finished job. NotCancelable: it is not finished."""
        job = self.get(job_id)
        if job.id in self._running:
            raise NotCancelable(f"the job is {job.state}; cancel it before it is removed")
        await asyncio.to_thread(self._records.remove, job.id)
        if self._jobs.pop(job.id, None):
            self._events.emit(Change.REMOVED, ObjectKind.JOB, job.id)

    # One job

    async def _run(self, running: _Running, work: Work, resources: ExitStack) -> None:
        error: Error | None = None
        running.started = True
        with resources:
            try:
                if running.stopped_by:
                    raise asyncio.CancelledError
                async with self._slots:
                    running.progress.begin()
                    await work(running.progress)
            except asyncio.CancelledError:
                error = running.stopped_by or Interrupted("the service was stopped")
            except Error as failure:
                error = failure
            except Exception:
                log.exception("job %s failed by a fault of the service", running.progress.job.id)
                error = Error("a fault of the service ended the job; its log has the details")
        running.progress.commit()
        await self._finish(_finished(running.progress.close(), error))

    async def _finish(self, job: Job) -> None:
        await self._record(job)
        del self._running[job.id]
        self._finished(job)
        self._show(job)
        self._events.emit(Change.COMPLETED, ObjectKind.JOB, job.id)
        await self._forget_old()

    async def _record(self, job: Job) -> None:
        """Write down how a job ended, where that can be."""
        try:
            await asyncio.to_thread(self._records.write, job)
        except Error as error:
            log.error("%s; after a restart the job will be reported as interrupted", error)

    def _stop(self, running: _Running, reason: Error) -> asyncio.Task[None]:
        """Cancel a job, once, and not when it is past the point where it can be undone."""
        assert running.task
        if running.stopped_by is None and not running.progress.committed:
            running.stopped_by = reason
            if running.started:  # a task cancelled before its first step never takes it
                running.task.cancel()
        return running.task

    def _show(self, job: Job) -> None:
        self._jobs[job.id] = job
        self._events.emit(Change.CHANGED, ObjectKind.JOB, job.id)

    async def _forget_old(self) -> None:
        finished = sorted(
            (job for job in self._jobs.values() if job.state.finished),
            key=lambda job: job.finished_at,
        )
        for job in finished[:-KEPT]:
            try:
                await self.remove(job.id)
            except Error as error:
                log.warning("%s", error)


def _finished(job: Job, error: Error | None) -> Job:
    match error:
        case None:
            state = JobState.DONE
        case Cancelled():
            state = JobState.CANCELLED
        case _:
            state = JobState.FAILED
    return replace(
        job,
        state=state,
        rate=0,
        expected_end_at=0,
        finished_at=now(),
        error_name=str(error.name) if error else "",
        error_message=error.message if error else "",
    )


def _after_crash(job: Job, *, published: bool) -> Job:
    """What became of a job whose end was never written down."""
    if published:
        return _finished(job, None)
    return _finished(job, Interrupted("the service stopped while the job ran; start it again"))
