"""Sessions in the documentation: what they have typed, and what they show.

A session is a fenced block of the kind ``console``. Lines that begin with ``$ `` or ``# `` are
commands (a backslash at the end goes on in the next line), those after one are its output, standard
error included. ``…`` stands for anything in a line, and a line of it alone for any lines. Words
after ``console`` say what the block needs: ``zfs``, ``vm``, ``network`` and so on; none: nothing
but mvirt-zfsctl, busctl, gdbus, jq and the service.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```console(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
_END = "this command has ended: "


@dataclass(frozen=True)
class Step:
    command: str
    shows: str
    needs: frozenset[str]
    as_root: bool = True

    @property
    def may_fail(self) -> bool:
        """Where the session shows an error, the command has failed."""
        return re.search("^mvirt-zfsctl: ", self.shows, re.MULTILINE) is not None

    def has_shown(self, output: str) -> bool:
        """Whether this is what the session shows, but for sizes, times, UUIDs and devices."""
        if self.shows == "…":
            return True
        pattern = re.escape(_alike(self.shows))
        pattern = re.sub(r"^…\\\n", r"(?:.*\\n)*", pattern, flags=re.MULTILINE)
        pattern = re.sub(r"\\\n…$", r"(?:\\n.*)*", pattern)
        return re.fullmatch(pattern.replace("…", ".*"), _alike(output.strip("\n"))) is not None


_DIFFERS = (
    # What another machine, pool or moment has otherwise.
    (re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"/\S*UUID\S*"), "DEVICE"),
    (re.compile(r"\d+(\.\d)? ([KMGTPE]i)?B\b"), "SIZE"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"\d+\.\d\dx"), "RATIO"),
    (re.compile(" +"), " "),
    (re.compile("^ | $", re.MULTILINE), ""),
)


def _alike(text: str) -> str:
    for pattern, word in _DIFFERS:
        text = pattern.sub(word, text)
    return text


def steps(page: Path) -> Iterator[Step]:
    for needs, text in _BLOCK.findall(page.read_text()):
        _, *typed = re.split(r"^([$#]) ", text, flags=re.MULTILINE)
        for prompt, rest in zip(typed[::2], typed[1::2], strict=True):
            command, shows = _parted(rest)
            yield Step(command, shows.strip("\n"), frozenset(needs.split()), prompt == "#")


def _parted(typed: str) -> tuple[str, str]:
    lines = typed.split("\n")
    end = next(index for index, line in enumerate(lines) if not line.endswith("\\"))
    return "\n".join(lines[: end + 1]), "\n".join(lines[end + 1 :])


class Shell:
    """One bash that keeps its variables from step to step; commands have nothing to read."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, folder: Path, environment: Mapping[str, str]) -> Shell:
        return cls(
            await asyncio.create_subprocess_exec(
                *("bash", "--norc"),
                cwd=folder,
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        )

    async def replay(self, step: Step) -> None:
        """Runs a step; AssertionError unless all is as the session shows it."""
        status, output = await self.run(step.command)
        assert step.has_shown(output), f"$ {step.command}\n{output}"
        assert (status != 0) == step.may_fail, f"$ {step.command}\n{output}"

    async def run(self, command: str) -> tuple[int, str]:
        """Its exit status, and all that it wrote."""
        assert self._process.stdin
        assert self._process.stdout
        script = f'{{ {command}\n}} </dev/null\nprintf "\\n{_END}%s\\n" $?\n'
        self._process.stdin.write(script.encode())
        output = ""
        while line := (await self._process.stdout.readline()).decode():
            if line.startswith(_END):
                return int(line.removeprefix(_END)), output
            output += line
        raise AssertionError(f"the shell has ended: {output}")

    async def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()
