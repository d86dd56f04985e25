"""Signals to programs that asyncio runs."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress


def send_signal(process: asyncio.subprocess.Process, number: int) -> None:
    """As ``Process.send_signal()`` does it from Python 3.13.1 on (python/cpython#127049): one that
    has ended is left for asyncio to wait for.

    Before, it waits for the process itself. asyncio then finds no process to wait for, says so in
    the log, and takes 255 for its status.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
