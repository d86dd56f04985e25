"""Sources on a file system that stops answering."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hung_files import GETATTR, LOOKUP, OPEN, STATFS, HungFiles, hung_files, needs_fuse

from mvirt_zfs_dbus.core import sources
from mvirt_zfs_dbus.errors import Error

pytestmark = needs_fuse


@pytest.fixture
def files(tmp_path: Path) -> Iterator[HungFiles]:
    with hung_files(tmp_path / "hung") as files:
        yield files


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PATIENCE", 1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("hung", [LOOKUP, GETATTR, STATFS, OPEN])
async def test_a_path_that_hangs_is_given_up_while_the_loop_goes_on(
    files: HungFiles, hung: int
) -> None:
    files.hung = {hung}
    opening = asyncio.create_task(sources.open_path(str(files.path), [files.folder], False))
    assert await asyncio.to_thread(files.hanging.wait, 60)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not opening.done()
    with pytest.raises(Error, match="does not answer"):
        await opening
    assert files.waited_for == {hung}


@pytest.mark.usefixtures("impatient")
async def test_a_path_that_is_opened_too_late_is_closed_again(
    files: HungFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: asyncio.Queue[int] = asyncio.Queue()
    monkeypatch.setattr(sources.fds, "close", closed.put_nowait)
    files.hung = {OPEN}
    with pytest.raises(Error):
        await sources.open_path(str(files.path), None, False)
    files.go_on()
    os.close(await closed.get())


@pytest.mark.usefixtures("impatient")
async def test_a_descriptor_that_hangs_is_given_up(files: HungFiles) -> None:
    fd = os.open(files.path, os.O_RDONLY)
    files.hung = {GETATTR}
    try:
        with pytest.raises(Error, match=r"file descriptor that was passed .* does not answer"):
            await sources.check_fd(fd)
    finally:
        os.close(fd)


async def test_a_file_system_that_answers_is_read(files: HungFiles) -> None:
    fd = await sources.open_path(str(files.path), [files.folder], False)
    await sources.check_fd(fd)
    assert os.read(fd, 5) == b"image"
    os.close(fd)
