"""What can follow on the command line, for the shells' completion.

The scripts in ``completions/`` hand the words typed so far to ``mvirt-zfsctl __complete``, which
answers a candidate and its description a line, a tab between them, or ``:files`` where the shell
completes a file's name. So all shells offer the same, and what they offer is what the parser takes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

from .. import rules
from ..client import Client, Inventory
from ..errors import Error
from ..units import format_size

COMPLETE: Final = "__complete"
SHELLS: Final = ("bash", "fish", "zsh")
_FILES: Final = ":files"
_PATIENCE: Final = 3.0
"""Seconds a person may be kept waiting for names after the Tab key."""

Candidate = tuple[str, str]
"""A word, and what it is."""


def add(parsers: Any) -> None:
    help = "print the completion script of a shell"
    parser = parsers.add_parser(
        "completion",
        help=help,
        description=help,
        epilog="examples:\n"
        "  source <(mvirt-zfsctl completion bash)\n"
        "  mvirt-zfsctl completion fish | source",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(examples=("completion bash", "completion fish"))
    parser.add_argument("shell", choices=SHELLS, help="source it, or install it for everybody")


def script(shell: str) -> str:
    return (files(__package__) / "completions" / f"mvirt-zfsctl.{shell}").read_text()


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Print what the last of ``words`` can become; the others stand before it."""
    *before, current = words or [""]
    for word, description in candidates(parser, before, current):
        if word.startswith(current) or word == _FILES:
            print(f"{word}\t{description}" if word != _FILES else word)
    return 0


def candidates(
    parser: argparse.ArgumentParser, before: Iterable[str], current: str
) -> Iterable[Candidate]:
    place = _Place(parser)
    for word in before:
        place.pass_by(word)
    if place.option:
        return _values(place.option, place.given)
    if current.startswith("-"):
        return _options(place.parser)
    if isinstance(place.positional, argparse._SubParsersAction):
        return [(each.dest, each.help or "") for each in place.positional._choices_actions]
    if place.positional:
        return _values(place.positional, place.given)
    return []


@dataclass
class _Place:
    """Where in the grammar the next word stands."""

    parser: argparse.ArgumentParser
    given: dict[str, str] = field(default_factory=dict)
    """What arguments were given before, by their names in the parser."""
    option: argparse.Action | None = None
    """An option whose value comes next."""
    _passed: int = 0

    @property
    def positional(self) -> argparse.Action | None:
        expected = [action for action in self.parser._actions if not action.option_strings]
        return expected[self._passed] if self._passed < len(expected) else None

    def pass_by(self, word: str) -> None:
        if self.option:
            self.given[self.option.dest] = word
            self.option = None
        elif word.startswith("-") and word != "-":
            self._pass_option(word)
        else:
            self._pass_positional(word)

    def _pass_option(self, word: str) -> None:
        name, equals, value = word.partition("=")
        action = self.parser._option_string_actions.get(name)
        if action is None or action.nargs == 0:
            return
        if equals:
            self.given[action.dest] = value
        else:
            self.option = action

    def _pass_positional(self, word: str) -> None:
        action = self.positional
        if isinstance(action, argparse._SubParsersAction):
            self.parser, self._passed = action.choices.get(word, argparse.ArgumentParser()), 0
        elif action:
            self.given[action.dest] = word
            self._passed += action.nargs != "*"


def _options(parser: argparse.ArgumentParser) -> Iterator[Candidate]:
    for action in parser._actions:
        for name in action.option_strings:
            yield name, action.help or ""


def _values(action: argparse.Action, given: Mapping[str, str]) -> list[Candidate]:
    if action.choices:
        return [(str(choice), "") for choice in action.choices]
    if action.dest == "format":
        return [(name, "") for name in rules.IMAGE_FORMATS]
    if action.dest == "source":
        return [(_FILES, "")]
    if action.dest == "bus":
        return [("system", "the system bus"), ("session", "the bus of this session")]
    reader = _LIVE.get(action.dest)
    if reader is None or "host" in given:  # the Tab key shall not log in anywhere
        return []
    return asyncio.run(_live(reader, given))


async def _live(reader: Reader, given: Mapping[str, str]) -> list[Candidate]:
    bus = given.get("bus") or os.environ.get("MVIRT_ZFS_BUS") or "system"
    try:
        async with asyncio.timeout(_PATIENCE), Client.connect(bus) as client:
            return [found for found in await reader(client, given) if _is_name(found[0])]
    except (Error, TimeoutError):
        return []


def _is_name(word: str) -> bool:
    """What somebody else wrote into the pool as a name may be a command to the shell."""
    try:
        return rules.name(word) == word
    except Error:
        return False


async def _volumes(client: Client, _: Mapping[str, str]) -> list[Candidate]:
    found = (await client.inventory()).volumes
    return [(volume.name, format_size(volume.size_bytes)) for volume in found]


async def _templates(client: Client, _: Mapping[str, str]) -> list[Candidate]:
    found = (await client.inventory()).templates
    return [(template.name, format_size(template.size_bytes)) for template in found]


async def _snapshots(client: Client, given: Mapping[str, str]) -> list[Candidate]:
    volume = await client.manager.volume(given.get("volume", ""))
    inventory: Inventory = await client.inventory()
    return [
        (snapshot.name, f"of {volume.name}")
        for snapshot in inventory.snapshots
        if snapshot.volume_path == volume.path
    ]


async def _jobs(client: Client, _: Mapping[str, str]) -> list[Candidate]:
    found = (await client.inventory()).jobs
    return list({job.name: f"{job.operation}, {job.state}" for job in found}.items())


Reader = Callable[[Client, Mapping[str, str]], Awaitable[list[Candidate]]]

_LIVE: Final[Mapping[str, Reader]] = {
    "volume": _volumes,
    "template": _templates,
    "snapshot": _snapshots,
    "job": _jobs,
}
