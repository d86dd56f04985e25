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
    watchers = Watchers(gather=0.05)
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


@pytest.mark.parametrize("gather", [0.0, 0.05])
async def test_closing_ends_every_watcher_for_good(gather: float) -> None:
    watchers = Watchers(gather)
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


def test_a_watcher_nobody_holds_is_forgotten() -> None:
    watchers = Watchers()
    forgotten = ref(watchers.add())
    gc.collect()
    assert forgotten() is None
    watchers.tell()
