"""Imports side by side: how fairly they share, what they do together, what it takes meanwhile."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from . import host, images, ours, proc, service, watch
from .report import Report, verdicts
from .samples import Verdict, lines_of
from .watch import Watched

CASES: Final = ((1, 16), (4, 16), (16, 16), (16, 4))
"""Imports that are asked for at once, and how many the service lets run (``max-imports``, 4 by
default)."""
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Options:
    size: int = 256 * _MIB
    """Bytes of each disk."""
    rounds: int = 5
    directory: Path | None = None
    images: Path | None = None


@dataclass(frozen=True, slots=True)
class Together:
    """One round: imports that were asked for in one moment."""

    seconds: float
    """Until the last was done."""
    cpu: float
    each: Sequence[float]
    """Seconds that each one ran, without its wait for its turn."""

    @property
    def fairness(self) -> float:
        """The slowest over the fastest; 1 is fair."""
        return max(self.each) / min(self.each)


@dataclass(frozen=True, slots=True)
class Case:
    imports: int
    at_a_time: int
    size: int
    """Bytes of each disk."""
    rounds: Sequence[Together]
    meanwhile: Watched

    @property
    def name(self) -> str:
        return _name(self.imports, self.at_a_time)

    @property
    def rate(self) -> float:
        """Bytes of disk per second, of all together."""
        return self.imports * self.size / median(each.seconds for each in self.rounds)

    @property
    def fairness(self) -> float:
        return median(each.fairness for each in self.rounds)


async def run(options: Options) -> Report:
    build = host.ROOT / "build" / "bench"
    directory = options.directory or build
    directory.mkdir(parents=True, exist_ok=True)
    machine = host.describe(directory)
    made = await asyncio.to_thread(images.make, options.images or build / "images", options.size)
    cases = []
    async with AsyncExitStack() as stack:
        services = {}
        for at_a_time in sorted({each for _, each in CASES}):
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="together-", dir=directory)
            )
            services[at_a_time] = await stack.enter_async_context(
                service.running(Path(folder), "--max-imports", str(at_a_time))
            )
        for count, at_a_time in CASES:
            print(_name(count, at_a_time), flush=True)
            work = partial(together, services[at_a_time], made.zlib, count)
            rounds = [await work() for _ in range(options.rounds)]
            name = _name(count, at_a_time)
            meanwhile = await watch.watched(name, services[at_a_time], work)
            cases.append(Case(count, at_a_time, options.size, rounds, meanwhile))
    found = targets(cases)
    return Report(
        "together",
        "make bench BENCH=together",
        machine,
        [table(cases), verdicts(found)],
        {
            "disk_bytes": options.size,
            "cases": [asdict(each) for each in cases],
            "verdicts": [each.as_json() for each in found],
        },
    )


async def together(running: service.Service, image: Path, count: int) -> Together:
    """Ask for all of them at once, wait for all of them, and delete what they made."""
    cpu, began = sum(proc.cpu(running.pid)), time.monotonic()
    jobs = await asyncio.gather(
        *(running.client.manager.import_image(f"bench-{n}", str(image)) for n in range(count))
    )
    paths = await asyncio.gather(*(job.wait() for job in jobs))
    seconds, cpu = time.monotonic() - began, sum(proc.cpu(running.pid)) - cpu
    for path in paths:
        await ours.delete(running.client, path)
    return Together(seconds, cpu, [(job.finished_at - job.started_at) / 1e6 for job in jobs])


def _name(imports: int, at_a_time: int) -> str:
    if imports == 1:
        return "1"
    return f"{imports}" if at_a_time >= imports else f"{imports}, {at_a_time} at a time"


# What it comes to


def table(cases: Sequence[Case]) -> str:
    headings = (
        "imports",
        "all s",
        "MiB/s",
        "CPU s",
        "slowest / fastest",
        "daemon grows MiB",
        "with workers MiB",
        "Ping median ms",
        "Ping max ms",
    )
    rows = [
        [
            case.name,
            f"{median(each.seconds for each in case.rounds):.2f}",
            f"{case.rate / _MIB:.0f}",
            f"{median(each.cpu for each in case.rounds):.2f}",
            f"{case.fairness:.2f}",
            f"{case.meanwhile.daemon_growth / _MIB:.1f}",
            f"{case.meanwhile.growth / _MIB:.0f}",
            f"{case.meanwhile.ping_median * 1000:.2f}",
            f"{case.meanwhile.ping_max * 1000:.1f}",
        ]
        for case in cases
    ]
    return "\n".join(lines_of(headings, rows))


def targets(cases: Sequence[Case]) -> list[Verdict]:
    """Of the imports that run at once; the figures of one import hold for each of them."""
    alone, most = cases[0], max(cases, key=lambda case: (case.imports, case.at_a_time))
    memory = most.meanwhile.growth / _MIB / most.imports
    return [
        Verdict(f"{most.name} together: times the rate of one", most.rate / alone.rate, 1.0, True),
        Verdict(f"{most.name}: the slowest's time over the fastest's", most.fairness, 2.0, False),
        Verdict(f"{most.name}: memory an import", memory, 150, False, " MiB"),
        Verdict(f"{most.name}: median Ping", most.meanwhile.ping_median * 1000, 5, False, " ms"),
        Verdict(f"{most.name}: longest Ping", most.meanwhile.ping_max * 1000, 50, False, " ms"),
    ]
