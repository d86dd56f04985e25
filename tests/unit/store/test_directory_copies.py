from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvirt_zfs_dbus.store.files import reflink
from mvirt_zfs_dbus.store.files.reflink import Stopped, copy_sparse

PAGE = 4096
MIB = 1024 * 1024


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[int, int]]:
    flags = os.O_RDWR | os.O_CREAT
    source, target = (os.open(tmp_path / name, flags, 0o600) for name in ("source", "target"))
    yield source, target
    os.close(source)
    os.close(target)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    size=st.integers(0, 64 * PAGE),
    runs=st.lists(st.tuples(st.integers(0, 64 * PAGE), st.binary(min_size=1, max_size=PAGE))),
    chunk=st.integers(1, 8 * PAGE),
)
def test_a_sparse_copy_reads_as_its_source(
    files: tuple[int, int], size: int, runs: list[tuple[int, bytes]], chunk: int
) -> None:
    source, target = files
    for fd in files:
        os.ftruncate(fd, 0)
    for offset, data in runs:
        os.pwrite(source, data, offset)
    os.ftruncate(source, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reflink, "CHUNK", chunk)
        patch.setattr(reflink, "SYNC_EVERY", 4 * chunk)
        copy_sparse(source, target, Event())
    assert os.fstat(target).st_size == size
    assert os.pread(target, size, 0) == os.pread(source, size, 0)


def test_a_sparse_copy_leaves_holes_as_they_are(files: tuple[int, int]) -> None:
    source, target = files
    os.ftruncate(source, 256 * MIB)
    os.pwrite(source, b"x" * PAGE, 100 * MIB)
    copy_sparse(source, target, Event())
    os.fsync(target)
    assert os.fstat(target).st_size == 256 * MIB
    assert os.fstat(target).st_blocks * 512 < MIB


def test_a_copy_stops_between_two_chunks(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = files
    monkeypatch.setattr(reflink, "CHUNK", PAGE)
    os.pwrite(source, b"x" * (100 * PAGE), 0)
    stop = Event()
    told: list[int] = []

    def stop_at_the_third(done: int, _total: int) -> None:
        told.append(done)
        if len(told) == 3:
            stop.set()

    with pytest.raises(Stopped):
        copy_sparse(source, target, stop, stop_at_the_third)
    assert told == [PAGE, 2 * PAGE, 3 * PAGE]


def test_a_source_that_is_cut_while_it_is_copied_reads_as_zeros_there(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = files
    monkeypatch.setattr(reflink, "CHUNK", PAGE)
    os.pwrite(source, b"x" * (4 * PAGE), 0)

    def cut(done: int, _total: int) -> None:
        if done == PAGE:
            os.ftruncate(source, PAGE)

    copy_sparse(source, target, Event(), cut)
    assert os.pread(target, 4 * PAGE, 0) == b"x" * PAGE + bytes(3 * PAGE)
