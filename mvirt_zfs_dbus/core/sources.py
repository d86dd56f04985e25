"""Opening what an import reads, for a caller who is not root by a service that is.

A path is opened by the service with the service's rights, so on the system bus it has to lie below
a directory the administrator named, and no symlink or ``..`` leads out again. It is opened as a
mere place first (O_PATH), which has no effect on anything; what that place holds is checked, and
then that very file is opened for reading, whatever the path leads to by now.

All of it may hang with the file system it is on, so it runs in threads with a bound.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from .. import fds
from ..errors import AccessDenied, Error, InvalidArgs, NotFound
from ..hosts import HostRules
from ..tasks import T, bounded
from . import beneath

PATIENCE: Final = 20.0
"""Seconds a file system has for opening a file; callers wait for an answer 25 (D-Bus's default)."""

_OPENAT2: Final = 437
"""The system call's number, the same on every architecture (Linux 5.6)."""
_RESOLVE_NO_MAGICLINKS: Final = 0x02
"""linux/openat2.h."""
_RACES: Final = 100
"""How often ``..`` may meet a directory that is moved meanwhile; the kernel then says EAGAIN."""
_PLACE: Final = os.O_PATH | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_KERNELS_OWN: Final = {
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x73636673: "securityfs",
    0x62656570: "configfs",
    0x63677270: "cgroup2",
    0x27E0EB: "cgroup",
    0xCAFE4A11: "bpf",
    0xDE5E81E4: "efivarfs",
    0x6165676C: "pstore",
    0xF97CFF8C: "selinuxfs",
}
"""linux/magic.h: file systems whose files are the kernel's state, and never an image."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


async def open_path(path: str, directories: Sequence[Path] | None, block_devices: bool) -> int:
    """A file descriptor for reading the image at ``path``; the caller closes it, by ``fds.close``.

    ``directories``: the folders it has to lie below; None for any the process may read.
    ``block_devices``: whether it may be one.

    Raises AccessDenied, NotFound, InvalidArgs (neither a file nor an allowed device), and Error
    when the file system does not answer.
    """
    opening = partial(open_path_now, path, directories, block_devices)
    return await _in_time(opening, fds.close, f"source {path!r}")


async def check_fd(fd: int) -> None:
    """InvalidArgs: the descriptor a caller passed is nothing an image can be read from."""
    await _in_time(partial(_check_fd, fd), lambda _: None, "the file descriptor that was passed")


def check_url(url: str, hosts: HostRules) -> None:
    """AccessDenied: what the URL alone tells of where it leads is denied.

    The downloader decides about addresses, when it knows them, and about redirects.
    """
    hosts.check(urlsplit(url).hostname or "")


async def _in_time(call: Callable[[], T], undo: Callable[[T], None], what: str) -> T:
    try:
        return await bounded(call, seconds=PATIENCE, undo=undo)
    except TimeoutError as error:
        raise Error(
            f"{what} could not be looked at within {PATIENCE:g} seconds; the file system it is on"
            " does not answer"
        ) from error


def _check_fd(fd: int) -> None:
    mode = os.fstat(fd).st_mode
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    # Who may only find a file, and not read it, gets O_PATH.
    readable = not flags & os.O_PATH and flags & os.O_ACCMODE != os.O_WRONLY
    known = any(test(mode) for test in (stat.S_ISREG, stat.S_ISBLK, stat.S_ISFIFO, stat.S_ISSOCK))
    if not (readable and known):
        raise InvalidArgs(
            "the file descriptor is not open for reading, or no file, block device, pipe or socket"
        )


def open_path_now(path: str, directories: Sequence[Path] | None, block_devices: bool) -> int:
    """As :func:`open_path`; it may hang."""
    place = _place(path) if directories is None else _place_below(path, directories)
    try:
        _check_place(path, place, block_devices)
        # Not by its name, which may have become another file's.
        return os.open(f"/proc/self/fd/{place}", _READ)
    except OSError as error:
        raise _failure(path, error) from error
    finally:
        os.close(place)


def _check_place(path: str, place: int, block_devices: bool) -> None:
    mode = os.fstat(place).st_mode
    if stat.S_ISBLK(mode) and not block_devices:
        raise AccessDenied(
            f"source {path!r} is a block device, which import-block-devices does not allow; it can"
            " be passed as a file descriptor"
        )
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise InvalidArgs(f"source {path!r} is neither a regular file nor a block device")
    if name := _KERNELS_OWN.get(_file_system(place)):
        raise AccessDenied(f"source {path!r} is no image but a part of the kernel, in {name}")


def _file_system(fd: int) -> int:
    """The type of the file system, as linux/magic.h has them (statfs(2))."""
    buffer = (ctypes.c_long * 64)()  # struct statfs begins with the type, and has 120 bytes
    if _libc.fstatfs(fd, buffer) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer[0] & 0xFFFFFFFF


def _place(path: str) -> int:
    """Anywhere; but /proc's links to what this process has open are no paths."""
    how = _OpenHow(_PLACE, 0, _RESOLVE_NO_MAGICLINKS)
    number = errno.EAGAIN
    for _ in range(_RACES):
        name, size = os.fsencode(path), ctypes.sizeof(how)
        fd: int = _libc.syscall(_OPENAT2, -1, name, ctypes.byref(how), size)
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise _failure(path, OSError(number, os.strerror(number)))


def _place_below(path: str, directories: Sequence[Path]) -> int:
    for directory in directories:
        try:
            relative = Path(path).relative_to(directory)
        except ValueError:
            continue
        try:
            parent = os.open(directory, _PLACE | os.O_DIRECTORY)
        except OSError as error:
            raise _failure(path, error) from error
        try:
            return beneath.place(parent, str(relative))
        except OSError as error:
            raise _failure(path, error) from error
        finally:
            os.close(parent)
    allowed = ", ".join(map(str, directories)) or "none"
    raise AccessDenied(
        f"source {path!r} is not below a directory this service imports from ({allowed});"
        " pass it as a file descriptor, or let the administrator add to import-directories"
    )


def _failure(path: str, error: OSError) -> Error:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return NotFound(f"source {path!r} does not exist")
        case errno.EACCES | errno.EPERM:
            return AccessDenied(f"source {path!r} may not be read: {error.strerror}")
        case errno.EXDEV | errno.ELOOP:
            return AccessDenied(
                f"source {path!r} leads out of the directory it is in, or through a link of /proc"
            )
        case errno.EISDIR | errno.ENXIO | errno.ENAMETOOLONG:
            return InvalidArgs(f"source {path!r} is no image: {error.strerror}")
        case _:
            return Error(f"source {path!r} cannot be opened: {error.strerror}")
