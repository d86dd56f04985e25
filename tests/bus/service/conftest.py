"""A running service on the directory store, a client of it, and images to import."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from .ctl import Ctl
from .process import MIB, Client, ServiceProcess, client_on
from .web import files_of, serving


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "disks"
    made.mkdir()
    return made


@pytest.fixture
async def service(
    bus_address: str, directory: Path, connected: Client
) -> AsyncIterator[ServiceProcess]:
    process = ServiceProcess(bus_address, directory)
    await process.start(connected.connection)
    yield process
    await process.stop()


@pytest.fixture
async def connected(bus_address: str) -> AsyncIterator[Client]:
    """A client on the bus, whether or not the service is there."""
    async with client_on(bus_address) as found:
        yield found


@pytest.fixture
async def client(service: ServiceProcess, connected: Client) -> Client:
    """A client of the running service."""
    return connected


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One disk of 2 MiB as raw and qcow2, and images that must be refused; made by qemu-img."""
    folder = tmp_path_factory.mktemp("images")
    made = {kind: folder / f"disk.{kind}" for kind in ("raw", "qcow2", "qed", "backing")}
    content = random.Random(1).randbytes(MIB // 2)
    made["raw"].write_bytes(content + bytes(MIB) + content)

    def qemu_img(*arguments: str | Path) -> None:
        subprocess.run(["qemu-img", *arguments], check=True, stdout=subprocess.DEVNULL)

    qemu_img("convert", "-c", "-O", "qcow2", made["raw"], made["qcow2"])
    qemu_img("create", "-f", "qed", made["qed"], "2M")
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", made["raw"], made["backing"])
    whole = made["qcow2"].read_bytes()
    made["truncated"] = folder / "truncated.qcow2"
    made["truncated"].write_bytes(whole[: len(whole) // 2])
    made["corrupt"] = folder / "corrupt.qcow2"
    l1_table_offset = (2**40).to_bytes(8, "big")  # qcow2.txt, header bytes 40 to 47
    made["corrupt"].write_bytes(whole[:40] + l1_table_offset + whole[48:])
    return made


@pytest.fixture
def image(images: dict[str, Path]) -> Path:
    return images["raw"]


@pytest.fixture
def ctl(service: ServiceProcess) -> Ctl:
    return Ctl(service.address)


@pytest.fixture
async def slow_url() -> AsyncIterator[str]:
    """An image over HTTP that takes most of an hour."""

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(64 * MIB)})
        await response.prepare(request)
        try:
            while True:
                await response.write(b"\xeb" * 4096)
                await asyncio.sleep(0.2)
        except ConnectionError:
            return response

    application = web.Application()
    application.router.add_get("/slow.img", slow)
    async with serving(application) as url:
        yield f"{url}/slow.img"


@pytest.fixture
async def image_url(images: dict[str, Path]) -> AsyncIterator[str]:
    """A whole image over HTTP."""
    async with serving(files_of(images["raw"].parent)) as url:
        yield f"{url}/{images['qcow2'].name}"
