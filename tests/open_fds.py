"""What this process has open."""

from __future__ import annotations

import asyncio
import os


def open_fds() -> set[str]:
    """The numbers of its file descriptors, and that by which they are listed."""
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 (their names alone, not a path for each)


async def only_open(fds: set[str]) -> None:
    """Waits for the threads that close what came with a message (mvirt_zfs_dbus.fds)."""
    while open_fds() - fds:  # noqa: ASYNC110 (nothing tells when they have)
        await asyncio.sleep(0.001)
