"""The results of a benchmark: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import host
from .samples import Samples, Verdict, lines_of

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Report:
    """One benchmark, measured."""

    name: str
    command: str
    """What measures it again."""
    machine: dict[str, object]
    tables: Sequence[str]
    """Each a few lines of Markdown."""
    figures: dict[str, object]
    """What goes into the JSON beside the machine."""

    def text(self) -> str:
        head = f"`{self.command}`, {self.machine['date']}, {self.machine['commit']}:"
        return "\n\n".join([head, host.in_words(self.machine), *self.tables]) + "\n"

    def write(self, folder: Path) -> None:
        """``NAME.json`` and ``NAME.md`` in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {"benchmark": self.name, "command": self.command, "machine": self.machine}
        (folder / f"{self.name}.json").write_text(json.dumps(content | self.figures, indent=1))
        (folder / f"{self.name}.md").write_text(self.text())


def put_into(readme: Path, report: Report) -> None:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``. ValueError: nothing."""
    text = readme.read_text()
    begin, end = f"<!-- {report.name} -->\n", f"<!-- /{report.name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{readme} has no {begin.strip()} … {end}")
    readme.write_text(f"{before}{begin}\n{report.text()}\n{end}{after}")


def times(measured: Sequence[Samples], reference: str) -> str:
    """One row a contestant; the last column says how many times as fast ``reference`` is."""
    headings = ("", "median s", "fastest s", "CPU s", "memory MiB", f"{reference} is")
    rows: list[list[str]] = []
    for case in dict.fromkeys(each.case for each in measured):
        rows.append([f"**{case}**"])
        contestants = [each for each in measured if each.case == case]
        ours = next((each for each in contestants if each.contestant == reference), None)
        rows += [_row(each, ours) for each in contestants]
    return "\n".join(lines_of(headings, rows))


def _row(samples: Samples, ours: Samples | None) -> list[str]:
    ratio = "" if ours in (None, samples) else f"{samples.seconds / ours.seconds:.2f} ×"
    memory = f"{samples.memory / _MIB:.0f}" if samples.memory else ""
    figures = (samples.seconds, samples.fastest, samples.cpu)
    return [samples.contestant, *(f"{figure:.2f}" for figure in figures), memory, ratio]


def verdicts(found: Sequence[Verdict]) -> str:
    rows = [
        [
            each.text,
            "not run" if each.measured is None else f"{each.measured:.2f}{each.unit}",
            f"{'≥' if each.at_least else '≤'} {each.wanted:g}{each.unit}",
            {None: "", True: "met", False: "**not met**"}[each.met],
        ]
        for each in found
    ]
    return "\n".join(lines_of(("figure", "measured", "wanted", ""), rows))
