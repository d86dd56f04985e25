"""One hostile user attacks the service while another client works.

The attacks are those of ``hostile.py``, by processes of their own. Figures are printed (``pytest
-s``); ``bench/hostile.py`` measures longer.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import hostile
import pytest
from busdaemon import BusDaemon

from mvirt_zfs_dbus.names import Interface

from .process import Client, ServiceProcess

CALLS = 100
OF_THE_BUS = ("no-reply", "bus")
"""Floods that a bus lets through as fast as it can: on a busy machine the others wait for the bus,
whoever the flood is for. They are measured, and not held to anything."""
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def bus_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusDaemon]:
    """With the limits of a system bus, which are a part of what protects the service."""
    daemon = BusDaemon(tmp_path_factory.mktemp("bus"), real_limits=True)
    yield daemon
    daemon.stop()


@asynccontextmanager
async def attack(address: str, name: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, hostile.__file__, address, name,
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout
    try:
        assert await process.stdout.readline(), f"the attack {name} did not begin"
        yield
        assert process.returncode is None, f"the attack {name} ended"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def latencies(client: Client, volume: str) -> list[float]:
    """Milliseconds of calls one after the other, reads and changes in turns."""
    taken = []
    for number in range(CALLS):
        started = time.perf_counter()
        if number % 2:
            assert await client.get(volume, Interface.VOLUME, "Name") == "good"
        else:
            await client.call(volume, Interface.VOLUME, "SetLabels", "a{ss}a{sv}", {}, {})
        taken.append((time.perf_counter() - started) * 1000)
    return taken


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
@pytest.mark.parametrize("name", [name for name in hostile.ATTACKS if name not in OF_THE_BUS])
async def test_a_hostile_user_keeps_nobody_from_being_served(
    client: Client, service: ServiceProcess, bus_daemon: BusDaemon, name: str
) -> None:
    volume = await client.create("good")
    await asyncio.gather(*(client.create(f"v{number}", 16384) for number in range(50)))
    alone = statistics.median(await latencies(client, volume))
    async with attack(bus_daemon.address, name):
        attacked = statistics.median(await latencies(client, volume))
    print(f"\n{name}: median {attacked:.2f} ms, alone {alone:.2f} ms")
    assert service.process
    assert service.process.returncode is None
    log = service.log.read_text()
    assert "Traceback" not in log
    assert log.count("CreateVolume") < 50 + 200  # of tens of thousands
    await client.create("afterwards")
