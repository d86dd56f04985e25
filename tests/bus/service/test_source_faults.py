"""What fails at the source of an import: files that change, servers that die.

After each fault: the documented error, nothing half-made, a service that works on.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hung_files import READ, HungFiles, hung_files, needs_fuse

from mvirt_zfs_dbus.bus.wire import Variant
from mvirt_zfs_dbus.names import ErrorName

from .faults import JOB, failed, fed_import, left_in, served, works
from .process import MIB, Client

PLACES = 32
"""How many places of an answer a server dies at."""


# Files


@pytest.fixture
def files(tmp_path: Path) -> Iterator[HungFiles]:
    with hung_files(tmp_path / "hung", os.urandom(MIB)) as files:
        yield files


async def while_it_is_read(client: Client, files: HungFiles, content: bytes, **options: Any) -> str:
    """The job of an import whose source becomes ``content`` when some of it was asked for."""
    files.hung = {READ}
    with files.path.open("rb", buffering=0) as source:
        job: str = await client.manager(
            "ImportVolumeFromFd", "sha{sv}", "web", 0, options, fds=[source.fileno()]
        )
    assert await asyncio.to_thread(files.hanging.wait, 30)
    files.become(content)
    files.go_on()
    return job


@needs_fuse
@pytest.mark.parametrize("length", [0, 1, 4096, MIB // 2, MIB - 1])
async def test_a_source_cut_short_while_it_is_read_is_truncated(
    client: Client, files: HungFiles, directory: Path, length: int
) -> None:
    job = await while_it_is_read(client, files, b"\xeb" * length)
    await failed(client, job, ErrorName.TRUNCATED)
    assert left_in(directory) == []
    await works(client, directory)


@needs_fuse
async def test_a_source_written_over_while_it_is_read_is_not_what_its_checksum_says(
    client: Client, files: HungFiles, directory: Path
) -> None:
    digest = hashlib.sha256(await asyncio.to_thread(files.path.read_bytes)).hexdigest()
    checksum = Variant("s", f"sha256:{digest}")
    job = await while_it_is_read(client, files, os.urandom(MIB), checksum=checksum)
    await failed(client, job, ErrorName.CHECKSUM_MISMATCH)
    assert left_in(directory) == []
    await works(client, directory)


async def test_a_source_replaced_before_it_is_read_is_the_one_that_was_named(
    bus_address: str, connected: Client, directory: Path, image: Path, tmp_path: Path
) -> None:
    """An import that waits has its file open already."""
    named, other = tmp_path / "named.raw", tmp_path / "other.raw"
    named.write_bytes(image.read_bytes())
    other.write_bytes(os.urandom(MIB))
    async with served(connected, bus_address, directory, "--max-imports", "1"):
        async with fed_import(connected, "first"):
            job = await connected.import_path("web", named)
            assert await connected.get(job, JOB, "State") == "pending"
            other.rename(named)
        properties = await connected.completed(job)
        assert properties["State"] == "done"
        device = await connected.device(properties["Result"])
        assert device.read_bytes() == image.read_bytes()


# Servers


class DyingServer:
    """Serves a file, and dies each time the first connection for a path has so many bytes of it.

    ``/N/…`` breaks off after N bytes of the answer, headers included. What is asked for after that
    is answered whole.
    """

    def __init__(self, content: bytes, validator: str) -> None:
        self._content = content
        self._validator = validator
        self._begun: set[str] = set()
        self.whole = len(self._answer(0))
        self.deaths = 0

    def _answer(self, start: int) -> bytes:
        size = len(self._content)
        lines = ["HTTP/1.1 206 Partial Content" if start else "HTTP/1.1 200 OK"]
        lines += [f"Content-Length: {size - start}", self._validator]
        lines += [f"Content-Range: bytes {start}-{size - 1}/{size}"] if start else []
        return "\r\n".join([*filter(None, lines), "", ""]).encode() + self._content[start:]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = request.split()[1]
        _, _, asked = request.lower().partition("range: bytes=")
        answer = self._answer(int(asked.partition("-")[0]) if asked else 0)
        if path not in self._begun:
            self._begun.add(path)
            self.deaths += 1
            answer = answer[: int(path.split("/")[1])]
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def dying_server(content: bytes, validator: str) -> AsyncIterator[tuple[DyingServer, str]]:
    dying = DyingServer(content, validator)
    async with await asyncio.start_server(dying.handle, "127.0.0.1", 0) as server:
        yield dying, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
async def test_a_server_that_dies_at_any_byte_range_costs_no_byte(
    bus_address: str, connected: Client, directory: Path, images: dict[str, Path], kind: str
) -> None:
    content = images["raw"].read_bytes()
    async with (
        served(connected, bus_address, directory, "--max-imports", str(PLACES)),
        dying_server(images[kind].read_bytes(), 'ETag: "one"') as (server, url),
    ):
        jobs = [
            await connected.import_path(f"web-{place}", f"{url}/{place}/image")
            for place in range(0, server.whole, server.whole // PLACES)
        ]
        for job in jobs:
            properties = await connected.completed(job)
            assert properties["State"] == "done", properties
            assert (await connected.device(properties["Result"])).read_bytes() == content
        assert server.deaths == len(jobs) >= PLACES


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
async def test_where_the_rest_cannot_be_asked_for_a_server_that_dies_leaves_nothing(
    bus_address: str, connected: Client, directory: Path, images: dict[str, Path], kind: str
) -> None:
    async with (
        served(connected, bus_address, directory, "--max-imports", str(PLACES)),
        dying_server(images[kind].read_bytes(), "") as (server, url),
    ):
        first = server.whole - images[kind].stat().st_size + 1  # of the body
        jobs = [
            await connected.import_path(f"web-{place}", f"{url}/{place}/image")
            for place in range(first, server.whole, (server.whole - first) // PLACES)
        ]
        for job in jobs:
            await failed(connected, job, ErrorName.TRUNCATED)
        assert server.deaths == len(jobs) >= PLACES
        assert left_in(directory) == []
        await works(connected, directory)
