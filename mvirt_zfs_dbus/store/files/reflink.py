"""Copies of raw files: shared extents where the file system can, else only the data, not the holes.

Blocking; both are for threads.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from threading import Event
from typing import Final

FICLONE: Final = 0x40049409
"""ioctl_ficlonerange(2); ``_IOW(0x94, 9, int)`` in linux/fs.h."""

CHUNK: Final = 8 * 1024 * 1024
"""Bytes copied between two looks at whether to stop."""
SYNC_EVERY: Final = 16 * CHUNK
"""Bytes after which written data goes to the disk, so that the last sync is a short one."""

_NOT_SUPPORTED: Final = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EXDEV}
)


class Stopped(Exception):
    """The copy was asked to stop."""


def reflink(source: int, target: int) -> bool:
    """Make ``target`` a copy of ``source`` that shares its extents.

    False where the file system cannot; nothing is changed then. The kernel takes the copy as of one
    moment, even while others write to the source.
    """
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in _NOT_SUPPORTED:
            return False
        raise
    return True


def copy_sparse(
    source: int, target: int, stop: Event, progress: Callable[[int, int], None] | None = None
) -> None:
    """Copy all data of ``source`` into the empty file ``target``, leaving holes as they are.

    ``progress(done, total)`` gets positions in the file, holes counted. Stopped: ``stop`` was set.
    """
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    unsynced = 0
    for position, length in _data_chunks(source, size):
        if stop.is_set():
            raise Stopped
        _copy_range(source, target, position, length)
        unsynced += length
        if unsynced >= SYNC_EVERY:
            os.fdatasync(target)
            unsynced = 0
        if progress is not None:
            progress(position + length, size)
    if progress is not None:
        progress(size, size)


def _data_chunks(source: int, size: int) -> Iterator[tuple[int, int]]:
    for start, end in _extents(source, size):
        for position in range(start, end, CHUNK):
            yield position, min(CHUNK, end - position)


def _extents(source: int, size: int) -> Iterator[tuple[int, int]]:
    """The start and end of each run of data, by lseek(2) with SEEK_DATA and SEEK_HOLE."""
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole to the end
                return
            raise
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        if start < size:
            yield start, end


def _copy_range(source: int, target: int, position: int, length: int) -> None:
    """Copy within the kernel. sendfile(2) always moves bytes; copy_file_range(2) may share them,
    and a copy that is to be independent must not."""
    os.lseek(target, position, os.SEEK_SET)
    end = position + length
    while position < end:
        sent = os.sendfile(target, source, position, end - position)
        if sent == 0:  # the source was cut meanwhile; what is not there reads as zeros
            return
        position += sent
