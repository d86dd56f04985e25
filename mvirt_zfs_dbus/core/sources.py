"""Opening what an import reads, for a caller who is not root by a service that is.

A path is opened by the service with the service's rights, so on the system bus it has to lie below
a directory the administrator named, and the kernel itself sees to it that no symlink or ``..``
leads out again (openat2(2), RESOLVE_BENEATH). What was opened is checked, never what was named.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ..errors import AccessDenied, Error, InvalidArgs, NotFound
from ..hosts import HostRules

_OPENAT2: Final = 437
"""The system call's number, the same on every architecture (Linux 5.6)."""
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_BENEATH: Final = 0x08
"""linux/openat2.h."""
_USERINFO: Final = re.compile(r"^([a-z][a-z0-9+.-]*://)[^/?#]*@", re.IGNORECASE)
"""RFC 3986, sections 3.1 and 3.2.1: of any scheme, a misspelt one too."""
_QUERY: Final = re.compile(r"^([a-z][a-z0-9+.-]*://[^?#]*)[?#].*", re.IGNORECASE | re.DOTALL)
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
"""Without O_NONBLOCK, opening a FIFO would wait for its writer."""


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_path(path: str, directories: Sequence[Path] | None) -> int:
    """A file descriptor for reading the image at ``path``; the caller closes it. Blocking.

    ``directories``: the folders it has to lie below; None for any the process may read.

    Raises AccessDenied, NotFound, InvalidArgs (neither a file nor a block device).
    """
    fd = _open_anywhere(path) if directories is None else _open_below(path, directories)
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        os.close(fd)
        raise InvalidArgs(f"source {path!r} is neither a regular file nor a block device")
    return fd


def check_fd(fd: int) -> None:
    """InvalidArgs: the descriptor a caller passed is nothing an image can be read from."""
    mode = os.fstat(fd).st_mode
    readable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY
    known = any(test(mode) for test in (stat.S_ISREG, stat.S_ISBLK, stat.S_ISFIFO, stat.S_ISSOCK))
    if not (readable and known):
        raise InvalidArgs(
            "the file descriptor is not open for reading, or no file, block device, pipe or socket"
        )


def check_url(url: str, hosts: HostRules) -> None:
    """AccessDenied: what the URL alone tells of where it leads is denied.

    The downloader decides about addresses, when it knows them, and about redirects.
    """
    hosts.check(urlsplit(url).hostname or "")


def shown(source: str) -> str:
    """A source as everybody may see it: a URL without what may be a secret in it, which is the
    user and password, and the query, where signed URLs have their signature."""
    return _QUERY.sub(r"\1", _USERINFO.sub(r"\1", source))


def _open_anywhere(path: str) -> int:
    try:
        return os.open(path, _FLAGS)
    except OSError as error:
        raise _failure(path, error) from error


def _open_below(path: str, directories: Sequence[Path]) -> int:
    for directory in directories:
        try:
            relative = Path(path).relative_to(directory)
        except ValueError:
            continue
        return _open_beneath(path, directory, str(relative))
    allowed = ", ".join(map(str, directories)) or "none"
    raise AccessDenied(
        f"source {path!r} is not below a directory this service imports from ({allowed});"
        " pass it as a file descriptor, or let the administrator add to import-directories"
    )


def _open_beneath(path: str, directory: Path, relative: str) -> int:
    how = _OpenHow(_FLAGS, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _failure(path, error) from error
    try:
        fd = libc.syscall(
            _OPENAT2, parent, relative.encode(), ctypes.byref(how), ctypes.sizeof(how)
        )
        if fd < 0:
            number = ctypes.get_errno()
            raise _failure(path, OSError(number, os.strerror(number)))
        return int(fd)
    finally:
        os.close(parent)


def _failure(path: str, error: OSError) -> Error:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return NotFound(f"source {path!r} does not exist")
        case errno.EACCES | errno.EPERM:
            return AccessDenied(f"source {path!r} may not be read: {error.strerror}")
        case errno.EXDEV | errno.ELOOP:
            return AccessDenied(f"source {path!r} leads out of the directory it is in")
        case errno.EISDIR | errno.ENXIO | errno.ENAMETOOLONG:
            return InvalidArgs(f"source {path!r} is no image: {error.strerror}")
        case _:
            return Error(f"source {path!r} cannot be opened: {error.strerror}")
