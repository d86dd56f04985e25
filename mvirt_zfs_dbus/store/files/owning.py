"""That a directory is this service's alone: no other user's, and no other service's."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from ...errors import PoolUnavailable

PRIVATE_DIRECTORY: Final = 0o700


def own(fd: int, path: Path) -> None:
    """Lock the open directory and keep other users out of it. PoolUnavailable says what is wrong.

    The lock is on the directory itself, so that no lock file can be lost or left over, and lasts as
    long as it is open.
    """
    found = os.fstat(fd)
    if found.st_uid != os.geteuid():
        raise PoolUnavailable(
            f"{path} belongs to uid {found.st_uid}, not to this service's"
            f" {os.geteuid()}: its owner could swap any disk for another file"
        )
    if found.st_mode & stat.S_IWOTH:
        raise PoolUnavailable(
            f"everybody may write into {path}; disks want a directory of their own"
        )
    if stat.S_IMODE(found.st_mode) != PRIVATE_DIRECTORY:
        os.fchmod(fd, PRIVATE_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PoolUnavailable(f"another service has {path} open") from error
