"""The service in a process of its own that can be killed and is back at once.

Loading modules takes nine tenths of a start, under emulation ten seconds. So a parent that has
loaded them forks each new service, and where the service would start its fork server for workers,
a double forks that, too: what runs is the same code, it is only not loaded again.

    python3 forked_daemon.py ARGUMENTS…      a line on stdin: start one; a line on stdout: its pid
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import host


class ForkedDaemon:
    """Starts the service on a private bus, whose address is ``address``; kills it."""

    def __init__(
        self, address: str, parent: asyncio.subprocess.Process, ready: socket.socket
    ) -> None:
        self.address = address
        self._parent = parent
        self._ready = ready
        self._pid = 0
        self.woken = 0
        """How many killed services were still there after host.WOKEN_AFTER, and were woken."""

    async def start(self) -> None:
        """Returns when the service has scanned the pool and owns its name."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.write(b"start\n")
        self._pid = int(await self._parent.stdout.readline())
        async with asyncio.timeout(60):
            while b"READY=1" not in await asyncio.get_running_loop().sock_recv(self._ready, 4096):
                pass

    async def kill(self) -> None:
        """SIGKILL, and returns when the process is gone."""
        assert self._parent.stdout is not None
        os.kill(self._pid, signal.SIGKILL)
        ended = asyncio.ensure_future(self._parent.stdout.readline())
        if not (await asyncio.wait([ended], timeout=host.WOKEN_AFTER))[0]:
            self.woken += 1
            with suppress(ProcessLookupError), host.frozen(self._pid):  # or it has ended after all
                await asyncio.wait([ended], timeout=1)  # the kernel freezes while it goes on
        async with asyncio.timeout(host.PATIENCE):
            assert await ended == b"-9\n", f"the service had ended by itself: {ended.result()!r}"


@asynccontextmanager
async def forked_daemon(folder: Path, *arguments: str) -> AsyncIterator[ForkedDaemon]:
    """``arguments`` but for the bus; what the service logs is in ``folder``/service.log."""
    bus = await asyncio.create_subprocess_exec(
        *("dbus-daemon", "--session", "--nofork", "--print-address=1"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert bus.stdout is not None
    address = (await bus.stdout.readline()).decode().strip()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
        (folder / "service.log").open("ab") as log,
    ):
        ready.bind(str(folder / "notify"))
        ready.setblocking(False)
        parent = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, *arguments, "--bus", address),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")},
        )
        try:
            yield ForkedDaemon(address, parent, ready)
        finally:
            for process in (parent, bus):
                with suppress(ProcessLookupError):
                    process.kill()
                await process.communicate()


def serve(arguments: list[str]) -> None:
    """The parent: forks a service for each line, tells its pid, then how it ended."""
    import libzfs_core  # noqa: F401

    from mvirt_zfs_dbus import daemon
    from mvirt_zfs_dbus.image import children
    from mvirt_zfs_dbus.store import zfs  # noqa: F401

    vars(children)["_spawn"] = ForkedServer
    for _ in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if pid == 0:
            _die_with_parent()
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(2, 1)
            os._exit(daemon.main(arguments))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


class ForkedServer:
    """Stands for the Popen of a fork server: forked from the service, instead of executed anew."""

    def __init__(self, control_fd: int) -> None:
        from mvirt_zfs_dbus.image import forkserver

        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.dup2(control_fd, 3)
            os.closerange(4, 0x7FFFFFFF)
            vars(forkserver.downloader)["warm_up"] = _nothing  # it reads all CAs
            forkserver.main(3)
            os._exit(0)
        self._pidfd = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        return 0 if select.select([self._pidfd], [], [], 0)[0] else None

    def wait(self, timeout: float | None = None) -> int:
        if not select.select([self._pidfd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("the forked fork server", timeout or 0)
        return 0

    def kill(self) -> None:
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


def _nothing() -> None:
    pass


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1  # prctl(2)
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    serve(sys.argv[1:])
