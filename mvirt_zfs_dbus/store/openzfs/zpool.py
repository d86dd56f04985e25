"""What libzfs_core cannot do and zfs(8) and zpool(8) can, and the pool's health."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from ... import processes
from ...errors import DeviceBusy, Error, NoSpace, NotFound, PoolUnavailable

_KSTAT: Final = Path("/proc/spl/kstat/zfs")

UNAVAILABLE: Final = "UNAVAIL"
LOST: Final = frozenset({UNAVAILABLE, "SUSPENDED", "FAULTED", "OFFLINE", "REMOVED"})
"""The states in which nothing can be read or written."""

_PATH: Final = f"{os.defpath}:/usr/local/sbin:/usr/sbin:/sbin"
ENVIRONMENT: Final = {"LC_ALL": "C", "PATH": _PATH}
"""Of every command: its messages are read."""
_TIMEOUT: Final = 60.0
"""Seconds for a command; one that hangs is waiting for a disk that does not answer."""
_UNTIL_KILLED: Final = 1.0
"""Seconds that it is waited for after that. In the kernel it may wait where no signal ends it."""

_REASONS: Final = (
    ("no such pool", PoolUnavailable),
    ("suspended", PoolUnavailable),
    ("dataset does not exist", NotFound),
    ("out of space", NoSpace),
    ("available space", NoSpace),
    ("busy", DeviceBusy),
)
"""What zfs(8) writes (libzfs_util.c, libzfs_error_description) and what it means to a caller."""

_QUOTED: Final = re.compile("'[^']*'")
"""The dataset in a complaint, which may be called tank/suspended."""


def pool_of(dataset: str) -> str:
    return dataset.partition("/")[0]


def health(pool: str) -> str:
    """The pool's state as zpool(8) names it, UNAVAIL where it is not imported.

    Read from the kernel's statistics, which never wait for a disk.
    """
    try:
        return (_KSTAT / pool / "state").read_text().strip()
    except OSError:
        return UNAVAILABLE


def executable(name: str) -> str:
    """The full path of zfs(8) or zpool(8). PoolUnavailable: zfsutils-linux is not installed."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise PoolUnavailable(f"{name}(8) is not installed: Debian has it in zfsutils-linux")
    return path


async def set_properties(dataset: str, values: Mapping[str, str]) -> None:
    """``zfs set``: libzfs_core cannot set a native property of a dataset that exists."""
    await _run("zfs", "set", *(f"{name}={value}" for name, value in values.items()), dataset)


async def space(pool: str) -> tuple[int, int, int]:
    """The pool's size, allocated and free bytes."""
    line = await _run("zpool", "list", "-H", "-p", "-o", "size,allocated,free", pool)
    size, allocated, free = line.split("\t")
    return int(size), int(allocated), int(free)


async def _run(program: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        executable(program),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )
    try:
        async with asyncio.timeout(_TIMEOUT):
            output, complaint = await process.communicate()
    except TimeoutError:
        raise PoolUnavailable(
            f"{program} {arguments[0]} did not end within {_TIMEOUT:g} s"
        ) from None
    finally:
        if process.returncode is None:
            processes.send_signal(process, signal.SIGKILL)
            with suppress(TimeoutError):
                async with asyncio.timeout(_UNTIL_KILLED):
                    await process.communicate()
    if process.returncode:
        raise error_from(f"{program} {' '.join(arguments)}", complaint.decode(errors="replace"))
    return output.decode().rstrip("\n")


def error_from(command: str, complaint: str) -> Error:
    text = complaint.strip() or "it gave no reason"
    reason = _QUOTED.sub("", complaint)
    kind = next((kind for words, kind in _REASONS if words in reason), Error)
    return kind(f"{command}: {text}")
