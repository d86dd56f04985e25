"""The small parts: the pool's bound, the meter's pace, a file's digest."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from mvirt_zfs_dbus.image import meter as meter_module
from mvirt_zfs_dbus.image.base import Progress
from mvirt_zfs_dbus.image.digest import Digest
from mvirt_zfs_dbus.image.meter import Meter
from mvirt_zfs_dbus.image.pool import Pool
from mvirt_zfs_dbus.model import Phase


@pytest.fixture
def pool():
    pool = Pool(2)
    yield pool
    pool.close()


def test_all_threads_of_a_pool_exist_from_the_start():
    before = threading.active_count()
    pool = Pool(3)
    assert threading.active_count() >= before + 3
    pool.close()


def test_a_pool_takes_only_so_much_work_at_once(pool):
    gate = threading.Event()
    taken = []

    def feed() -> None:
        for number in range(50):
            taken.append(number)
            pool.run(gate.wait)

    feeding = threading.Thread(target=feed)
    feeding.start()
    feeding.join(0.2)
    assert feeding.is_alive()
    assert len(taken) <= 5
    gate.set()
    feeding.join()
    pool.finish()


def test_what_a_thread_raises_is_raised_by_the_pool(pool):
    def fail() -> None:
        raise ValueError("x")

    pool.run(fail)
    with pytest.raises(ValueError, match="x"):
        pool.finish()


def test_a_meter_reports_its_begin_its_end_and_little_between(monkeypatch):
    now = 100.0
    monkeypatch.setattr(meter_module.time, "monotonic", lambda: now)
    told: list[Progress] = []
    meter = Meter(Phase.WRITING, 1000, told.append)
    for _ in range(100):
        now += 0.01
        meter.add(9)
    meter.finish()
    assert 10 <= len(told) <= 12
    assert told[0] == Progress(Phase.WRITING, 0, 1000)
    assert told[-1] == Progress(Phase.WRITING, 1000, 1000)
    assert all(a.bytes_done <= b.bytes_done for a, b in pairwise(told))


def test_a_meter_of_an_unknown_total_ends_with_what_it_counted():
    told: list[Progress] = []
    meter = Meter(Phase.DOWNLOADING, 0, told.append)
    meter.add(77)
    meter.finish()
    assert told[-1] == Progress(Phase.DOWNLOADING, 77, 77)


def test_chunks_are_hashed_one_after_the_other():
    """A double of the pool, whose threads are so slow that only asking for a result ends them."""
    hashed: list[bytes] = []

    class Later:
        def __init__(self, work: Callable[[bytes], None], chunk: bytes) -> None:
            self._work, self._chunk = work, chunk

        def result(self) -> None:
            self._work(self._chunk)
            hashed.append(self._chunk)

    class Slow:
        def start(self, work: Callable[[bytes], None], chunk: bytes) -> Later:
            assert len(hashed) == taken - 1
            return Later(work, chunk)

    digest = Digest("sha256", Slow())
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        for taken in range(1, 5):
            yield bytes([taken])

    assert list(digest.of(chunks())) == [b"\1", b"\2", b"\3", b"\4"]
    assert digest.value() == hashlib.sha256(b"\1\2\3\4").hexdigest()
