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
from .samples import Verdict, lines_of

SNAPSHOTS_EACH: Final = 4
_OBJECT_MANAGER: Final = "org.freedesktop.DBus.ObjectManager"
_MIB: Final = 1 << 20
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


@dataclass(frozen=True, slots=True)
class Measured:
    """One service with so much in its tree. Times are seconds, memory is bytes; ``cpu`` is what the
    service's own process took, however busy the machine was."""

    volumes: int
    snapshots: int
    start: float
    """From its process's start to its name and the whole tree on the bus."""
    start_cpu: float
    memory: int
    """Of the daemon, before anybody called."""
    memory_all: int
    """Of all its processes."""
    memory_after: int
    """Of the daemon, after all that follows."""
    managed: float
    """GetManagedObjects, from the call to the last byte."""
    managed_cpu: float
    managed_bytes: int
    find: float
    """GetVolume by name."""
    create: float
    """CreateVolume; what the store takes to sync its files is in it."""
    create_cpu: float
    """With what the service does because files of the store have changed."""
    unchanged_cpu: float
    """Refresh, when nothing is new."""
    changed: float
    """Refresh, when each volume has another size: until the last PropertiesChanged."""
    changed_cpu: float
    signals: int
    tree: float
    """``busctl tree``; 0 where there is no busctl."""
    rest: float
    """Seconds of rest that the next two are about."""
    rest_cpu: float
    wakeups: int

    @property
    def objects(self) -> int:
        return self.volumes + self.snapshots

    @property
    def signals_cpu(self) -> float:
        """What the PropertiesChanged took, without the reading of the store."""
        return max(self.changed_cpu - self.unchanged_cpu, 0.0)


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
            measured.append(
                await _measure(Path(folder), volumes, each, rounds=options.rounds, rest=rest)
            )
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


async def _measure(folder: Path, volumes: int, each: int, *, rounds: int, rest: float) -> Measured:
    await asyncio.to_thread(disks.fill, folder / "disks", volumes, each)
    async with service.running(folder) as running:
        start_cpu = proc.on_cpu(running.pid)
        memory, memory_all = proc.resident(running.pid), proc.resident_all(running.pid)
        cpu, wakeups = proc.on_cpu(running.pid), proc.wakeups(running.pid)
        await asyncio.sleep(rest)
        rest_cpu = proc.on_cpu(running.pid) - cpu
        wakeups = proc.wakeups(running.pid) - wakeups
        work = _Asking(running, volumes, rounds)
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


# What it comes to


def table(measured: Sequence[Measured]) -> str:
    headings = (
        "volumes + snapshots",
        "start s",
        "CPU s",
        "memory MiB",
        "managed ms",
        "CPU ms",
        "MiB",
        "GetVolume ms",
        "create ms",
        "CPU ms",
        "all changed ms",
        "CPU ms",
        "busctl tree s",
    )
    rows = [
        [
            f"{each.volumes} + {each.snapshots}",
            f"{each.start:.2f}",
            f"{each.start_cpu:.2f}",
            f"{each.memory / _MIB:.1f}",
            f"{each.managed * 1000:.1f}",
            f"{each.managed_cpu * 1000:.1f}",
            f"{each.managed_bytes / _MIB:.1f}",
            f"{each.find * 1000:.2f}",
            f"{each.create * 1000:.1f}",
            f"{each.create_cpu * 1000:.1f}",
            f"{each.changed * 1000:.0f}",
            f"{each.signals_cpu * 1000:.0f}",
            f"{each.tree:.1f}",
        ]
        for each in measured
    ]
    return "\n".join(lines_of(headings, rows))


def linearity(measured: Sequence[Measured]) -> str:
    """What an object costs in each size, over what it costs in the smallest: 1 is linear."""
    _, _, smallest, *larger = measured
    costs: dict[str, Callable[[Measured], float]] = {
        "start, CPU": lambda each: each.start_cpu - measured[0].start_cpu,
        "GetManagedObjects, CPU": lambda each: each.managed_cpu,
        "PropertiesChanged of all, CPU": lambda each: each.signals_cpu,
        "memory": lambda each: each.memory - measured[0].memory,
        "busctl tree": lambda each: each.tree,
    }
    rows = [
        [name, *(f"{_per_object(each, smallest, cost):.2f}" for each in larger)]
        for name, cost in costs.items()
    ]
    headings = (f"an object's cost, over that with {smallest.objects}",)
    return "\n".join(lines_of((*headings, *(f"{each.objects}" for each in larger)), rows))


def _per_object(each: Measured, smallest: Measured, cost: Callable[[Measured], float]) -> float:
    least = cost(smallest) / smallest.objects
    return cost(each) / each.objects / least if least else 0.0


def targets(measured: Sequence[Measured]) -> list[Verdict]:
    empty, volumes, *_, most = measured
    per_volume = (volumes.memory - empty.memory) / volumes.volumes / 1024
    per_snapshot = (most.memory - volumes.memory) / most.snapshots / 1024
    return [
        Verdict(
            f"GetManagedObjects with {volumes.volumes} volumes, in the service",
            volumes.managed_cpu * 1000,
            100,
            False,
            " ms",
        ),
        Verdict(
            f"{volumes.signals} PropertiesChanged", volumes.signals_cpu * 1000, 250, False, " ms"
        ),
        Verdict("memory at rest, nothing in the pool", empty.memory / _MIB, 60, False, " MiB"),
        Verdict("the same with its fork server", empty.memory_all / _MIB, 60, False, " MiB"),
        Verdict("memory for a further volume", per_volume, 6, False, " KiB"),
        Verdict("memory for a further snapshot", per_snapshot, 6, False, " KiB"),
        Verdict(f"CPU in {most.rest:g} s of rest", most.rest_cpu * 1000, 0, False, " ms"),
        Verdict(f"wake-ups in {most.rest:g} s of rest", float(most.wakeups), 0, False),
    ]
