"""One service with thousands of volumes and tens of thousands of snapshots in its tree."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from mvirt_zfs_dbus.names import ROOT, Interface

from . import commands, disks, host, proc, service
from .raw import RawClient, Reply
from .report import Report, verdicts
from .scale_tables import Measured, linearity, table, targets

SNAPSHOTS_EACH: Final = 4
_OBJECT_MANAGER: Final = "org.freedesktop.DBus.ObjectManager"
_CALLS: Final = 200
"""Calls of GetVolume."""
_CREATED: Final = 20
"""Volumes made one after the other."""


@dataclass(frozen=True, slots=True)
class Options:
    volumes: int = 5000
    """Of the largest store; there is one of half and one of a quarter of it."""
    rounds: int = 5
    rest: float = 60.0
    """Seconds of looking at a service that nobody calls."""
    directory: Path | None = None
    """Where the disks are; None for the checkout's ``build/bench``."""
    cold: bool = False
    """Whether services are started with an empty page cache too, which only root can make."""


async def run(options: Options) -> Report:
    directory = options.directory or host.ROOT / "build" / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    machine = host.describe(directory)
    most = options.volumes
    stores = [
        (0, 0),
        (most, 0),
        *((volumes, SNAPSHOTS_EACH) for volumes in (most // 4, most // 2, most)),
    ]
    measured = []
    for volumes, each in stores:
        rest = options.rest if (volumes, each) == stores[-1] else 0.0
        print(f"{volumes} volumes with {each} snapshots each", flush=True)
        with tempfile.TemporaryDirectory(prefix="scale-", dir=directory) as folder:
            measured.append(await _measure(Path(folder), volumes, each, rest=rest, options=options))
    found = targets(measured)
    return Report(
        "scale",
        "make bench BENCH=scale",
        machine,
        [table(measured), linearity(measured), verdicts(found)],
        {
            "rounds": options.rounds,
            "stores": [asdict(each) for each in measured],
            "verdicts": [each.as_json() for each in found],
        },
    )


async def _measure(
    folder: Path, volumes: int, each: int, *, rest: float, options: Options
) -> Measured:
    await asyncio.to_thread(disks.fill, folder / "disks", volumes, each)
    start_cold = await _cold_start(folder) if options.cold else 0.0
    async with service.running(folder) as running:
        start_cpu = proc.on_cpu(running.pid)
        memory, memory_all = proc.resident(running.pid), proc.resident_all(running.pid)
        cpu, wakeups = proc.on_cpu(running.pid), proc.wakeups(running.pid)
        await asyncio.sleep(rest)
        rest_cpu = proc.on_cpu(running.pid) - cpu
        wakeups = proc.wakeups(running.pid) - wakeups
        work = _Asking(running, volumes, options.rounds)
        managed, managed_cpu = await asyncio.to_thread(work.managed)
        find = await asyncio.to_thread(work.find)
        create, create_cpu = await asyncio.to_thread(work.create)
        _, unchanged_cpu = await asyncio.to_thread(work.refresh)
        changed, changed_cpu = await asyncio.to_thread(work.change)
        return Measured(
            volumes=volumes,
            snapshots=volumes * each,
            start=running.ready,
            start_cpu=start_cpu,
            start_cold=start_cold,
            memory=memory,
            memory_all=memory_all,
            managed=managed.seconds,
            managed_cpu=managed_cpu,
            managed_bytes=managed.size,
            find=find,
            create=create,
            create_cpu=create_cpu,
            unchanged_cpu=unchanged_cpu,
            changed=changed.seconds,
            changed_cpu=changed_cpu,
            signals=changed.signals,
            tree=await asyncio.to_thread(work.tree),
            memory_after=proc.resident(running.pid),
            rest=rest,
            rest_cpu=rest_cpu,
            wakeups=wakeups,
        )


async def _cold_start(folder: Path) -> float:
    await asyncio.to_thread(host.empty_page_cache)
    async with service.running(folder) as running:
        return running.ready


@dataclass(frozen=True, slots=True)
class _Asking:
    """What clients ask of a service, blocking."""

    running: service.Service
    volumes: int
    rounds: int

    def managed(self) -> tuple[Reply, float]:
        with RawClient(self.running.bus) as client:
            return self._median(
                lambda: client.call("GetManagedObjects", path=ROOT, interface=_OBJECT_MANAGER)
            )

    def find(self) -> float:
        if not self.volumes:
            return 0.0
        step = max(self.volumes // _CALLS, 1)
        names = [disks.volume_name(number) for number in range(0, self.volumes, step)]
        with RawClient(self.running.bus) as client:
            return median(
                client.call(
                    "GetVolume", "s", name, path=ROOT, interface=str(Interface.MANAGER)
                ).seconds
                for name in names
            )

    def create(self) -> tuple[float, float]:
        """Of each the median seconds, and its share of the service's processor time."""
        with RawClient(self.running.bus) as client:
            before = proc.on_cpu(self.running.pid)
            taken = [
                client.call(
                    "CreateVolume",
                    "sta{sv}",
                    f"new-{number}",
                    disks.SIZE,
                    {},
                    path=ROOT,
                    interface=str(Interface.MANAGER),
                ).seconds
                for number in range(_CREATED)
            ]
            return median(taken), (proc.on_cpu(self.running.pid) - before) / _CREATED

    def refresh(self) -> tuple[Reply, float]:
        with RawClient(self.running.bus) as client:
            return self._median(lambda: self._refresh(client))

    def change(self) -> tuple[Reply, float]:
        """All volumes have another size each time."""

        def another(client: RawClient) -> Callable[[], Reply]:
            disks.grow(self.running.disks)
            return lambda: self._refresh(client)

        with RawClient(self.running.bus) as client:
            client.listen("type='signal',member='PropertiesChanged'")
            return _middle([self._timed(another(client)) for _ in range(self.rounds)])

    def tree(self) -> float:
        if not shutil.which("busctl"):
            return 0.0
        bus = f"--address={self.running.bus}"
        line = f"busctl {bus} --no-pager tree org.mvirt.Zfs1 > /dev/null"
        return commands.measured(commands.shell(line)).seconds

    def _refresh(self, client: RawClient) -> Reply:
        return client.call("Refresh", "a{sv}", {}, path=ROOT, interface=str(Interface.MANAGER))

    def _median(self, call: Callable[[], Reply]) -> tuple[Reply, float]:
        return _middle([self._timed(call) for _ in range(self.rounds)])

    def _timed(self, call: Callable[[], Reply]) -> tuple[Reply, float]:
        before = proc.on_cpu(self.running.pid)
        reply = call()
        return reply, proc.on_cpu(self.running.pid) - before


def _middle(found: Sequence[tuple[Reply, float]]) -> tuple[Reply, float]:
    """The call that took the median of processor time."""
    return sorted(found, key=lambda each: each[1])[len(found) // 2]
