"""The registry of jobs, with work that does nothing but what a test tells it to."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import pytest

from mvirt_zfs_dbus.core import jobs as jobs_module
from mvirt_zfs_dbus.core.events import Change, Event, Events, ObjectKind
from mvirt_zfs_dbus.core.jobs import Jobs, Work
from mvirt_zfs_dbus.core.progress import Progress
from mvirt_zfs_dbus.core.records import JobRecords
from mvirt_zfs_dbus.errors import (
    CorruptImage,
    Error,
    LimitsExceeded,
    NotCancelable,
    NotFound,
)
from mvirt_zfs_dbus.limits import Limits
from mvirt_zfs_dbus.model import Job, JobState, Operation, Phase
from mvirt_zfs_dbus.names import ErrorName

DEFAULT_LIMITS = Limits()


class Registry:
    """A registry, what it told, and a way to wait for it."""

    def __init__(
        self, directory: Path, max_running: int = 2, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self.records = JobRecords(directory)
        self.events = Events()
        self.told: list[Event] = []
        self._heard: defaultdict[tuple[Change, str], asyncio.Event] = defaultdict(asyncio.Event)
        self.events.subscribe(self._hear)
        self.jobs = Jobs(self.records, self.events, max_running, limits)
        self.let_go: list[str] = []

    def _hear(self, event: Event) -> None:
        self.told.append(event)
        self._heard[event.change, event.id].set()

    async def start(self, *published: str) -> None:
        await self.jobs.start(lambda target: target in published)

    async def submit(self, work: Work, name: str = "web", uid: int = 1000) -> str:
        resources = ExitStack()
        resources.callback(self.let_go.append, name)
        return await self.jobs.submit(
            Operation.IMPORT_VOLUME, name, "/image", uid, f"id-of-{name}", work, resources
        )

    async def completed(self, job_id: str) -> Job:
        await self._heard[Change.COMPLETED, job_id].wait()
        return self.jobs.get(job_id)

    async def removed(self, job_id: str) -> None:
        await self._heard[Change.REMOVED, job_id].wait()

    def recorded(self, job_id: str) -> Job:
        return next(job for job in self.records.load() if job.id == job_id)


@pytest.fixture
async def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path)
    await made.start()
    return made


async def nothing(progress: Progress) -> None:
    pass


async def for_ever(progress: Progress) -> None:
    await asyncio.Event().wait()


async def test_a_job_that_works_is_done_and_remembered(registry: Registry) -> None:
    async def work(progress: Progress) -> None:
        progress.report(Phase.WRITING, 5, 10)
        progress.report(Phase.WRITING, 10, 10)

    job_id = await registry.submit(work)
    job = await registry.completed(job_id)
    assert (job.state, job.progress, job.bytes_done, job.uid) == (JobState.DONE, 1.0, 10, 1000)
    assert job.finished_at >= job.started_at > 0
    assert registry.recorded(job_id) == job
    assert registry.let_go == ["web"]


async def test_the_last_change_comes_before_the_completion(registry: Registry) -> None:
    job_id = await registry.submit(nothing)
    await registry.completed(job_id)
    told = [event.change for event in registry.told]
    assert told[0] is Change.ADDED
    assert told[-2:] == [Change.CHANGED, Change.COMPLETED]


async def test_a_failure_is_the_jobs_error(registry: Registry) -> None:
    async def work(progress: Progress) -> None:
        raise CorruptImage("the L1 table is outside the file")

    job = await registry.completed(await registry.submit(work))
    assert job.state is JobState.FAILED
    assert job.error_name == ErrorName.CORRUPT_IMAGE
    assert job.error_message == "the L1 table is outside the file"
    assert registry.let_go == ["web"]


async def test_a_fault_of_the_service_is_logged_and_not_shown(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(progress: Progress) -> None:
        raise ZeroDivisionError("inner secret")

    job = await registry.completed(await registry.submit(work))
    assert job.error_name == ErrorName.FAILED
    assert "inner secret" not in job.error_message
    assert "inner secret" in caplog.text


async def test_cancel_returns_when_the_work_has_cleaned_up(registry: Registry) -> None:
    cleaned = []
    started = asyncio.Event()

    async def work(progress: Progress) -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    job_id = await registry.submit(work)
    await started.wait()
    await registry.jobs.cancel(job_id)
    assert cleaned == [True]
    assert registry.jobs.get(job_id).state is JobState.CANCELLED
    assert registry.jobs.get(job_id).error_name == ErrorName.CANCELLED
    assert registry.recorded(job_id).state is JobState.CANCELLED


async def test_two_cancels_at_once_cancel_once(registry: Registry) -> None:
    job_id = await registry.submit(for_ever)
    await asyncio.gather(registry.jobs.cancel(job_id), registry.jobs.cancel(job_id))
    assert registry.jobs.get(job_id).state is JobState.CANCELLED


async def test_a_pending_job_is_cancelled_without_ever_starting(registry: Registry) -> None:
    blockers = [await registry.submit(for_ever, f"b{n}") for n in range(2)]
    ran = []

    async def work(progress: Progress) -> None:
        ran.append(True)

    pending = await registry.submit(work)
    assert registry.jobs.get(pending).state is JobState.PENDING
    await registry.jobs.cancel(pending)
    assert registry.jobs.get(pending).state is JobState.CANCELLED
    assert ran == []
    for job_id in blockers:
        await registry.jobs.cancel(job_id)


async def test_a_job_past_its_last_step_is_not_cancelled(registry: Registry) -> None:
    publishing, go_on = asyncio.Event(), asyncio.Event()

    async def work(progress: Progress) -> None:
        progress.commit()
        publishing.set()
        await go_on.wait()

    job_id = await registry.submit(work)
    await publishing.wait()
    cancelling = asyncio.create_task(registry.jobs.cancel(job_id))
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(NotCancelable, match="done"):
        await cancelling
    assert registry.jobs.get(job_id).state is JobState.DONE


async def test_a_finished_job_cannot_be_cancelled_and_a_running_one_not_removed(
    registry: Registry,
) -> None:
    done = await registry.submit(nothing)
    await registry.completed(done)
    with pytest.raises(NotCancelable, match="done"):
        await registry.jobs.cancel(done)
    running = await registry.submit(for_ever)
    with pytest.raises(NotCancelable):
        await registry.jobs.remove(running)
    await registry.jobs.cancel(running)


async def test_a_removed_job_is_gone_from_memory_and_disk(registry: Registry) -> None:
    job_id = await registry.submit(nothing)
    await registry.completed(job_id)
    await registry.jobs.remove(job_id)
    with pytest.raises(NotFound, match=job_id):
        registry.jobs.get(job_id)
    assert registry.records.load() == []
    assert registry.told[-1] == Event(Change.REMOVED, ObjectKind.JOB, job_id)


async def test_no_more_than_the_limit_run_and_the_rest_wait_in_order(tmp_path: Path) -> None:
    registry = Registry(tmp_path, max_running=1)
    await registry.start()
    order: list[str] = []
    gates = {name: asyncio.Event() for name in "abc"}

    def work(name: str) -> Work:
        async def run(progress: Progress) -> None:
            order.append(name)
            await gates[name].wait()

        return run

    ids = [await registry.submit(work(name), name) for name in "abc"]
    assert [job.state for job in registry.jobs.all(finished=False)].count(JobState.RUNNING) <= 1
    for name, job_id in zip("abc", ids, strict=True):
        gates[name].set()
        await registry.completed(job_id)
    assert order == ["a", "b", "c"]


async def test_one_user_has_so_many_jobs_and_all_users_together_so_many(tmp_path: Path) -> None:
    registry = Registry(tmp_path, limits=Limits(jobs=3, jobs_per_user=2))
    await registry.start()
    first = await registry.submit(for_ever, "a", uid=1)
    await registry.submit(for_ever, "b", uid=1)
    with pytest.raises(LimitsExceeded, match="uid 1 "):
        await registry.submit(for_ever, "c", uid=1)
    await registry.submit(for_ever, "c", uid=2)
    with pytest.raises(LimitsExceeded, match="max-jobs"):
        await registry.submit(for_ever, "d", uid=3)
    assert registry.let_go == ["c", "d"]
    await registry.jobs.cancel(first)
    await registry.submit(for_ever, "d", uid=3)
    await registry.jobs.close()


async def test_a_job_that_cannot_be_recorded_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path, limits=Limits(jobs=1))
    await registry.start()
    with monkeypatch.context() as broken:
        (tmp_path / "file").touch()
        broken.setattr(registry.records, "_directory", tmp_path / "file" / "jobs")
        with pytest.raises(Error, match="cannot write"):
            await registry.submit(nothing)
    await registry.completed(await registry.submit(nothing))


async def test_closing_interrupts_what_runs_and_waits_for_it(registry: Registry) -> None:
    job_id = await registry.submit(for_ever)
    await registry.jobs.close()
    assert registry.jobs.get(job_id).state is JobState.FAILED
    assert registry.recorded(job_id).error_name == ErrorName.INTERRUPTED
    assert registry.let_go == ["web"]


async def test_a_job_that_a_crash_cut_off_comes_back_as_interrupted(
    registry: Registry, tmp_path: Path
) -> None:
    job_id = await registry.submit(for_ever)
    after = Registry(tmp_path)
    await after.start()
    job = after.jobs.get(job_id)
    assert (job.state, job.error_name) == (JobState.FAILED, ErrorName.INTERRUPTED)
    assert after.recorded(job_id).state is JobState.FAILED
    await registry.jobs.cancel(job_id)


async def test_a_job_whose_target_was_published_before_the_crash_comes_back_as_done(
    registry: Registry, tmp_path: Path
) -> None:
    job_id = await registry.submit(for_ever)
    after = Registry(tmp_path)
    await after.start("id-of-web")
    assert after.jobs.get(job_id).state is JobState.DONE
    await registry.jobs.cancel(job_id)


async def test_only_the_newest_finished_jobs_are_kept(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "KEPT", 2)
    ids = []
    for number in range(4):
        ids.append(await registry.submit(nothing, f"n{number}"))
        await registry.completed(ids[-1])
    for old in ids[:2]:  # a job's end does not wait for the old
        await registry.removed(old)
    kept = [job.id for job in registry.jobs.all()]
    assert kept == ids[-2:]


async def test_a_job_whose_record_cannot_be_written_is_refused_and_lets_go(
    registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    registry.records._directory = tmp_path / "file" / "jobs"
    with pytest.raises(Error, match="cannot write the job's record"):
        await registry.submit(nothing)
    assert registry.let_go == ["web"]
    assert registry.jobs.all() == []


async def test_a_cancel_while_the_end_is_written_down_comes_too_late(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on = threading.Event(), threading.Event()
    write = registry.records.write

    def slow(job: Job) -> None:
        if job.state.finished:
            writing.set()
            go_on.wait()
        write(job)

    monkeypatch.setattr(registry.records, "write", slow)
    job_id = await registry.submit(nothing)
    await asyncio.to_thread(writing.wait)
    cancelling = asyncio.create_task(registry.jobs.cancel(job_id))
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(NotCancelable, match="done"):
        await cancelling
    assert registry.recorded(job_id).state is JobState.DONE
    assert registry.told[-1].change is Change.COMPLETED
