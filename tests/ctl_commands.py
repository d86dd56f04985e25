"""What there is to be typed after mvirt-zfsctl."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from mvirt_zfs_dbus.cli import main


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser of every command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from leaves(below)
            return
    yield parser


COMMANDS = {leaf.prog.partition(" ")[2]: leaf for leaf in leaves(main.parser())}
"""By their words, as ``volume create``."""

EXAMPLES = [
    (command, example)
    for command, parser in COMMANDS.items()
    for example in parser.get_default("examples")
]
"""Each command's own, as its help has them."""
