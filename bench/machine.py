"""What is measured on real ZFS: ``make bench-machine`` runs it in the test machine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from tests.machine import image
from tests.machine.machine import Machine

from . import host
from .report import Report
from .samples import lines_of

_RESULTS = "/root/bench"
_TIMEOUT = 3600
"""Seconds; under emulation a run takes a quarter of that."""


def main() -> None:
    results = host.ROOT / "build" / "bench"
    machine = Machine("bench")
    machine.start(image.ensure())
    try:
        machine.push()
        command = f"python3 -m bench.zvol tank --json {_RESULTS}/zvol.json"
        if status := machine.exec([command], timeout=_TIMEOUT):
            raise SystemExit(status)
        machine.pull(_RESULTS, machine.directory / "results")
    finally:
        machine.stop()
    report = zvol_report(json.loads((machine.directory / "results" / "zvol.json").read_text()))
    report.write(results)
    print(f"\n{report.text()}\nThe same as JSON: {results / 'zvol.json'}")


def zvol_report(found: Mapping[str, Any]) -> Report:
    described = host.describe(Path("/"))
    guest = (
        f"in qemu: Linux {found['kernel']}, ZFS {found['zfs']}, {found['processors']} processors"
    )
    return Report(
        "zvol", "make bench-machine", described, [guest, table(found["runs"])], dict(found)
    )


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


if __name__ == "__main__":
    main()
