"""The values: frozen, compared without their usage counters, jobs that know how far they are."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvirt_zfs_dbus.model import (
    Job,
    JobState,
    Kind,
    Operation,
    Pool,
    PoolUsage,
    Snapshot,
    Template,
    Usage,
    Volume,
)

VOLUME = Volume(
    id="1", name="web", size=1 << 30, block_size=16384, created_at=1, device="/dev/zvol/mvirt/1"
)
TEMPLATE = Template(
    id="2", name="base", size=1 << 30, block_size=16384, created_at=1, device="/dev/zvol/mvirt/2"
)
SNAPSHOT = Snapshot(id="3", name="before", volume_id="1", size=1 << 30, created_at=2)
JOB = Job(id="4", operation=Operation.IMPORT_VOLUME, name="web", source="/a.qcow2", uid=1000)
BUSY = Usage(used=5, referenced=7, compression_ratio=1.5)


@pytest.mark.parametrize("value", [VOLUME, TEMPLATE, SNAPSHOT])
def test_a_guest_that_writes_makes_no_difference(value: Volume | Template | Snapshot) -> None:
    assert replace(value, usage=BUSY) == value
    assert replace(value, name="other") != value


def test_a_pool_that_fills_makes_no_difference_but_its_health_does() -> None:
    pool = Pool("mvirt", "ONLINE")
    assert replace(pool, usage=PoolUsage(size=9, allocated=3)) == pool
    assert replace(pool, health="DEGRADED") != pool


@pytest.mark.parametrize(
    "change", [{"size": 2 << 30}, {"labels": {"a": "b"}}, {"thin": False}, {"origin_id": "2"}]
)
def test_what_a_client_shows_live_makes_a_difference(change: dict[str, object]) -> None:
    assert replace(VOLUME, **change) != VOLUME  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [VOLUME, TEMPLATE, SNAPSHOT, JOB])
def test_a_value_never_changes(value: Volume | Template | Snapshot | Job) -> None:
    with pytest.raises(FrozenInstanceError):
        value.name = "other"  # type: ignore[misc]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.sampled_from(JobState))
def test_progress_is_from_0_to_1_and_1_when_done(done: int, total: int, state: JobState) -> None:
    job = replace(JOB, bytes_done=done, bytes_total=total, state=state)
    assert 0.0 <= job.progress <= 1.0
    assert job.progress_valid == (total > 0 or state is JobState.DONE)
    if state is JobState.DONE:
        assert job.progress == 1.0
    elif not total:
        assert job.progress == 0.0
    elif done <= total:
        assert job.progress == pytest.approx(done / total)


def test_a_job_is_finished_in_the_three_states_that_have_an_end() -> None:
    assert [state.value for state in JobState if state.finished] == ["done", "failed", "cancelled"]


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        (Operation.IMPORT_VOLUME, Kind.VOLUME),
        (Operation.IMPORT_TEMPLATE, Kind.TEMPLATE),
        (Operation.COPY_TEMPLATE, Kind.TEMPLATE),
    ],
)
def test_a_job_knows_what_it_makes(operation: Operation, kind: Kind) -> None:
    assert replace(JOB, operation=operation).kind is kind
