"""What no server and no caller does to the service as others see it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mvirt_zfs_dbus.names import ErrorName, Interface

from .process import Client, ServiceProcess


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """The URL of a server that says the same whatever it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 \xff\xfe\r\n\r\n",
        b"HTTP/1.1 404 No\x00pe\r\n\r\n",
        b"HTTP/1.1 404 \x1b[2J\xe2\x80\xae\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: \xff\r\n\r\n",
    ],
    ids=["no UTF-8", "NUL", "terminal codes", "header"],
)
async def test_whatever_a_server_answers_is_told_and_all_objects_stay_readable(
    client: Client, answer: bytes
) -> None:
    async with answering(answer) as url:
        job = await client.import_path("web", url)
        found = await client.completed(job)
    assert found["ErrorName"] == ErrorName.DOWNLOAD_FAILED
    assert found["ErrorMessage"].isprintable()
    assert job in await client.objects()


async def test_more_is_provisioned_than_a_number_holds_and_the_pool_stays_readable(
    bus_address: str, connected: Client
) -> None:
    """On a tmpfs, whose files may be as large as that."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        directory = Path(folder) / "disks"
        directory.mkdir()
        process = ServiceProcess(bus_address, directory)
        await process.start(connected.connection)
        try:
            for name in ("a", "b", "c"):
                await connected.create(name, 2**63 - 2**17)
            (pool,) = await connected.get("/org/mvirt/Zfs1", Interface.MANAGER, "Pools")
            found = await connected.get_all(pool, Interface.POOL)
        finally:
            await process.stop()
    assert (found["ProvisionedBytes"], found["VolumeCount"]) == (2**64 - 1, 3)
