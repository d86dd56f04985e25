"""Changes in a directory as the kernel tells them, by inotify(7).

Called through ctypes: the inotify packages either poll from a thread of their own or wrap these
three calls in more code than stands here.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

# linux/inotify.h
_CLOSE_WRITE: Final = 0x008
_MOVED_FROM: Final = 0x040
_MOVED_TO: Final = 0x080
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_MOVE_SELF: Final = 0x800
_UNMOUNT: Final = 0x2000
_Q_OVERFLOW: Final = 0x4000
_ONLYDIR: Final = 0x01000000

_NAMES: Final = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR
_EVENT: Final = struct.Struct("iIII")
_BUFFER: Final = 64 * 1024

_libc: Final = ctypes.CDLL(None, use_errno=True)


class DirectoryWatch:
    """Calls ``changed`` on the event loop when a file of a directory comes, goes or was written.

    The directory's own coming and going is seen by a watch on its parent: while the directory is
    held open, its removal shows nowhere else.
    """

    def __init__(self, path: Path, changed: Callable[[], None]) -> None:
        self._name = os.fsencode(path.name)
        self._changed = changed
        self._told: set[str] | None = set()
        """The names of files that changed since the last look; None: any may have."""
        self._loop = asyncio.get_running_loop()
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            self._inside = _add(self._fd, path, _NAMES | _CLOSE_WRITE | _MOVE_SELF)
            self._watch_parent(path.parent)
        except OSError:
            os.close(self._fd)
            raise
        self._loop.add_reader(self._fd, self._read)

    def _watch_parent(self, parent: Path) -> None:
        try:
            _add(self._fd, parent, _NAMES)
        except PermissionError:
            _log.warning("%s cannot be watched: its removal will be seen late", parent)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def take(self) -> set[str] | None:
        """The names of the files in the directory that came, went or were written since the last
        call, up to this moment; None: any of them may have."""
        while data := self._read_events():
            self._note(data)
        told, self._told = self._told, set()
        return told

    def distrust(self) -> None:
        """What was taken was not looked at: any file may have changed."""
        self._told = None

    def _read(self) -> None:
        self._note(self._read_events())

    def _read_events(self) -> bytes:
        try:
            return os.read(self._fd, _BUFFER)
        except BlockingIOError:
            return b""

    def _note(self, data: bytes) -> None:
        concerning = [self._take(*event) for event in _events(data)]
        if any(concerning):
            self._changed()

    def _take(self, watch: int, mask: int, name: bytes) -> bool:
        """Whether the event concerns the directory, or may."""
        if watch == self._inside and name:
            if self._told is not None:
                self._told.add(os.fsdecode(name))
            return True
        if mask & (_Q_OVERFLOW | _UNMOUNT) or watch == self._inside or name == self._name:
            self._told = None
            return True
        return False


def _events(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The watch, mask and file name of each ``struct inotify_event``."""
    position = 0
    while position < len(data):
        watch, mask, _cookie, length = _EVENT.unpack_from(data, position)
        position += _EVENT.size
        yield watch, mask, data[position : position + length].rstrip(b"\0")
        position += length


def _add(fd: int, path: Path, mask: int) -> int:
    return _checked(_libc.inotify_add_watch(fd, os.fsencode(path), mask))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
