"""What an import checks before and while it writes, with real workers on a real directory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mvirt_zfs_dbus.core.events import Change, Event
from mvirt_zfs_dbus.core.imports import ImportOptions, ImportPolicy
from mvirt_zfs_dbus.core.service import Service, Settings
from mvirt_zfs_dbus.errors import Error
from mvirt_zfs_dbus.model import Job, JobState, Kind, Pool
from mvirt_zfs_dbus.names import ErrorName
from mvirt_zfs_dbus.store.directory import DirectoryStore

MIB = 2**20


class Imported:
    """A service to import into, and a way to wait for the end of a job."""

    def __init__(self, service: Service, policy: ImportPolicy) -> None:
        self.service = service
        self.policy = policy
        self._completed: dict[str, asyncio.Event] = {}
        service.events.subscribe(self._hear)

    def _hear(self, event: Event) -> None:
        if event.change is Change.COMPLETED:
            self._completed.setdefault(event.id, asyncio.Event()).set()

    async def stream(self, content: bytes, **options: object) -> Job:
        """Import what comes through a pipe."""
        reader, writer = os.pipe()
        chosen = ImportOptions(**options)  # type: ignore[arg-type]
        job_id = await self.service.imports.from_fd(Kind.VOLUME, "web", reader, chosen, 0)

        def feed() -> None:
            with open(writer, "wb") as pipe:  # noqa: PTH123
                try:
                    pipe.write(content)
                except BrokenPipeError:
                    pipe.raw.close()  # type: ignore[attr-defined]

        await asyncio.gather(asyncio.to_thread(feed), self._until(job_id))
        return self.service.jobs.get(job_id)

    async def path(self, path: Path, **options: object) -> Job:
        chosen = ImportOptions(**options)  # type: ignore[arg-type]
        job_id = await self.service.imports.from_source(Kind.VOLUME, "web", str(path), chosen, 0)
        await self._until(job_id)
        return self.service.jobs.get(job_id)

    async def _until(self, job_id: str) -> None:
        await self._completed.setdefault(job_id, asyncio.Event()).wait()

    async def nothing_is_left(self, directory: Path) -> bool:
        left = [file.name for file in directory.iterdir() if not file.name.startswith(".")]
        return left == [] and (await self.service.store.scan()).volumes == {}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "disks"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
async def imported(tmp_path: Path, directory: Path) -> AsyncIterator[Imported]:
    policy = ImportPolicy(None, 2**40)
    service = Service(DirectoryStore(directory), Settings(tmp_path / "state", 4, policy))
    await service.start()
    yield Imported(service, policy)
    await service.close()


def failed(job: Job, name: ErrorName, said: str) -> None:
    assert (job.state, job.error_name) == (JobState.FAILED, name), job
    assert said in job.error_message


async def test_a_stream_makes_a_volume_of_its_own_length_in_whole_blocks(
    imported: Imported,
) -> None:
    job = await imported.stream(b"\xeb" * (3 * MIB + 5))
    assert job.state is JobState.DONE
    volume = imported.service.catalog.volume(job.target_id)
    assert volume.size == 3 * MIB + 16384
    assert Path(volume.device).read_bytes() == b"\xeb" * (3 * MIB + 5) + bytes(16384 - 5)


async def test_a_stream_longer_than_the_size_asked_for_is_refused(
    imported: Imported, directory: Path
) -> None:
    job = await imported.stream(b"\xeb" * (2 * MIB), size=MIB)
    failed(job, ErrorName.INVALID_SIZE, str(MIB))
    assert await imported.nothing_is_left(directory)


async def test_a_stream_longer_than_any_image_may_be_is_refused(
    imported: Imported, directory: Path
) -> None:
    imported.policy.max_image_size = MIB
    job = await imported.stream(b"\xeb" * (2 * MIB))
    failed(job, ErrorName.INVALID_SIZE, str(MIB))
    assert await imported.nothing_is_left(directory)


async def test_an_image_larger_than_any_may_be_is_refused_before_anything_is_made(
    imported: Imported, directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(b"\xeb" * 2 * MIB)
    imported.policy.max_image_size = MIB
    failed(await imported.path(tmp_path / "image"), ErrorName.INVALID_SIZE, "max-image-size")
    assert await imported.nothing_is_left(directory)


async def test_an_image_that_does_not_fit_is_refused_before_anything_is_made(
    imported: Imported, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "image").write_bytes(b"\xeb" * 2 * MIB)
    pool = await imported.service.store.pool()
    free = pool.usage.available  # others write to this disk meanwhile
    size = 2 * free // MIB * MIB  # whole blocks, which any other size is rounded up to

    async def as_it_was() -> Pool:
        return pool

    async def never(*_: object) -> None:
        raise Error("a target was made for what does not fit")

    monkeypatch.setattr(imported.service.store, "pool", as_it_was)
    monkeypatch.setattr(imported.service.store, "create_target", never)
    job = await imported.path(tmp_path / "image", thin=False, size=size)
    failed(job, ErrorName.NO_SPACE, f"needs {size} bytes and the pool has {free} left")
    assert await imported.nothing_is_left(directory)


async def test_a_cancel_that_comes_when_the_volume_is_being_published_comes_too_late(
    imported: Imported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "image").write_bytes(b"\xeb" * MIB)
    publishing, go_on = asyncio.Event(), asyncio.Event()
    publish = imported.service.store.publish

    async def slow(dataset_id: str) -> object:
        publishing.set()
        await go_on.wait()
        return await publish(dataset_id)

    monkeypatch.setattr(imported.service.store, "publish", slow)
    running = asyncio.create_task(imported.path(tmp_path / "image"))
    await publishing.wait()
    (job,) = imported.service.jobs.all()
    cancelling = asyncio.create_task(imported.service.jobs.cancel(job.id))
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(Error) as caught:
        await cancelling
    assert caught.value.name == ErrorName.NOT_CANCELABLE
    assert (await running).state is JobState.DONE
    assert imported.service.catalog.exists(job.target_id)
