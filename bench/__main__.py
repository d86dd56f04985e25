"""``python -m bench [NAME…]``: run benchmarks; ``make bench`` calls it.

``python -m bench plot`` draws what was measured.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from . import host, imports, plot, scale, together
from .report import Report, put_into

BENCHMARKS: Mapping[str, Callable[[argparse.Namespace], Awaitable[Report]]] = {
    "imports": lambda given: imports.run(
        imports.Options(given.size << 20, given.rounds, given.directory, given.images, given.only)
    ),
    "together": lambda given: together.run(
        together.Options((given.size << 20) // 8, given.rounds, given.directory, given.images)
    ),
    "scale": lambda given: scale.run(
        scale.Options(given.volumes, given.rounds, given.rest, given.directory, given.cold)
    ),
}
"""What ``make bench`` runs, in this order."""
_RESULTS = host.ROOT / "build" / "bench"


def main() -> None:
    given = _parser().parse_args()
    if given.names == ["plot"]:
        for picture in plot.draw(given.results, host.ROOT / "docs" / "plots"):
            print(picture)
        return
    for name in given.names or BENCHMARKS:
        print(f"== {name}", flush=True)
        report = asyncio.run(_run(name, given))
        report.write(given.results)
        print(f"\n{report.text()}\nThe same as JSON: {given.results / name}.json")
        if given.readme:
            put_into(host.ROOT / "bench" / "README.md", report)


async def _run(name: str, given: argparse.Namespace) -> Report:
    return await BENCHMARKS[name](given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all if none is given"
    )
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s")
    parser.add_argument(
        "--size",
        type=int,
        default=2048,
        metavar="MIB",
        help="of the disk; %(default)s (an eighth of it for imports side by side)",
    )
    parser.add_argument(
        "--directory", type=Path, help="where disks are written; build/bench if not given"
    )
    parser.add_argument(
        "--images", type=Path, help="where images are kept; build/bench/images if not given"
    )
    parser.add_argument("--volumes", type=int, default=5000, help="of the largest; %(default)s")
    parser.add_argument("--rest", type=float, default=60, metavar="SECONDS", help="%(default)s")
    parser.add_argument(
        "--cold", action="store_true", help="start with an empty page cache too; only root can"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their name")
    parser.add_argument(
        "--results", type=Path, default=_RESULTS, metavar="FOLDER", help="%(default)s"
    )
    parser.add_argument(
        "--readme", action="store_true", help="put the tables into bench/README.md too"
    )
    return parser


if __name__ == "__main__":
    main()
