"""A path below a directory, and nowhere else whatever symbolic links and ``..`` are in it.

What openat2(2) does with RESOLVE_BENEATH, one component after the other: systemd answers that call
with ENOSYS in a unit with RestrictSUIDSGID=, since no seccomp filter sees its arguments, and the
service's unit has that.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from contextlib import ExitStack, suppress
from typing import Final

_PLACE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS: Final = 40
"""path_resolution(7)."""


def place(directory: int, relative: str) -> int:
    """A descriptor of what is there (open(2), O_PATH); the caller closes it.

    Directories stay open while it goes down, so that ``..`` goes back to where it came from,
    whoever moves them meanwhile. OSError: EXDEV if it leads out, ELOOP, and what open(2) says.
    """
    left, links = deque(relative.split("/")), 0
    with ExitStack() as opened:
        way = [directory]
        while left:
            part = left.popleft()
            if part in ("", ".", ".."):
                if not stat.S_ISDIR(os.fstat(way[-1]).st_mode):
                    raise _error(errno.ENOTDIR)
                if part == "..":
                    way.pop()
                if not way:
                    raise _error(errno.EXDEV)
                continue
            fd = _open(part, way[-1], is_last=not left)
            opened.callback(os.close, fd)
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                way.append(fd)
                continue
            links += 1
            target = os.readlink("", dir_fd=fd)
            if links > _MOST_LINKS:
                raise _error(errno.ELOOP)
            if target.startswith("/"):
                raise _error(errno.EXDEV)
            left.extendleft(reversed(target.split("/")))
        return os.dup(way[-1])


def _open(name: str, directory: int, *, is_last: bool) -> int:
    if not is_last:
        # A directory that is asked for as one is mounted on demand (autofs); a link is none.
        with suppress(NotADirectoryError):
            return os.open(name, _PLACE | os.O_DIRECTORY, dir_fd=directory)
    return os.open(name, _PLACE, dir_fd=directory)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
