"""The daemon's side of the fork server and of each worker process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from types import TracebackType
from typing import Final

from ..errors import Error
from ..tasks import uninterrupted
from . import channel, protocol

_log = logging.getLogger(__name__)

START_TIMEOUT: Final = 120.0
"""Seconds for the fork server to load its modules; it takes about one."""
_STOP_TIMEOUT: Final = 5.0
_DEATH: Final = 5.0
"""Seconds for a worker that was killed to be dead."""
_MALLOC: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
"""mallopt(3): the memory of a chunk that is gone is kept for the next one. By itself the GNU C
library gives it back to the kernel, which makes each of its pages anew: half of what a downloader
spends, and a tenth of what a converter does."""
_GRACE: Final = 1.0
"""Seconds for a worker that has closed its socket to be dead."""
_EXIT_TIMEOUT: Final = 10.0
"""Seconds for a program that has closed its output to be dead; it may have much memory to free."""


class Child:
    """One worker process. Leaving it as a context kills it, and waits until it is dead.

    One that waits for a file system that never answers cannot be killed (request_wait_answer() of
    the kernel's fs/fuse/dev.c): it is left behind, and dies when the file system answers or goes.
    """

    def __init__(self, role: str, control: channel.AsyncConnection) -> None:
        self.control = control
        self._role = role
        self._pidfd = -1
        self.pid = 0
        self._fate: channel.AsyncConnection | None = None
        self._exit: asyncio.Task[int | None] | None = None

    async def __aenter__(self) -> Child:
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.kill()
        try:
            await uninterrupted(self._dead())
        finally:
            self.control.close()
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1

    def forked(self, pid: int, pidfd: int, fate: channel.AsyncConnection) -> None:
        """It runs; ``fate`` is where the fork server will tell of its end."""
        self.pid = pid
        self._pidfd = pidfd
        self._fate = fate
        self._exit = asyncio.create_task(_exit_status(fate))

    def kill(self) -> None:
        """SIGKILL; nothing if it is dead already."""
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                return
            except PermissionError:  # the unit has no CAP_KILL; the fork server needs none
                assert self._fate
                self._fate.finish_sending()

    async def _dead(self) -> None:
        if not self._exit:
            return
        await asyncio.wait([self._exit], timeout=_DEATH)
        if not self._exit.done():
            _log.error(
                "the %s process %d does not die; the file system of what it reads hangs",
                self._role,
                self.pid,
            )
            self._exit.cancel()
            await asyncio.wait([self._exit])

    async def exit_status(self) -> int:
        """The wait status of one that is at its end. Error: the fork server is gone."""
        assert self._exit
        await asyncio.wait([self._exit], timeout=_EXIT_TIMEOUT)
        if not self._exit.done():
            self.kill()
            await asyncio.wait([self._exit])
        status = self._exit.result()
        if status is None:
            raise Error(f"the {self._role} process is gone, and so is what it was forked from")
        return status

    async def fate(self) -> Error:
        """What became of a worker that stopped talking, as the error it is."""
        assert self._exit
        await asyncio.wait([self._exit], timeout=_GRACE)
        if not self._exit.done():
            self.kill()
            return Error(f"the {self._role} process stopped talking and was killed")
        status = self._exit.result()
        if status is None:
            return Error(f"the {self._role} process is gone, and so is what it was forked from")
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            text = signal.strsignal(number)
            return Error(f"the {self._role} process was killed by signal {number} ({text})")
        return Error(f"the {self._role} process ended with status {os.WEXITSTATUS(status)}")


class ForkServer:
    """A running fork server; :meth:`start` makes one."""

    def __init__(self, process: subprocess.Popen[bytes], control: channel.AsyncConnection) -> None:
        self._process = process
        self._control = control
        self._sending = asyncio.Lock()

    @classmethod
    async def start(cls) -> ForkServer:
        """Error: it did not start in time."""
        ours, theirs = channel.pair()
        control = channel.AsyncConnection(ours)
        try:
            with theirs:
                process = await asyncio.to_thread(_spawn, theirs.fileno())
        except BaseException:
            control.close()
            raise
        server = cls(process, control)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await control.receive()
        except BaseException as error:
            await uninterrupted(server.close())
            if isinstance(error, (EOFError, TimeoutError)):
                raise Error("the fork server for import workers did not start") from error
            raise
        return server

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    async def close(self) -> None:
        """End it, and every worker that is left with it."""
        self._control.close()
        await asyncio.to_thread(_reap, self._process)

    async def fork(self, role: str) -> Child:
        """A new worker. Error: the fork server is gone."""
        control, worker = channel.pair()
        status, reporter = channel.pair()
        child = Child(role, channel.AsyncConnection(control))
        fate = channel.AsyncConnection(status)
        try:
            with worker, reporter:
                async with self._sending:
                    await self._control.send(
                        protocol.Fork(role), [worker.fileno(), reporter.fileno()]
                    )
            answer, (pidfd,) = await fate.receive()
            assert isinstance(answer, protocol.Forked)
        except BaseException as error:
            child.control.close()  # a worker nobody owns ends when it sees this
            fate.close()
            if isinstance(error, (EOFError, OSError)):
                raise Error("the fork server for import workers is gone") from error
            raise
        child.forked(answer.pid, pidfd, fate)
        return child


async def _exit_status(fate: channel.AsyncConnection) -> int | None:
    """A wait status; None if the fork server died, which kills its workers."""
    try:
        message, _ = await fate.receive()
    except EOFError:
        return None
    finally:
        fate.close()
    assert isinstance(message, protocol.Exited)
    return message.status


def _spawn(control_fd: int) -> subprocess.Popen[bytes]:
    """It gets the daemon's module path and environment, and none of its file descriptors."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "mvirt_zfs_dbus.image.forkserver", str(control_fd)],
        pass_fds=[control_fd],
        stdin=subprocess.DEVNULL,
        env={
            **_MALLOC,
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        start_new_session=True,
    )


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
