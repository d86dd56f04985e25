"""How long a good client waits while a hostile one of another user attacks the service.

``.venv/bin/python bench/hostile.py [ATTACK…]`` prints the median and the 99th percentile of a good
client's calls, alone and under each attack of ``tests/bus/hostile.py``.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/bus")]

import hostile  # noqa: E402
from busdaemon import BusDaemon  # noqa: E402
from service.process import Client, ServiceProcess, client_on  # noqa: E402

from mvirt_zfs_dbus.names import Interface  # noqa: E402

VOLUMES = int(os.environ.get("VOLUMES", 200))
SECONDS = float(os.environ.get("SECONDS", 5))
"""How long each column is measured."""


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


async def measured(work: Callable[[], Awaitable[object]]) -> list[float]:
    taken: list[float] = []
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        start = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - start) * 1000)
    return sorted(taken)


def cpu_seconds(pid: int) -> float:
    """proc(5), /proc/pid/stat: utime and stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def row(name: str, taken: dict[str, list[float]], busy: list[float]) -> str:
    cells = [f"{statistics.median(t):8.2f} {t[int(len(t) * 0.99)]:8.2f}" for t in taken.values()]
    return f"{name:14}" + "   ".join(cells) + "  " + " ".join(f"{b:8.0%}" for b in busy)


async def measure(client: Client, volume: str) -> dict[str, list[float]]:
    return {
        "read": await measured(lambda: client.get(volume, Interface.VOLUME, "Name")),
        "change": await measured(
            lambda: client.call(volume, Interface.VOLUME, "SetLabels", "a{ss}a{sv}", {}, {})
        ),
    }


async def show(name: str, client: Client, volume: str, pids: list[int]) -> None:
    before, started = [cpu_seconds(pid) for pid in pids], time.perf_counter()
    taken = await measure(client, volume)
    elapsed = time.perf_counter() - started
    busy = [(cpu_seconds(pid) - was) / elapsed for pid, was in zip(pids, before, strict=True)]
    print(row(name, taken, busy), flush=True)


async def main(attacks: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        directory = Path(folder) / "disks"
        directory.mkdir()
        bus = BusDaemon(Path(folder), real_limits=True)
        service = ServiceProcess(bus.address, directory)
        async with client_on(bus.address) as client:
            await service.start(client.connection)
            try:
                for number in range(VOLUMES):
                    await client.create(f"v{number}", 16384)
                volume = await client.create("good")
                assert service.process
                pids = [service.process.pid, bus.pid]
                print(f"{'ms':14}    read      p99     change      p99    service      bus")
                await show("alone", client, volume, pids)
                for name in attacks:
                    async with attack(bus.address, name):
                        await show(name, client, volume, pids)
            finally:
                await service.stop()
        bus.stop()


asyncio.run(main(sys.argv[1:] or list(hostile.ATTACKS)))
