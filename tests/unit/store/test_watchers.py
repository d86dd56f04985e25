"""Watchers of a store: who is told of what, when, and until when."""

from __future__ import annotations

import asyncio
import gc
from weakref import ref

import pytest

from mvirt_zfs_dbus.store.watchers import Watchers


async def test_what_was_told_before_it_is_waited_for_counts() -> None:
    watchers = Watchers()
    changes = watchers.add()
    watchers.tell()
    async with asyncio.timeout(10):
        await anext(changes)


async def test_changes_close_together_are_told_once() -> None:
    watchers = Watchers(gather=0.05, longest=1.0)
    changes = watchers.add()
    watchers.tell()
    asyncio.get_running_loop().call_soon(watchers.tell)
    async with asyncio.timeout(10):
        await anext(changes)
    further = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.1)
    assert not further.done()
    watchers.tell()
    async with asyncio.timeout(10):
        await further


async def tell(watchers: Watchers, times: int) -> None:
    for _ in range(times):
        watchers.tell()
        await asyncio.sleep(0.02)


async def test_a_series_is_told_of_when_it_has_ended() -> None:
    watchers = Watchers(gather=0.2, longest=60)
    told = asyncio.ensure_future(anext(watchers.add()))
    await tell(watchers, 20)
    assert not told.done()
    async with asyncio.timeout(10):
        await told


async def test_a_series_without_an_end_is_told_of_all_the_same() -> None:
    watchers = Watchers(gather=0.2, longest=0.5)
    changes = watchers.add()
    series = asyncio.create_task(tell(watchers, 1000))
    async with asyncio.timeout(10):
        await anext(changes)
    assert not series.done()
    series.cancel()


@pytest.mark.parametrize("gather", [0.0, 0.05])
async def test_closing_ends_every_watcher_for_good(gather: float) -> None:
    watchers = Watchers(gather, longest=1.0)
    gathering = watchers.add()
    watchers.tell()
    told = asyncio.ensure_future(anext(gathering, "ended"))
    waiting = watchers.add()
    untold = asyncio.ensure_future(anext(waiting, "ended"))
    await asyncio.sleep(0)
    watchers.close()
    async with asyncio.timeout(10):
        await told
        assert await untold == "ended"
        for changes in (gathering, waiting, watchers.add()):
            for _ in range(2):
                assert await anext(changes, "ended") == "ended"


async def test_what_a_cancelled_caller_was_about_to_hear_is_told_to_the_next() -> None:
    watchers = Watchers(gather=0.2, longest=60)
    changes = watchers.add()
    watchers.tell()
    cancelled = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    async with asyncio.timeout(10):
        await anext(changes)


def test_a_watcher_nobody_holds_is_forgotten() -> None:
    watchers = Watchers()
    forgotten = ref(watchers.add())
    gc.collect()
    assert forgotten() is None
    watchers.tell()
