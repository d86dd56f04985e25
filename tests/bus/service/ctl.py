"""mvirt-zfsctl as people run it: a process with arguments, output and an exit status."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .terminal import Terminal, terminal

PIPE = asyncio.subprocess.PIPE


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


class Ctl:
    """Runs commands on the service's bus, standard input being nothing or some bytes."""

    def __init__(self, address: str) -> None:
        self.environment = os.environ | {"MVIRT_ZFS_BUS": address, "TERM": "xterm"}
        self.command = [sys.executable, "-m", "mvirt_zfs_dbus.cli.main"]

    async def start(
        self, *arguments: str | Path, stdin: int = asyncio.subprocess.DEVNULL, stdout: int = PIPE
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.command, *arguments, stdin=stdin, stdout=stdout, stderr=PIPE, env=self.environment
        )

    async def run(self, *arguments: str | Path, given: bytes | None = None) -> Outcome:
        stdin = asyncio.subprocess.DEVNULL if given is None else PIPE
        process = await self.start(*arguments, stdin=stdin)
        out, err = await process.communicate(given)
        assert process.returncode is not None
        return Outcome(process.returncode, out.decode(), err.decode())

    async def __call__(self, *arguments: str | Path, given: bytes | None = None) -> str:
        """What a command prints that has to work, and says nothing on standard error."""
        outcome = await self.run(*arguments, given=given)
        assert (outcome.status, outcome.err) == (0, "")
        return outcome.out

    def on_terminal(
        self, *arguments: str, columns: int = 80
    ) -> AbstractAsyncContextManager[Terminal]:
        return terminal(*self.command, *arguments, environment=self.environment, columns=columns)

    async def json(self, *arguments: str | Path) -> Any:
        return json.loads(await self("--json", *arguments))

    async def refused(self, status: int, name: str, *arguments: str | Path) -> str:
        """The line on standard error of a command that has to fail; a hint may follow it."""
        outcome = await self.run(*arguments)
        assert outcome.status == status, outcome
        line, *hints = outcome.err.splitlines()
        assert line.startswith("mvirt-zfsctl: "), outcome
        assert line.endswith(f"({name})")
        assert len(hints) <= 1, outcome.err
        assert all(hint.startswith("hint: ") for hint in hints)
        return line

    async def content(self, volume: str) -> bytes:
        return Path((await self.json("volume", "show", volume))["Device"]).read_bytes()
