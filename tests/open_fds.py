"""What this process has open."""

from __future__ import annotations

import os


def open_fds() -> set[str]:
    """The numbers of its file descriptors. What was there before may be gone after, as it is when
    garbage of an earlier test is collected meanwhile; so a test looks for those that came."""
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208
