"""Tables, lists of fields and JSON: what mvirt-zfsctl prints of objects."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from ..client import RemoteObject


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns under their names; a column named in lower case holds numbers, set right.

    A lower-case name is printed in capitals like the others.
    """
    cells = [[column.upper() for column in columns], *rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    numeric = [column.islower() for column in columns]
    lines = (
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    )
    return "\n".join(lines)


def fields(values: Mapping[str, str]) -> str:
    """One ``name: value`` a line, values aligned; those without a value are left out."""
    width = max((len(name) for name in values), default=0) + 1
    return "\n".join(f"{name + ':':<{width}} {value}" for name, value in values.items() if value)


def labels(values: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(values.items()))


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's answer goes: text for people, or JSON for scripts.

    JSON has the properties' names and values as the service gives them (docs/reference.md), with
    the object path as ``Path``.
    """

    as_json: bool = False
    stream: TextIO | None = None
    """None: standard output, whatever it is when something is printed."""

    def text(self, text: str) -> None:
        """A sentence or a table for people; nothing of it in JSON."""
        if not self.as_json:
            self._print(text)

    def objects(self, objects: Sequence[RemoteObject], text: str) -> None:
        self._print(json.dumps([_plain(each) for each in objects]) if self.as_json else text)

    def object(self, one: RemoteObject, text: str) -> None:
        self._print(json.dumps(_plain(one)) if self.as_json else text)

    def _print(self, text: str) -> None:
        print(text, file=self.stream or sys.stdout, flush=True)


def _plain(remote: RemoteObject) -> dict[str, object]:
    return {"Path": remote.path, **remote.properties}
