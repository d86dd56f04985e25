"""Making faults around the service, and telling what is left after one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.errors import Error
from mvirt_zfs_dbus.names import ErrorName, Interface

from .process import MIB, Client, ServiceProcess

JOB = Interface.JOB


async def refused(call: Awaitable[Any], *names: ErrorName) -> None:
    with pytest.raises(Error) as caught:
        await call
    assert caught.value.name in names, str(caught.value)


async def failed(client: Client, job: str, name: ErrorName) -> str:
    properties = await client.completed(job)
    assert (properties["State"], properties["ErrorName"]) == ("failed", name), properties
    assert properties["Result"] == names.NO_OBJECT
    return str(properties["ErrorMessage"])


def left_in(directory: Path) -> list[str]:
    """The names of disks, records and temporary files."""
    names = [file.name for file in directory.iterdir() if not file.name.startswith(".")]
    return sorted([*names, *(f".tmp/{file.name}" for file in (directory / ".tmp").iterdir())])


async def works(client: Client, directory: Path) -> None:
    """It makes and destroys a volume, and leaves what was there."""
    before = left_in(directory)
    volume = await client.create("after-the-fault")
    (await client.device(volume)).write_bytes(b"fine".ljust(MIB, b"\0"))
    await client.call(volume, Interface.VOLUME, "Delete", "a{sv}", {})
    assert left_in(directory) == before


class Fed:
    """An import from a pipe, which goes on when it is fed."""

    def __init__(self, job: str, pipe: int) -> None:
        self.job = job
        self._pipe = pipe

    async def feed(self, data: bytes) -> None:
        """Returns when all is in the pipe, or nobody reads it any more."""
        await asyncio.to_thread(self._write, data)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._pipe, view) :]
        except BrokenPipeError:
            return


@asynccontextmanager
async def fed_import(client: Client, name: str = "web") -> AsyncIterator[Fed]:
    """Under way: bytes were read. The pipe ends when the block does."""
    reader, writer = os.pipe()
    try:
        job = await client.manager("ImportVolumeFromFd", "sha{sv}", name, 0, {}, fds=[reader])
        os.close(reader)
        fed = Fed(job, writer)
        await fed.feed(b"\xeb" * 65536)
        async with client.signals() as heard:
            while await client.get(job, JOB, "BytesDone") == 0:
                await heard.get()
        yield fed
    finally:
        os.close(writer)


@asynccontextmanager
async def served(
    connected: Client, bus_address: str, directory: Path, *arguments: str
) -> AsyncIterator[ServiceProcess]:
    """The service on this directory; the one that was started works until the end."""
    directory.mkdir(exist_ok=True)
    service = ServiceProcess(bus_address, directory, *arguments)
    await service.start(connected.connection)
    try:
        yield service
        assert service.process and service.process.returncode is None
        assert "Traceback" not in service.log.read_text()
    finally:
        await service.stop()
