"""What every command is given, and what commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ..client import Client
from ..errors import Cancelled, InvalidArgs
from ..units import parse_size
from .render import Output


@dataclass(frozen=True, slots=True)
class Context:
    client: Client
    output: Output


Command = Callable[[Context, argparse.Namespace], Awaitable[None]]
Subparsers = Any
"""argparse's class for it has no public name."""


def command(parsers: Subparsers, name: str, run: Command, help: str) -> argparse.ArgumentParser:
    """Add one command to the tree."""
    parser: argparse.ArgumentParser = parsers.add_parser(name, help=help, description=help)
    parser.set_defaults(run=run)
    add_global_options(parser, default=argparse.SUPPRESS)
    return parser


def add_global_options(parser: argparse.ArgumentParser, *, default: object = None) -> None:
    """``--bus`` and ``--json``, which may stand before the command or after it."""
    parser.add_argument(
        "--bus",
        default=default,
        metavar="system|session|ADDRESS",
        help="the bus the service is on (default: $MVIRT_ZFS_BUS, else the system bus)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        default=default or False,
        help="answer in JSON, with the properties' names of docs/reference.md",
    )


def add_size(parser: argparse.ArgumentParser, name: str, help: str) -> None:
    parser.add_argument(name, type=_size, metavar="SIZE", help=f"{help}: 10G, 1.5TiB, 500MB")


def add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--label",
        dest="labels",
        action="append",
        type=_label,
        metavar="KEY=VALUE",
        help="a label; may be given again",
    )


def add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def chosen_labels(arguments: argparse.Namespace) -> dict[str, str] | None:
    return dict(arguments.labels) if arguments.labels else None


def confirm(question: str, arguments: argparse.Namespace) -> None:
    """Go on only after a yes: from ``--yes``, or from the person at the terminal."""
    if arguments.yes:
        return
    if not sys.stdin.isatty():
        raise InvalidArgs("this destroys data, and there is no terminal to ask on: say --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Cancelled("not confirmed, nothing was changed")


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except InvalidArgs as error:
        raise argparse.ArgumentTypeError(error.message) from error


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"label {text!r} is not KEY=VALUE")
    return key, value
