"""The results as pictures: ``python -m bench plot`` draws them into ``docs/plots/``.

Two kinds of chart are all there is need for, and an SVG of them is a few dozen lines of text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from . import operations
from .machine import ratio

_WIDTH: Final = 640
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 34, 34
_PLOT_HEIGHT: Final = 180
_BAR: Final = 20
_NAMES: Final = 260
"""Pixels for the names of bars."""
_MIB: Final = 1 << 20

Point = tuple[float, float]


def draw(results: Path, folder: Path) -> list[Path]:
    """Draw every benchmark that has results; the answer is what was written."""
    written = []
    for name, picture in _PICTURES.items():
        source = results / f"{name}.json"
        if source.exists():
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / f"{name}.svg"
            target.write_text(picture(json.loads(source.read_text())))
            written.append(target)
    return written


# Which pictures there are


def _scale(found: Mapping[str, Any]) -> str:
    stores = [each for each in found["stores"] if each["snapshots"]]
    figures: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "start, CPU seconds": lambda each: each["start_cpu"],
        "GetManagedObjects, CPU milliseconds": lambda each: each["managed_cpu"] * 1000,
        "PropertiesChanged of all volumes, CPU milliseconds": lambda each: (
            (each["changed_cpu"] - each["unchanged_cpu"]) * 1000
        ),
        "CreateVolume, milliseconds": lambda each: each["create"] * 1000,
        "memory at rest, MiB": lambda each: each["memory"] / _MIB,
    }
    return _stack(
        lines(
            title,
            "volumes and snapshots",
            [(each["volumes"] + each["snapshots"], figure(each)) for each in stores],
        )
        for title, figure in figures.items()
    )


def _imports(found: Mapping[str, Any]) -> str:
    cases = dict.fromkeys(each["case"] for each in found["samples"])
    return _stack(
        bars(
            f"{case}: seconds",
            [
                (each["contestant"], each["median_seconds"])
                for each in found["samples"]
                if each["case"] == case
            ],
        )
        for case in cases
    )


def _operations(found: Mapping[str, Any]) -> str:
    titles = {"one": "one caller", "ten": f"{operations.AT_ONCE} callers at once"}
    return _stack(
        bars(
            f"{title}: times of zfs(8), over D-Bus",
            [(operation, ratio(seconds)) for operation, seconds in found[part].items()],
        )
        for part, title in titles.items()
    )


_PICTURES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "scale": _scale,
    "imports": _imports,
    "operations": _operations,
}


# How they are drawn


def lines(title: str, across: str, points: Sequence[Point]) -> tuple[int, list[str]]:
    """The height of a chart and its elements: one line from the origin on, so that what is linear
    looks so."""
    right, top = _nice(max(x for x, _ in points)), _nice(max(y for _, y in points))
    width, base = _WIDTH - _LEFT - _RIGHT, _TOP + _PLOT_HEIGHT

    def place(x: float, y: float) -> tuple[str, str]:
        return f"{_LEFT + x / right * width:.1f}", f"{base - y / top * _PLOT_HEIGHT:.1f}"

    elements = [_text(_LEFT, _TOP - 14, title, bold=True)]
    for part in range(5):
        value = top * part / 4
        _, y = place(0, value)
        elements.append(f'<path class="grid" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>')
        elements.append(_text(_LEFT - 6, float(y) + 4, f"{value:g}", anchor="end"))
    placed = [place(*point) for point in points]
    elements.append(f'<path class="line" d="M{" L".join(f"{x} {y}" for x, y in placed)}"/>')
    for (x, y), (value, _) in zip(placed, points, strict=True):
        elements.append(f'<circle cx="{x}" cy="{y}" r="3.5"/>')
        elements.append(_text(float(x), base + 16, f"{value:,.0f}", anchor="middle"))
    elements.append(_text(_LEFT, base + 16, across))
    return base + _BOTTOM, elements


def bars(title: str, rows: Sequence[tuple[str, float]]) -> tuple[int, list[str]]:
    """The same of bars, each with its name before and its value behind it."""
    most = max(value for _, value in rows)
    room = _WIDTH - _NAMES - _RIGHT - 50
    elements = [_text(_LEFT, _TOP - 14, title, bold=True)]
    for number, (name, value) in enumerate(rows):
        y = _TOP + number * _BAR
        length = value / most * room
        elements.append(_text(_NAMES - 6, y + 13, name, anchor="end"))
        elements.append(
            f'<rect x="{_NAMES}" y="{y + 2}" width="{length:.1f}" height="{_BAR - 5}"/>'
        )
        elements.append(_text(_NAMES + length + 6, y + 13, f"{value:.2f}"))
    return _TOP + len(rows) * _BAR + 14, elements


def _nice(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten, for the end of an axis."""
    if value <= 0:
        return 1.0
    power = 10.0 ** len(str(int(value))) / 10 if value >= 1 else 0.1
    while power > value:
        power /= 10
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= value)


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


_STYLE: Final = (
    "text{font:12px sans-serif;fill:#444}.grid{stroke:#ddd}"
    ".line{stroke:#2a6fb0;stroke-width:2;fill:none}circle,rect{fill:#2a6fb0}"
)


def _stack(charts: Iterable[tuple[int, list[str]]]) -> str:
    """One picture of charts below each other."""
    height, parts = 0, []
    for its_height, elements in charts:
        parts += [f'<g transform="translate(0 {height})">', *elements, "</g>"]
        height += its_height
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">',
            f"<style>{_STYLE}</style>",
            '<rect width="100%" height="100%" style="fill:#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )
