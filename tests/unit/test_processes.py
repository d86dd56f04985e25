from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

from mvirt_zfs_dbus import processes


class Unwaited(asyncio.subprocess.Process):
    """A program as asyncio has it that was not waited for yet, running or not."""

    def __init__(self, *command: str) -> None:
        self._popen = self._transport = subprocess.Popen(command)  # which sends signals likewise
        self._status: int | None = None
        self.pid = self._popen.pid

    @property
    def returncode(self) -> int | None:
        return self._status

    def wait_for_it(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self._status = self._popen.returncode = os.waitstatus_to_exitcode(status)
        return self._status


def test_a_program_that_runs_gets_the_signal() -> None:
    process = Unwaited("sleep", "60")
    processes.send_signal(process, signal.SIGTERM)
    assert process.wait_for_it() == -signal.SIGTERM


def test_the_status_of_one_that_has_ended_is_left_to_asyncio() -> None:
    process = Unwaited(sys.executable, "-c", "raise SystemExit(3)")
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    processes.send_signal(process, signal.SIGKILL)
    assert process.wait_for_it() == 3


def test_one_that_was_waited_for_gets_nothing() -> None:
    """Its number may be another's."""
    process = Unwaited("true")
    process.wait_for_it()
    with subprocess.Popen(["sleep", "60"]) as another:
        process.pid = another.pid
        processes.send_signal(process, signal.SIGKILL)
        assert another.poll() is None
        another.kill()
