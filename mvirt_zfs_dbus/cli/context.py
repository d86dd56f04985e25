"""What every command is given, and the arguments that commands share."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from .. import rules
from ..client import Client
from ..errors import Error, InvalidArgs
from ..units import parse_size
from .render import Output


@dataclass(frozen=True, slots=True)
class Context:
    client: Client
    output: Output
    host: str | None = None
    """The other machine that is talked to, if any."""


Command = Callable[[Context, argparse.Namespace], Awaitable[None]]
Subparsers = Any
"""argparse's class for it has no public name."""


def group(parsers: Subparsers, name: str, help: str) -> Subparsers:
    """Add a word that commands follow."""
    parser = parsers.add_parser(name, help=help, description=help, allow_abbrev=False)
    return parser.add_subparsers(metavar="COMMAND", required=True)


def command(
    parsers: Subparsers,
    name: str,
    run: Command,
    help: str,
    *examples: str,
    changes: bool = False,
) -> argparse.ArgumentParser:
    """Add one command to the tree.

    ``examples`` are command lines without the program's name. ``changes``: the service asks polkit
    whether it may be.
    """
    parser: argparse.ArgumentParser = parsers.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog="\n  ".join(["examples:", *(f"mvirt-zfsctl {each}" for each in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, changes=changes, examples=examples)
    add_global_options(parser, default=argparse.SUPPRESS)
    return parser


def add_global_options(parser: argparse.ArgumentParser, *, default: object = None) -> None:
    """Options that may stand before the command or after it."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--bus",
        type=_not_empty,
        default=default,
        metavar="system|session|ADDRESS",
        help="the bus the service is on (default: $MVIRT_ZFS_BUS, else the system bus)",
    )
    where.add_argument(
        "-H",
        "--host",
        type=_not_empty,
        default=default,
        metavar="[USER@]MACHINE[:PORT]",
        help="the service of another machine, over SSH",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        default=default or False,
        help="answer in JSON, as mvirt-zfsctl(1) describes it",
    )
    parser.add_argument(
        "--no-ask-password",
        action="store_true",
        default=default or False,
        help="fail where polkit would ask for a password",
    )


def add_size(parser: argparse.ArgumentParser, name: str, help: str) -> None:
    parser.add_argument(name, type=_size, metavar="SIZE", help=f"{help}: 10G, 1.5TiB, 500MB")


def add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--label",
        dest="labels",
        action="append",
        type=label,
        metavar="KEY=VALUE",
        help="a label; may be given again",
    )


def add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--id", metavar="UUID", help="the UUID it gets (default: a new one)", type=_checked_id
    )


def add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def add_defer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--defer", action="store_true", help="where clones need it, go with the last of them"
    )


def add_wait(parser: argparse.ArgumentParser) -> None:
    waiting = parser.add_mutually_exclusive_group()
    waiting.add_argument(
        "--wait",
        dest="wait",
        action="store_true",
        default=True,
        help="show the progress to its end; Ctrl-C asks whether to cancel (default)",
    )
    waiting.add_argument(
        "--no-wait", dest="wait", action="store_false", help="start it and print the job's UUID"
    )


def chosen_labels(arguments: argparse.Namespace) -> dict[str, str] | None:
    return dict(arguments.labels) if arguments.labels else None


def label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"label {text!r} is not KEY=VALUE")
    return key, value


def _not_empty(text: str) -> str:
    """An empty variable of a script must not lead to another machine than its author meant."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except InvalidArgs as error:
        raise argparse.ArgumentTypeError(error.message) from error


def _checked_id(text: str) -> str:
    try:
        return rules.object_id(text)
    except Error as error:
        raise argparse.ArgumentTypeError(error.message) from error
