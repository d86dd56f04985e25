"""What an import does to the service meanwhile: its memory, and how long a Ping takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from statistics import median

from mvirt_zfs_dbus.client import Client
from mvirt_zfs_dbus.names import ROOT

from . import proc
from .service import Service

_MEMORY_INTERVAL = 0.02
"""Seconds between two looks; the workers live for a second or more."""
_PING_INTERVAL = 0.005
_PEER = "org.freedesktop.DBus.Peer"

Work = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Watched:
    """One import, run twice: once for its memory, once for the Pings."""

    case: str
    daemon_growth: int
    """Bytes that the daemon's own process grew by, at its peak."""
    growth: int
    """The same of all processes of the service together; shared memory counts once."""
    memory: int
    """Bytes of memory of them all at that moment."""
    ping_median: float
    """Seconds."""
    ping_max: float
    pings: int

    def as_json(self) -> dict[str, object]:
        return asdict(self)


async def watched(case: str, running: Service, work: Work) -> Watched:
    own_before, own_most, all_before, all_most = await _memory(running, work)
    pings = await _pings(running.bus, work)
    own, together = own_most - own_before, all_most - all_before
    return Watched(case, own, together, all_most, median(pings), max(pings), len(pings))


async def _memory(running: Service, work: Work) -> tuple[int, int, int, int]:
    """Of the daemon and of all, before and at most."""
    own_before, all_before = proc.resident(running.pid), proc.resident_all(running.pid)
    own_most, all_most = own_before, all_before

    async def look() -> None:
        nonlocal own_most, all_most
        while True:
            own_most = max(own_most, proc.resident(running.pid))
            all_most = max(all_most, proc.resident_all(running.pid))
            await asyncio.sleep(_MEMORY_INTERVAL)

    await _beside(look, work)
    return own_before, own_most, all_before, all_most


async def _pings(bus: str, work: Work) -> list[float]:
    taken: list[float] = []

    async def ping() -> None:
        async with Client.connect(bus, interactive=False) as client:
            while True:
                began = time.perf_counter()
                await client.remote.call(ROOT, _PEER, "Ping")
                taken.append(time.perf_counter() - began)
                await asyncio.sleep(_PING_INTERVAL)

    await _beside(ping, work)
    return taken


async def _beside(watch: Callable[[], Awaitable[None]], work: Work) -> None:
    async def watching() -> None:
        await watch()

    task = asyncio.create_task(watching())
    try:
        await work()
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
