"""What must not be left half-way, and what may never come to an end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mvirt_zfs_dbus.tasks import MAX_HUNG, bounded


async def test_a_call_in_time_answers_and_raises_as_itself() -> None:
    undone: list[int] = []
    assert await bounded(lambda: 5, seconds=60, undo=undone.append) == 5
    with pytest.raises(ZeroDivisionError):
        await bounded(lambda: 1 // 0, seconds=60, undo=undone.append)
    assert undone == []


async def test_a_call_that_hangs_is_given_up_and_undone_when_it_ends_after_all() -> None:
    go_on = threading.Event()
    undone = asyncio.Event()

    def call() -> int:
        go_on.wait()
        return 5

    with pytest.raises(TimeoutError):
        await bounded(call, seconds=0.05, undo=lambda _: undone.set())
    assert not undone.is_set()
    go_on.set()
    await undone.wait()


async def test_a_call_nobody_waits_for_any_more_is_undone() -> None:
    started, go_on = threading.Event(), threading.Event()
    undone: asyncio.Queue[int] = asyncio.Queue()

    def call() -> int:
        started.set()
        go_on.wait()
        return 5

    task = asyncio.create_task(bounded(call, seconds=60, undo=undone.put_nowait))
    await asyncio.to_thread(started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert await undone.get() == 5


def test_a_call_that_outlives_its_loop_is_undone() -> None:
    go_on, undone = threading.Event(), threading.Event()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await bounded(go_on.wait, seconds=0.01, undo=lambda _: undone.set())

    asyncio.run(give_up())
    go_on.set()
    assert undone.wait(60)


def all_ended() -> None:
    """Waits for the threads of calls that may have told of their ends already."""
    for thread in threading.enumerate():
        if thread.name == "bounded":
            thread.join(60)
            assert not thread.is_alive()


async def test_no_more_calls_hang_at_a_time_than_there_are_threads_for() -> None:
    all_ended()
    go_on = threading.Event()
    hanging = [
        asyncio.create_task(bounded(go_on.wait, seconds=60, undo=lambda _: None))
        for _ in range(MAX_HUNG)
    ]
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError, match=f"{MAX_HUNG} calls hang"):
        await bounded(lambda: 5, seconds=60, undo=lambda _: None)
    go_on.set()
    assert all(await asyncio.gather(*hanging))
    all_ended()
    assert await bounded(lambda: 5, seconds=60, undo=lambda _: None) == 5
