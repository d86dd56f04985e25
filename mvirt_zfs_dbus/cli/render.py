"""Tables, lists of fields and JSON: what mvirt-zfsctl prints of objects."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TextIO

from ..client import RemoteObject

_GAP: Final = 2
_SHORTEST: Final = 8
"""Columns a shortened text keeps, its … included."""

Json = Mapping[str, object] | Sequence[Mapping[str, object]]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Aligned columns under their names; a column named in lower case holds numbers, set right.

    A lower-case name is printed in capitals like the others. Where the table is wider than
    ``width``, a last column Id is left out, since names do as well, and long texts are shortened.
    """
    cells = [[column.upper() for column in columns], *(list(map(one_line, row)) for row in rows)]
    if width is not None and columns[-1] == "Id" and _total(_widths(cells)) > width:
        columns, cells = columns[:-1], [row[:-1] for row in cells]
    texts = [index for index, column in enumerate(columns) if not column.islower()]
    widths = _fitted(_widths(cells), texts, width)
    lines = (
        (" " * _GAP).join(
            _shortened(cell, width).ljust(width) if index in texts else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _fitted(widths: list[int], texts: Sequence[int], width: int | None) -> list[int]:
    """Take from the widest text, again and again, until all fit or nothing is left to take."""
    while width is not None and _total(widths) > width:
        widest = max(texts, key=lambda index: widths[index])
        if widths[widest] <= _SHORTEST:
            break
        widths[widest] -= 1
    return widths


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def fields(values: Mapping[str, str]) -> str:
    """One ``name: value`` a line, values aligned; those without a value are left out."""
    width = max((len(name) for name in values), default=0) + 1
    return "\n".join(
        f"{name + ':':<{width}} {one_line(value)}" for name, value in values.items() if value
    )


def labels(values: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(values.items()))


def one_line(text: str) -> str:
    """A text that others wrote, as labels and what processes are called: what a terminal would
    obey, or what would begin another line, is written as Python writes it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def plain(remote: RemoteObject) -> dict[str, object]:
    """An object in JSON: its properties as the service names them, and its path."""
    return {"Path": remote.path, **remote.properties}


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's answer goes: text for people, or JSON for scripts.

    JSON has the properties' names and values as the service gives them (docs/json.md), one
    document a line.
    """

    as_json: bool = False
    stream: TextIO | None = None
    """None: standard output, whatever it is when something is printed."""

    def text(self, text: str) -> None:
        """A sentence for people; nothing of it in JSON."""
        if not self.as_json:
            self._print(_lines(text))

    def answer(self, value: Json, text: str) -> None:
        self._print(json.dumps(value) if self.as_json else _lines(text))

    def object(self, one: RemoteObject, text: str) -> None:
        self.answer(plain(one), text)

    def table(
        self,
        objects: Sequence[RemoteObject],
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
    ) -> None:
        """A list of objects: as a table that fits the terminal, or whole into anything else."""
        self.answer([plain(each) for each in objects], table(columns, rows, self._width()))

    def _width(self) -> int | None:
        stream = self.stream or sys.stdout
        return shutil.get_terminal_size().columns if stream.isatty() else None

    def _print(self, text: str) -> None:
        print(text, file=self.stream or sys.stdout, flush=True)


def _lines(text: str) -> str:
    """Where its lines end is ours; what is in them may be others'."""
    return "\n".join(map(one_line, text.split("\n")))
