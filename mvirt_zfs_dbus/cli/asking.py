"""Questions to the person at the terminal."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Cancelled, InvalidArgs
from .render import one_line


def confirm(question: str, arguments: argparse.Namespace) -> None:
    """Go on only after a yes: from ``--yes``, or from the person at the terminal."""
    if arguments.yes:
        return
    if not somebody_is_there():
        raise InvalidArgs("this destroys data, and there is no terminal to ask on: say --yes")
    if not says_yes(question):
        raise Cancelled("not confirmed, nothing was changed")


def somebody_is_there() -> bool:
    return sys.stdin.isatty()


def says_yes(question: str) -> bool:
    """Whether the answer is y or yes. Ctrl-C is KeyboardInterrupt."""
    with _ctrl_c_interrupts():
        print(f"{one_line(question)} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def _ctrl_c_interrupts() -> Iterator[None]:
    """asyncio's handler would only cancel the task, which the waiting readline never notices."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
