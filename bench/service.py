"""The real service on a private bus, with its disks in a directory, and what it takes."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mvirt_zfs_dbus.client import Client

_PATIENCE = 60.0
"""Seconds for bus and service to start."""


@dataclass(frozen=True, slots=True)
class Service:
    bus: str
    """Its address."""
    pid: int
    disks: Path
    client: Client
    ready: float
    """Seconds from its process's start until it had its name and every object was on the bus."""


@asynccontextmanager
async def running(folder: Path, *arguments: str) -> AsyncIterator[Service]:
    """The service in ``folder``, until the block is left; what is in ``folder/disks`` is its."""
    address = f"unix:path={folder}/bus"
    disks = folder / "disks"
    disks.mkdir(exist_ok=True)
    bus = ("dbus-daemon", "--session", "--nofork", "--print-address=1", f"--address={address}")
    program = (sys.executable, "-m", "mvirt_zfs_dbus", "--directory", str(disks), "--bus", address)
    state = ("--state-directory", str(folder / "state"), "--log-level", "warning")
    async with _process(*bus, stdout=asyncio.subprocess.PIPE) as dbus_daemon:
        assert dbus_daemon.stdout
        async with asyncio.timeout(_PATIENCE):
            await dbus_daemon.stdout.readline()  # its address: it listens
        with _notify_socket(folder / "notify") as ready:
            environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
            began = time.perf_counter()
            async with _process(*program, *state, *arguments, env=environment) as service:
                async with asyncio.timeout(_PATIENCE):
                    await _until_ready(ready)
                taken = time.perf_counter() - began
                async with Client.connect(address, interactive=False) as client:
                    yield Service(address, service.pid, disks, client, taken)


@asynccontextmanager
async def _process(
    *command: str, env: dict[str, str] | None = None, stdout: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(*command, env=env, stdout=stdout)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _notify_socket(path: Path) -> socket.socket:
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ready.setblocking(False)
    path.unlink(missing_ok=True)  # of a service that ran here before
    ready.bind(str(path))
    return ready


async def _until_ready(ready: socket.socket) -> None:
    """sd_notify(3): a datagram of lines, one of them READY=1."""
    loop = asyncio.get_running_loop()
    while b"READY=1" not in (await loop.sock_recv(ready, 4096)).splitlines():
        pass
