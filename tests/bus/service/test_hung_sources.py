"""A caller passes files of a file system that does not answer: nobody else waits for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hung_files import FLUSH, GETATTR, READ, HungFiles, hung_files, needs_fuse

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.names import Interface

from .process import Client, ServiceProcess

pytestmark = needs_fuse
JOB = Interface.JOB


@pytest.fixture
def files(tmp_path: Path) -> Iterator[HungFiles]:
    with hung_files(tmp_path / "hung") as files:
        yield files


async def hangs(files: HungFiles) -> None:
    assert await asyncio.to_thread(files.hanging.wait, 30)


async def passed(client: Client, files: HungFiles, name: str = "web") -> str:
    fd = os.open(files.path, os.O_RDONLY)
    try:
        job: str = await client.manager("ImportVolumeFromFd", "sha{sv}", name, 0, {}, fds=[fd])
    finally:
        await asyncio.to_thread(os.close, fd)
    return job


async def test_a_file_that_cannot_be_read_holds_up_its_own_import_alone(
    client: Client, files: HungFiles, service: ServiceProcess, image: Path
) -> None:
    files.hung = {READ}
    job = await passed(client, files)
    await hangs(files)
    other = await client.import_path("other", image)
    assert (await client.completed(other))["State"] == "done"
    await client.call(job, JOB, "Cancel", "a{sv}", {})
    assert (await client.get_all(job, JOB))["State"] == "cancelled"
    assert "does not die" in service.log.read_text()
    await client.create("web")  # the name is free


async def test_a_file_that_cannot_be_looked_at_holds_nobody_up(
    client: Client, files: HungFiles, service: ServiceProcess
) -> None:
    assert service.process
    files.hung, files.hung_for = {GETATTR}, service.process.pid
    calling = asyncio.create_task(passed(client, files))
    await hangs(files)
    await client.create("other")
    files.go_on()
    assert (await client.completed(await calling))["State"] == "done"


@pytest.mark.parametrize("member", ["ImportVolumeFromFd", "NoSuchMethod"])
async def test_a_file_that_cannot_be_closed_holds_nobody_up(
    client: Client, files: HungFiles, service: ServiceProcess, member: str
) -> None:
    assert service.process
    # The bus closes its copy as well, which is its own affair.
    files.hung, files.hung_for = {FLUSH}, service.process.pid
    fd = os.open(files.path, os.O_RDONLY)
    calling = asyncio.create_task(client.manager(member, "sha{sv}", "", 0, {}, fds=[fd]))
    await hangs(files)
    with pytest.raises(Exception, match=r"1 to 128|NoSuchMethod"):
        await calling
    await client.create("other")
    await client.get(names.ROOT, Interface.MANAGER, "Version")
    await asyncio.to_thread(os.close, fd)
