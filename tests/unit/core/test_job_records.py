"""The records of jobs, as they are written and as they may be found."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvirt_zfs_dbus.api.job import JobInterface
from mvirt_zfs_dbus.bus.values import variant
from mvirt_zfs_dbus.core.events import Events
from mvirt_zfs_dbus.core.jobs import Jobs
from mvirt_zfs_dbus.core.records import MAX_RECORD, DamagedRecord, JobRecords, decode
from mvirt_zfs_dbus.errors import Error, NoSpace
from mvirt_zfs_dbus.limits import Limits
from mvirt_zfs_dbus.model import Job, JobState, Operation, Phase

ID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
JOB = Job(
    ID, Operation.IMPORT_VOLUME, "web", "/images/web.qcow2", 1000, target_id=str(uuid.UUID(int=5))
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
counts = st.integers(0, 2**64 - 1)
jobs = st.builds(
    Job,
    id=st.just(ID),
    operation=st.sampled_from(Operation),
    name=texts,
    source=texts,
    uid=st.integers(0, 2**32 - 1),
    state=st.sampled_from(JobState),
    phase=st.sampled_from(Phase),
    **{each.name: counts if each.type == "int" else texts for each in fields(Job)[7:]}
    | {"target_id": st.uuids().map(str)},
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(jobs)
def test_a_job_is_read_as_it_was_written(job: Job) -> None:
    assert decode(ID, json.dumps(asdict(job)).encode()) == job


def test_the_records_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        JobRecords(tmp_path / "jobs").write(JOB)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "jobs").stat().st_mode) == 0o700


@given(st.one_of(st.binary(max_size=200), values.map(lambda value: json.dumps(value).encode())))
def test_any_bytes_are_a_job_or_damaged(data: bytes) -> None:
    with pytest.raises(DamagedRecord):
        decode(ID, data)


@given(jobs, st.sampled_from(fields(Job)), values)
def test_whatever_a_field_becomes_the_job_can_be_shown_or_is_damaged(
    job: Job, changed: Any, value: Any
) -> None:
    data = json.dumps({**asdict(job), changed.name: value}).encode()
    try:
        read = decode(ID, data)
    except DamagedRecord:
        return

    class Service:
        class jobs:
            get = staticmethod(lambda key: read)

    interface = JobInterface(Service())  # type: ignore[arg-type]
    for spec in JobInterface.properties.values():
        variant(spec.signature, getattr(interface, spec.attribute)(ID))


def test_a_job_that_is_done_and_has_made_nothing_is_damaged() -> None:
    done = replace(JOB, state=JobState.DONE)
    assert decode(ID, json.dumps(asdict(done)).encode()) == done
    with pytest.raises(DamagedRecord, match="has made nothing"):
        decode(ID, json.dumps(asdict(replace(done, target_id=""))).encode())


@given(st.integers(0, 400))
def test_a_record_cut_off_anywhere_is_damaged(length: int) -> None:
    whole = json.dumps(asdict(JOB)).encode()
    with pytest.raises(DamagedRecord):
        decode(ID, whole[: length % len(whole)])


def test_a_record_of_an_older_version_is_read_with_what_it_has() -> None:
    older = {name: asdict(JOB)[name] for name in ("id", "operation", "name", "source", "uid")}
    assert decode(ID, json.dumps(older).encode()) == replace(JOB, target_id="")


def test_damaged_records_are_set_aside_and_the_others_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = JobRecords(tmp_path)
    records.write(JOB)
    damaged = {
        "nothing": b"",
        "brace": b"{",
        "list": b"[]",
        "deep": b"[" * 100_000,
        "garbage": os.urandom(5000),
        "huge": b" " * (MAX_RECORD + 1),
        str(uuid.UUID(int=1)): json.dumps(asdict(JOB)).encode(),
        str(uuid.UUID(int=2)): json.dumps({**asdict(JOB), "uid": "root"}).encode(),
        str(uuid.UUID(int=3)): json.dumps({**asdict(JOB), "rate": -1}).encode(),
    }
    for name, data in damaged.items():
        (tmp_path / f"{name}.json").write_bytes(data)
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to("/etc/passwd")
    (tmp_path / "half.tmp").write_text("half")
    assert records.load() == [JOB]
    assert caplog.text.count("is damaged and is set aside") == len(damaged) + 1
    for name in ("link.json", "folder.json"):
        assert f"{name} cannot be read" in caplog.text
    left = {file.name for file in tmp_path.iterdir()}
    aside = {f"{name}.json.damaged" for name in (*damaged, "fifo")}
    assert left == {f"{ID}.json", "link.json", "folder.json", *aside}
    caplog.clear()
    assert records.load() == [JOB]
    assert "set aside" not in caplog.text


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.getuid() != 0:
        pytest.skip("only root can mount")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_state_directory_refuses_jobs_and_keeps_those_it_has(small: Path) -> None:
    records = JobRecords(small / "jobs")
    records.write(JOB)
    with (
        (small / "filler").open("wb", buffering=0) as filler,
        pytest.raises(OSError, match="space"),
    ):
        while filler.write(bytes(4096)):
            pass
    with pytest.raises(NoSpace, match="cannot write the job's record"):
        records.write(replace(JOB, state=JobState.DONE))
    assert records.load() == [JOB]
    registry = Jobs(records, Events(), 1, Limits())
    await registry.start(lambda target: False)
    assert registry.get(ID).state is JobState.FAILED
    (small / "filler").unlink()
    records.write(replace(JOB, state=JobState.DONE))
    assert records.load() == [replace(JOB, state=JobState.DONE)]
    assert sorted(file.name for file in (small / "jobs").iterdir()) == [f"{ID}.json"]


async def test_a_read_only_state_directory_refuses_jobs_and_shows_those_it_has(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = JobRecords(small / "jobs")
    records.write(JOB)
    (small / "jobs" / "half.tmp").touch()
    (small / "jobs" / "damaged.json").touch()
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    registry = Jobs(records, Events(), 1, Limits())
    await registry.start(lambda target: False)
    assert registry.get(ID).state is JobState.FAILED
    assert "Read-only" in caplog.text
    with pytest.raises(Error, match="Read-only"):
        records.write(JOB)
    with pytest.raises(Error, match="Read-only"):
        records.remove(ID)


def test_a_state_directory_that_cannot_be_opened_remembers_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "file").touch()
        records = JobRecords(folder / "file" / "jobs")
        assert records.load() == []
        assert "cannot open the state directory" in caplog.text
        (folder / "file").unlink()
        records.write(JOB)
        assert records.load() == [JOB]
    finally:
        shutil.rmtree(folder)
