"""Temporary files in the pool, in ``POOL/.tmp``, which is mounted nowhere.

It is mounted for the moment in which a file is opened and let go at once: the file stays as long as
its descriptor, nobody finds it by a path, and the pool can be exported whenever no file is open.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# sys/mount.h
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_MNT_DETACH: Final = 2

_PRIVATE: Final = 0o600

_libc: Final = ctypes.CDLL(None, use_errno=True)


def open_file(dataset: str, runtime_directory: Path) -> int:
    """An unnamed file of this file system, readable and writable. Blocking."""
    with _mounted(dataset, runtime_directory) as directory:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, _PRIVATE)


def is_empty(dataset: str, runtime_directory: Path) -> bool:
    """Whether this file system, mounted by somebody else or not, has no file in it. Blocking."""
    with _mounted(dataset, runtime_directory) as directory:
        return not os.listdir(directory)  # noqa: PTH208


@contextmanager
def _mounted(dataset: str, runtime_directory: Path) -> Iterator[str]:
    directory = tempfile.mkdtemp(prefix="spool-", dir=runtime_directory)
    try:
        _mount(dataset, directory)
        try:
            yield directory
        finally:
            _checked(_libc.umount2(os.fsencode(directory), _MNT_DETACH), directory)
    finally:
        os.rmdir(directory)  # noqa: PTH106


def _mount(dataset: str, directory: str) -> None:
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    result = _libc.mount(dataset.encode(), os.fsencode(directory), b"zfs", flags, None)
    _checked(result, directory)


def _checked(result: int, path: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
