"""A program on a terminal of its own, and a person who reads and types there."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

CTRL_C = "\x03"


class Terminal:
    def __init__(self, master: int, process: asyncio.subprocess.Process) -> None:
        self._master = master
        self._process = process
        self.shown = ""
        """All the program wrote, with the terminal's line ends."""

    async def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def until(self, text: str) -> None:
        """Wait until the program has written ``text``, and go on after it."""
        while text not in self.shown:
            chunk = await self._read()
            assert chunk, f"ended without {text!r}: {self.shown}"
            self.shown += chunk
        self.shown = self.shown.partition(text)[2]

    async def end(self) -> int:
        """The exit status; ``shown`` has the rest then."""
        while chunk := await self._read():
            self.shown += chunk
        return await self._process.wait()

    async def _read(self) -> str:
        try:
            return (await asyncio.to_thread(os.read, self._master, 4096)).decode(errors="replace")
        except OSError:  # how a pty says that the other end is closed
            return ""


@asynccontextmanager
async def terminal(
    *command: str, environment: Mapping[str, str], columns: int = 80
) -> AsyncIterator[Terminal]:
    master, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(theirs)
    try:
        yield Terminal(master, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(master)


def _take_terminal() -> None:
    """So that Ctrl-C is a signal to the program."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
