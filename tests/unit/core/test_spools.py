"""The temporary files of imports, as real files."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import pytest

from mvirt_zfs_dbus.core import spools
from mvirt_zfs_dbus.core.spools import Spools
from mvirt_zfs_dbus.errors import LimitsExceeded

MIB = 2**20


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "LOOK_EVERY", 0.001)


@pytest.fixture
def all_spools(tmp_path: Path) -> Spools:
    async def open_spool() -> int:
        fd, name = tempfile.mkstemp(dir=tmp_path)
        Path(name).unlink()
        return fd

    return Spools(open_spool, limit=MIB)


async def importing(all_spools: Spools, size: int, written: asyncio.Event) -> None:
    async with all_spools.of_import() as open_spool:
        fd = await open_spool()
        os.pwrite(fd, os.urandom(size), 0)  # a file system may compress
        os.close(fd)  # as who gets it does; it is counted all the same
        written.set()
        await asyncio.Event().wait()


async def test_the_import_with_the_largest_files_ends_when_all_together_are_too_large(
    all_spools: Spools,
) -> None:
    events = [asyncio.Event() for _ in range(3)]
    small = asyncio.create_task(importing(all_spools, 400 * 1024, events[0]))
    await events[0].wait()
    large = asyncio.create_task(importing(all_spools, 700 * 1024, events[1]))
    with pytest.raises(LimitsExceeded, match="max-spool"):
        await large
    another = asyncio.create_task(importing(all_spools, 500 * 1024, events[2]))
    await events[2].wait()
    await asyncio.sleep(0.05)  # looked at many times meanwhile
    assert not (small.done() or another.done())
    for task in (small, another):
        task.cancel()
    await asyncio.gather(small, another, return_exceptions=True)
    assert all_spools._imports == []


async def test_a_cancelled_import_is_cancelled(all_spools: Spools) -> None:
    written = asyncio.Event()
    task = asyncio.create_task(importing(all_spools, 1, written))
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_import_that_is_cancelled_when_its_files_are_too_large_is_cancelled(
    all_spools: Spools,
) -> None:
    """Who cancels it waits for its end."""
    async with asyncio.timeout(30):
        for _ in range(20):
            written = asyncio.Event()
            task = asyncio.create_task(importing(all_spools, 2 * MIB, written))
            await written.wait()
            task.cancel()
            with pytest.raises((asyncio.CancelledError, LimitsExceeded)):
                await task


async def test_an_import_that_ends_leaves_its_task_as_it_was(all_spools: Spools) -> None:
    async with all_spools.of_import() as open_spool:
        os.close(await open_spool())
    task = asyncio.current_task()
    assert task
    assert not task.cancelling()
    await asyncio.sleep(0.01)
