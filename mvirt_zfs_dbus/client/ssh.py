"""The system bus of another machine, over SSH.

As ``busctl --host`` and ``systemctl --host`` do it (systemd, sd-bus.c): ssh starts
systemd-stdio-bridge(1) there, which connects to that machine's system bus as the user who logged
in, and passes on what it reads and writes.
"""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

from .. import processes
from ..bus import wire
from ..errors import InvalidArgs
from .signals import ServiceUnreachable

_BRIDGE: Final = "systemd-stdio-bridge"
_NOT_FOUND: Final = 127
"""What a shell answers when there is no such program; ssh hands it on."""
_WITH_PORT: Final = re.compile(r"([^:]+|(?:[^:]+@)?\[[^]]+\]):(\d+)")


@asynccontextmanager
async def connection_to(host: str) -> AsyncIterator[wire.Connection]:
    """A connection to the bus of ``[USER@]MACHINE[:PORT]``. It carries no file descriptors.

    ssh asks on the terminal for what it needs, and tells on standard error what went wrong;
    ServiceUnreachable then.
    """
    ssh = _Ssh(host)
    try:
        connection = await _connect(ssh)
        try:
            yield connection
        finally:
            await connection.close()
    finally:
        await ssh.end()


async def _connect(ssh: _Ssh) -> wire.Connection:
    """The D-Bus library connects to an address only, so ssh gets the other end of a socket."""
    with tempfile.TemporaryDirectory() as folder, closing(_listener(folder)) as listener:
        address = f"unix:path={listener.getsockname()}"
        started, connection = await asyncio.gather(
            ssh.serve(listener),
            wire.connect(address, passes_fds=False, timeout=None),
            return_exceptions=True,
        )
    if isinstance(started, BaseException):
        raise ServiceUnreachable(f"ssh cannot be started: {started}") from started
    if isinstance(connection, BaseException):
        raise ServiceUnreachable(await ssh.why_ended()) from connection
    return connection


def _listener(folder: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(Path(folder) / "bus"))
    listener.listen(1)
    listener.setblocking(False)
    return listener


class _Ssh:
    """An ssh whose standard input and output are one end of a D-Bus connection."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._process: asyncio.subprocess.Process | None = None

    async def serve(self, listener: socket.socket) -> None:
        theirs, _ = await asyncio.get_running_loop().sock_accept(listener)
        with closing(theirs):
            theirs.setblocking(True)
            self._process = await asyncio.create_subprocess_exec(
                *command(self._host),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                preexec_fn=_ignore_ctrl_c,
            )

    async def why_ended(self) -> str:
        assert self._process
        status = await self._process.wait()
        if status == _NOT_FOUND:
            return f"{_BRIDGE} is not installed on {self._host}; it is part of systemd"
        return f"no bus of {self._host}: ssh ended with status {status}"

    async def end(self) -> None:
        if self._process is None:
            return
        processes.send_signal(self._process, signal.SIGTERM)
        await self._process.wait()


def command(host: str) -> list[str]:
    """The ssh command line for ``[USER@]MACHINE[:PORT]``; an IPv6 address with a port is written
    in brackets. InvalidArgs."""
    if not host:
        raise InvalidArgs("the host is empty; it is written as [USER@]MACHINE[:PORT]")
    match = _WITH_PORT.fullmatch(host)
    machine, port = match.groups() if match else (host, "")
    options = ["-p", port] if port else []
    return ["ssh", "-xT", *options, "--", machine.replace("[", "").replace("]", ""), _BRIDGE]


def _ignore_ctrl_c() -> None:
    """Ctrl-C reaches all programs of the terminal, and who uses the connection still needs it to
    say what that means: to cancel a job, for example."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
