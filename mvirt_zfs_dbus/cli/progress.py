"""Showing a job while it runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
from typing import Protocol, Self

from ..client import Progress
from ..model import JobState
from ..units import format_duration, format_size


def progress_text(progress: Progress) -> str:
    """``45 %  2.3 MiB of 5.1 MiB  1.9 MiB/s  2 s left``, as much of it as is known."""
    parts = []
    if progress.fraction is not None:
        parts.append(f"{progress.fraction:.0%}".replace("%", " %"))
    done = format_size(progress.bytes_done)
    parts.append(f"{done} of {format_size(progress.bytes_total)}" if progress.bytes_total else done)
    if progress.rate and not progress.finished:
        parts.append(f"{format_size(progress.rate)}/s")
    if progress.seconds_left is not None and not progress.finished:
        parts.append(f"{format_duration(progress.seconds_left)} left")
    return "  ".join(parts)


class Display(Protocol):
    """Shows what a job reports, until it is left."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def show(self, progress: Progress) -> None: ...


class Silent:
    """Shows nothing: standard output belongs to JSON."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, progress: Progress) -> None:
        return


class Lines:
    """A line for every phase and every tenth of the way: for logs and pipes."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, progress: Progress) -> None:
        if progress.state is JobState.RUNNING and not progress.phase:
            return  # it begins just now
        if progress.finished and progress.state is not JobState.DONE:
            return  # what it ended with is told as an error
        step = progress.phase or progress.state, int((progress.fraction or 0) * 10)
        if step != self._last:
            self._last = step
            print(f"{step[0]:<12} {progress_text(progress)}", flush=True)


class Bar:
    """A bar of rich's, redrawn in place."""

    def __init__(self) -> None:
        from rich import console
        from rich import progress as rich_progress

        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description:<12}"),
            rich_progress.BarColumn(),
            rich_progress.TextColumn("{task.fields[text]}"),
            console=console.Console(),
        )
        self._task = self._bar.add_task("waiting", total=None, text="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, progress: Progress) -> None:
        self._bar.update(
            self._task,
            description=progress.phase or progress.state,
            total=None if progress.fraction is None else 1.0,
            completed=progress.fraction or 0.0,
            text=progress_text(progress),
        )


def display(*, as_json: bool) -> Display:
    """The display that suits standard output. rich itself honours NO_COLOR."""
    if as_json:
        return Silent()
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return Lines()
    try:
        return Bar()
    except ImportError:  # rich is an extra of the package
        return Lines()
