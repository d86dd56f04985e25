"""The process that worker processes are forked from: ``python -m mvirt_zfs_dbus.image.forkserver``.

The daemon has threads, and forking a process with threads is asking for deadlocks. So it starts
this one early: it loads what workers need once, has one thread, and forks a worker in a few
milliseconds. It is multiprocessing's fork server in little, which does not fit: on Python 3.11 it
runs the daemon's main script again in every child, it is one for the whole program, and it cannot
be ended.

It ends, and all its workers with it, when the daemon closes its socket, which dying does too.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from . import channel, downloader, program, protocol, sandbox
from .convert import serve
from .pool import Pool

_CONTROL: Final = 3
"""A worker's only file descriptor beside the standard ones."""
_LONGEST_FAULT: Final = 8000
"""Characters, so that a frame holds them however they are written."""


def convert(control: socket.socket, parent_pid: int) -> None:
    sandbox.enter_converter(parent_pid)
    pool = Pool()
    sandbox.forbid_processes()
    serve(channel.Connection(control), pool)


def fetch(control: socket.socket, parent_pid: int) -> None:
    sandbox.enter_downloader(parent_pid)
    downloader.serve(channel.Connection(control), ready=sandbox.forbid_processes)


ROLES: Final[Mapping[str, Callable[[socket.socket, int], None]]] = {
    "converter": convert,
    "downloader": fetch,
    program.NAME: program.become,
}


def main(control_fd: int) -> None:
    """Fork workers until the daemon is gone."""
    # Whoever stops the service signals the whole group; ending jobs is the daemon's business.
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    downloader.warm_up()
    control = socket.socket(fileno=control_fd)
    channel.send(control, protocol.Ready())
    _Server(control).run()


@dataclass(frozen=True, slots=True)
class _Worker:
    pid: int
    pidfd: int
    status: socket.socket


class _Server:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._control:
                    if not self._serve():
                        return
                elif self._selector.get_map().get(key.fd) is key:  # not buried in this very turn
                    key.data()

    def _serve(self) -> bool:
        """Whether there is a daemon still."""
        try:
            request, (worker_fd, status_fd) = channel.receive(self._control)
        except EOFError:
            return False
        assert isinstance(request, protocol.Fork)
        status = socket.socket(fileno=status_fd)
        parent_pid = os.getpid()
        pid = os.fork()
        if not pid:
            _become(request.role, worker_fd, parent_pid)
        os.close(worker_fd)
        pidfd = os.pidfd_open(pid)
        _tell(status, protocol.Forked(pid), [pidfd])
        worker = _Worker(pid, pidfd, status)
        self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._bury(worker))
        self._selector.register(status, selectors.EVENT_READ, lambda: self._kill(worker))
        return True

    def _bury(self, worker: _Worker) -> None:
        _, wait_status = os.waitpid(worker.pid, 0)
        self._selector.unregister(worker.pidfd)
        os.close(worker.pidfd)
        if worker.status in self._selector.get_map():
            self._selector.unregister(worker.status)
        _tell(worker.status, protocol.Exited(wait_status), [])
        worker.status.close()

    def _kill(self, worker: _Worker) -> None:
        """The daemon wants the worker dead, and may not kill it itself, or is gone."""
        self._selector.unregister(worker.status)
        try:
            signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
        except PermissionError:  # root without CAP_KILL: as the worker's own user it takes none
            os.seteuid(sandbox.NOBODY)
            try:
                signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
            finally:
                os.seteuid(0)


def _tell(status: socket.socket, message: protocol.Message, fds: list[int]) -> None:
    try:
        channel.send(status, message, fds)
    except OSError:
        return  # who asked for the worker has gone; the worker notices by its own socket


def _become(role: str, control_fd: int, parent_pid: int) -> NoReturn:
    """Turn the forked child into a worker. It never returns into the server's loop."""
    code = 1
    try:
        os.setsid()
        sandbox.name_process(f"mvirt-{role}")
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):  # the log is not a worker's to write, or to cut
            os.dup2(null, standard)
        os.dup2(control_fd, _CONTROL, inheritable=False)
        os.closerange(_CONTROL + 1, 0x7FFFFFFF)
        _play(ROLES[role], socket.socket(fileno=_CONTROL), parent_pid)
        code = 0
    except (EOFError, BrokenPipeError, ProcessLookupError):
        code = 0  # the daemon does not want it any more
    finally:
        os._exit(code)


def _play(
    role: Callable[[socket.socket, int], None], control: socket.socket, parent_pid: int
) -> None:
    try:
        role(control, parent_pid)
    except (EOFError, BrokenPipeError, ProcessLookupError):
        raise
    except BaseException:
        channel.send(control, protocol.Fault(traceback.format_exc()[-_LONGEST_FAULT:]))
        raise


if __name__ == "__main__":
    main(int(sys.argv[1]))
