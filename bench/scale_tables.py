"""What the benchmark of scale measured, as tables and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from .samples import Verdict, lines_of

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Measured:
    """One service with so much in its tree. Times are seconds, memory is bytes; ``cpu`` is what the
    service's own process took, however busy the machine was."""

    volumes: int
    snapshots: int
    start: float
    """From its process's start to its name and the whole tree on the bus."""
    start_cpu: float
    start_cold: float
    """A start with nothing in the page cache, neither Python nor the store; 0 if not asked for."""
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


def table(measured: Sequence[Measured]) -> str:
    headings = (
        "volumes + snapshots",
        "start s",
        "CPU s",
        "cold s",
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
            f"{each.start_cold:.2f}" if each.start_cold else "",
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
