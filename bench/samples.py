"""What one run of one contestant took, and what many of them come to. Plain values, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median


@dataclass(frozen=True, slots=True)
class Sample:
    """One whole process or job."""

    seconds: float
    user: float
    """CPU seconds, of all its processes."""
    system: float
    memory: int = 0
    """Bytes of memory at its peak; 0 where that is measured elsewhere."""


@dataclass(slots=True)
class Samples:
    """The runs of one contestant in one case."""

    case: str
    contestant: str
    runs: list[Sample] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self._median(lambda run: run.seconds)

    @property
    def fastest(self) -> float:
        return min(run.seconds for run in self.runs)

    @property
    def cpu(self) -> float:
        return self._median(lambda run: run.user + run.system)

    @property
    def memory(self) -> int:
        return max(run.memory for run in self.runs)

    def _median(self, value: Callable[[Sample], float]) -> float:
        return median(value(run) for run in self.runs)

    def as_json(self) -> dict[str, object]:
        return {
            "case": self.case,
            "contestant": self.contestant,
            "median_seconds": self.seconds,
            "median_cpu_seconds": self.cpu,
            "peak_memory": self.memory,
            "runs": [asdict(run) for run in self.runs],
        }


class Figures:
    """All medians of one benchmark, by case and contestant."""

    def __init__(self, measured: Iterable[Samples]) -> None:
        self._measured = {(each.case, each.contestant): each for each in measured}

    def seconds(self, case: str, contestant: str) -> float:
        """The median. KeyError: it was not measured in this run."""
        return self._measured[case, contestant].seconds

    def times_as_fast(self, case: str, ours: str, peer: str) -> float:
        return self.seconds(case, peer) / self.seconds(case, ours)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure that was asked for, and what it came to."""

    text: str
    measured: float | None
    """None: its cases did not run."""
    wanted: float
    at_least: bool
    """Whether ``wanted`` is a lower bound; else it is an upper one."""
    unit: str = ""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.wanted if self.at_least else self.measured <= self.wanted

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"met": self.met}


def lines_of(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table for the terminal and for Markdown alike: the first column is words, the rest numbers.

    A row of one cell alone is a heading between rows.
    """
    body = [list(row) + [""] * (len(headings) - len(row)) for row in rows]
    table = [list(headings), *body]
    widths = [max(len(row[n]) for row in table) for n in range(len(headings))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [_line(row, widths) for row in (table[0], rule, *body)]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(cells)} |"
