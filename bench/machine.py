"""What is measured on real ZFS: ``make bench-machine`` runs it in the test machine.

``python -m bench.machine operations --arguments --volumes 100`` runs one alone, with arguments.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from tests.machine import image
from tests.machine.machine import Machine

from . import host, operations
from .report import Report, put_into, verdicts
from .samples import Verdict, lines_of

_RESULTS = "/root/bench"
_POOL = "tank"
_INSTALL = "tests/machine/guest/install && systemctl restart mvirt-zfs-dbus.service"
_UNMASK = "rm /etc/systemd/system/udisks2.service && systemctl daemon-reload"
"""UDisks2 is kept away from the tests: it opens every disk that appears."""
_TIMEOUT = 3600
"""Seconds; under emulation a run takes a quarter of that."""


def main() -> None:
    given = _parser().parse_args()
    wanted = given.names or list(_REPORTS)
    results = host.ROOT / "build" / "bench"
    machine = Machine("bench", processors=2)
    machine.start(image.ensure())
    try:
        machine.push()
        _do(machine, [_INSTALL])
        _do(machine, [_UNMASK])
        for name in wanted:
            command = ["python3", "-m", f"bench.{name}", _POOL, "--json", f"{_RESULTS}/{name}.json"]
            _do(machine, [*command, *given.arguments])
        machine.pull(_RESULTS, machine.directory / "results")
    finally:
        machine.stop()
    for name in wanted:
        found = json.loads((machine.directory / "results" / f"{name}.json").read_text())
        report = _report(name, found)
        report.write(results)
        print(f"\n{report.text()}\nThe same as JSON: {results / name}.json")
        if given.readme:
            put_into(host.ROOT / "bench" / "README.md", report)


def _do(machine: Machine, command: list[str]) -> None:
    if status := machine.exec(command, timeout=_TIMEOUT):
        raise SystemExit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.machine")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(_REPORTS)}")
    parser.add_argument(
        "--arguments", nargs=argparse.REMAINDER, default=[], help="for what runs in the machine"
    )
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md too")
    return parser


def _report(name: str, found: Mapping[str, Any]) -> Report:
    described = host.describe(Path("/"))
    guest = (
        f"in qemu: Linux {found['kernel']}, ZFS {found['zfs']}, {found['processors']} processors"
    )
    if found.get("masked"):
        guest += f", udev without {found['masked']}"
    return Report(
        name, "make bench-machine", described, [guest, *_REPORTS[name](found)], dict(found)
    )


# Writing to a zvol


def table(runs: Iterable[Mapping[str, Any]]) -> str:
    """Medians, one row a way to write, the cheapest in processor time first."""
    ways: dict[tuple[bool, int, int], list[Mapping[str, Any]]] = {}
    for run in runs:
        ways.setdefault((run["direct"], run["batch"], run["depth"]), []).append(run)
    rows = []
    for (direct, batch, depth), of_one in ways.items():
        rate = median(run["bytes"] / run["seconds"] for run in of_one) / (1 << 20)
        cost = median(run["cpu"] / run["bytes"] for run in of_one) * (1 << 30)
        how = "O_DIRECT" if direct else "page cache"
        rows.append((cost, [how, f"{batch >> 10}", f"{depth}", f"{rate:.1f}", f"{cost:.1f}"]))
    headings = ("written through", "KiB at once", "in flight", "MiB/s", "CPU s per GiB")
    return "\n".join(lines_of(headings, [row for _, row in sorted(rows)]))


# Operations


def operation_tables(found: Mapping[str, Any]) -> list[str]:
    return [
        _times("one caller, median ms", found["one"]),
        _times(f"{operations.AT_ONCE} at once, median ms of them all", found["ten"]),
        _listing(found),
        verdicts(operation_targets(found)),
    ]


def operation_targets(found: Mapping[str, Any]) -> list[Verdict]:
    listing = found["listing"]
    return [
        *(
            Verdict(f"{operation}{how}: times of zfs", ratio(found[part][operation]), 1.0, False)
            for part, how in (("one", ""), ("ten", f", {operations.AT_ONCE} at once"))
            for operation in found[part]
        ),
        Verdict(
            f"{listing['volumes']} zvols and {listing['snapshots']} snapshots listed: times as fast"
            " as zfs list",
            1 / ratio(listing["seconds"]),
            50,
            True,
        ),
    ]


def _times(heading: str, by_operation: Mapping[str, Mapping[str, list[float]]]) -> str:
    who = (operations.OURS, operations.THEIRS, operations.WITH_DEVICE)
    rows = [
        [operation, *(f"{median(times[each]) * 1000:.1f}" for each in who), f"{ratio(times):.2f}"]
        for operation, times in by_operation.items()
    ]
    return "\n".join(lines_of((heading, *who, f"{who[0]} / {who[1]}"), rows))


def _listing(found: Mapping[str, Any]) -> str:
    listing, start = found["listing"], found["start"]
    seconds = listing["seconds"]
    rows = [
        ["GetManagedObjects, ms", f"{median(seconds[operations.OURS]) * 1000:.1f}"],
        ["`zfs list -t all`, ms", f"{median(seconds[operations.THEIRS]) * 1000:.1f}"],
        [
            f"GetManagedObjects of UDisks2, {found['udisks']['disks']} of the disks, ms",
            f"{median(seconds[operations.UDISKS]) * 1000:.1f}",
        ],
        ["start of the service, s", f"{start['seconds']:.2f}"],
        ["CPU of it, s", f"{start['cpu']:.2f}"],
        ["memory then, MiB", f"{start['memory'] / (1 << 20):.1f}"],
    ]
    heading = f"{listing['volumes']} volumes, {listing['snapshots']} snapshots"
    return "\n".join(lines_of((heading, ""), rows))


def ratio(seconds: Mapping[str, list[float]]) -> float:
    """Ours over theirs: the median of the rounds, since both meet the same machine in each."""
    pairs = zip(seconds[operations.OURS], seconds[operations.THEIRS], strict=True)
    return median(ours / theirs for ours, theirs in pairs)


_REPORTS: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "zvol": lambda found: [table(found["runs"])],
    "operations": operation_tables,
}
"""What is run in the machine, and what tables are made of what it found."""


if __name__ == "__main__":
    main()
