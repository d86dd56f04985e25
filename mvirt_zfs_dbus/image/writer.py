"""Blocks out: a target that never gets a zero it already has."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final

from ..errors import Error, NoSpace, PoolUnavailable
from .buffer import ALIGNMENT, Buffer, data_runs, runs
from .room import Room

_ZERO_CHUNK: Final = bytes(1 << 20)
_FICLONERANGE: Final = 0x4020940D
"""ioctl_ficlonerange(2); ``_IOW(0x94, 13, struct file_clone_range)`` in linux/fs.h."""
_CLONE_RANGE: Final = struct.Struct("=qQQQ")


class Target:
    """The disk that is written: a block device or a regular file, through any thread.

    Its memory is what its callers hand in, and a buffer for each thread that gathers.
    """

    def __init__(self, fd: int, size: int, *, is_zero: bool) -> None:
        self.fd = fd
        self.size = size
        self.is_zero = is_zero
        self._can_clone = stat.S_ISREG(os.fstat(fd).st_mode)
        self._room = Room(fd, is_file=self._can_clone)
        self._direct = False
        self._tails: list[tuple[int, bytes]] = []
        """What could not be written past the page cache: the disk's end inside a block."""
        self._threads = threading.local()

    # Past the page cache

    def begin_direct(self) -> None:
        """Write past the page cache from now on, where that is possible.

        That takes half the processor time or less, and leaves the page cache to the guests
        (bench/README.md, «Writing»). Until :meth:`end_direct` every write has to begin at a
        multiple of ``ALIGNMENT``, to end at one or at the disk's end, and nothing is read.
        """
        self._direct = self.is_zero and self._set_direct(True)

    def end_direct(self) -> None:
        """Back to the page cache; nobody may be writing. What was left is written now."""
        if self._direct:
            self._set_direct(False)
            self._direct = False
        self._room.give_back()
        tails, self._tails = self._tails, []
        for offset, data in tails:
            self._write_all(memoryview(data), offset)

    def reserve(self, parts: Iterable[tuple[int, int]]) -> None:
        """Let the file system find the room for (offset, length) parts of the disk beforehand,
        which are to be most of what is written.

        ext4 writes past the page cache one piece at a time where it has yet to find the room. What
        turns out to be zeros is given back at the end.
        """
        if self._direct:
            self._room.reserve_all(parts)

    def _set_direct(self, wanted: bool) -> bool:
        """fcntl(2), F_SETFL; EINVAL: the file system cannot."""
        flags = fcntl.fcntl(self.fd, fcntl.F_GETFL) & ~os.O_DIRECT
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETFL, flags | (os.O_DIRECT if wanted else 0))
        except OSError:
            return False
        return True

    # Writing

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        if isinstance(data, memoryview):
            with self.gather() as gather:
                gather.add(data, offset)
        elif self._direct:
            self._write_aligned(data, offset)
        else:
            self.write_part(data, 0, len(data), offset)

    def _write_aligned(self, data: bytes | bytearray, offset: int) -> None:
        """By way of the thread's buffer, which only what is no zeros goes through."""
        view, room = memoryview(data), self._buffer().view
        for first, last in self._runs(data, 0, len(data), offset):
            for start in range(first, last, len(room)):
                piece = view[start : min(start + len(room), last)]
                room[: len(piece)] = piece
                self._write_run(room[: len(piece)], offset + start)

    def _runs(
        self, data: bytes | bytearray, start: int, end: int, offset: int
    ) -> Iterator[tuple[int, int]]:
        """What of ``data[start:end]`` is to be written to a disk of zeros; the rest is left."""
        done = start
        for first, last in data_runs(data, start, end):
            self._room.leave(offset + done - start, first - done)
            yield first, last
            done = last
        self._room.leave(offset + done - start, end - done)

    def gather(self) -> Gather:
        """For pieces that may lie side by side. A thread has one at a time."""
        return Gather(self, self._buffer())

    def _buffer(self) -> Buffer:
        try:
            buffer: Buffer = self._threads.buffer
        except AttributeError:
            buffer = self._threads.buffer = Buffer()
        return buffer

    def write_part(self, data: bytes | bytearray, start: int, end: int, offset: int) -> None:
        """Write ``data[start:end]`` so that it begins at byte ``offset`` of the disk."""
        view = memoryview(data)
        if self.is_zero:
            for first, last in self._runs(data, start, end, offset):
                self._write_run(view[first:last], offset + first - start)
            return
        for first, last, zero in runs(data, start, end):
            if zero:
                self.zero(offset + first - start, last - first)
            else:
                self._write_run(view[first:last], offset + first - start)

    def _write_run(self, view: memoryview, offset: int) -> None:
        if self._direct:
            whole = len(view) - len(view) % ALIGNMENT
            if whole < len(view):
                self._tails.append((offset + whole, bytes(view[whole:])))
                view = view[:whole]
            self._room.reserve(offset, whole)
        self._write_all(view, offset)

    def zero(self, offset: int, length: int) -> None:
        """Make these bytes read as zeros; nothing to do where they do already."""
        if self.is_zero or length <= 0 or self._room.punch(offset, length):
            return
        zeros = memoryview(_ZERO_CHUNK)
        for start in range(0, length, len(zeros)):
            self._write_all(zeros[: length - start], offset + start)

    def clone(self, source_fd: int, source_offset: int, offset: int, length: int) -> bool:
        """Share these bytes of a file. False: the file system cannot, and nothing was done."""
        if not self._can_clone:
            return False
        try:
            fcntl.ioctl(
                self.fd, _FICLONERANGE, _CLONE_RANGE.pack(source_fd, source_offset, length, offset)
            )
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise failed(error) from error
            self._can_clone = False
        return self._can_clone

    def read(self, offset: int, length: int) -> bytes:
        """What was written there."""
        pieces = []
        try:
            while length and (data := os.pread(self.fd, length, offset)):
                pieces.append(data)
                offset, length = offset + len(data), length - len(data)
        except OSError as error:
            raise Error(f"reading the disk back failed: {os.strerror(error.errno or 0)}") from error
        return b"".join(pieces)

    def sync(self) -> None:
        self.end_direct()
        try:
            os.fsync(self.fd)
        except OSError as error:
            raise failed(error) from error

    def _write_all(self, view: memoryview, offset: int) -> None:
        try:
            while view:
                count = self._pwrite(view, offset)
                view, offset = view[count:], offset + count
        except OSError as error:
            raise failed(error) from error

    def _pwrite(self, view: memoryview, offset: int) -> int:
        try:
            return os.pwrite(self.fd, view, offset)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._direct:
                raise
        # A file system that wants more of O_DIRECT than is usual.
        self._set_direct(False)
        return os.pwrite(self.fd, view, offset)


class Gather:
    """Writes what lies side by side on the disk in one piece. Leave it as a context to write all.

    One thread's; its memory is that thread's buffer.
    """

    def __init__(self, target: Target, buffer: Buffer) -> None:
        self._target = target
        self._buffer = buffer
        self._offset = 0
        self._length = 0

    def __enter__(self) -> Gather:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._flush()

    def add(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        view = memoryview(data)
        while view:
            room = self.room(offset, len(view))
            room[:] = view[: len(room)]
            view, offset = view[len(room) :], offset + len(room)

    def room(self, offset: int, length: int) -> memoryview:
        """Where to put the bytes of the disk from ``offset`` on: all of them, or the first few."""
        whole = len(self._buffer.view)
        if offset != self._offset + self._length or self._length == whole:
            self._flush()
            self._offset = offset
        start = self._length
        self._length = min(start + length, whole)
        return self._buffer.view[start : self._length]

    def _flush(self) -> None:
        start, length, self._length = self._buffer.start, self._length, 0
        self._target.write_part(self._buffer.memory, start, start + length, self._offset)


def failed(error: OSError) -> Error:
    """What a client is told when the disk could not be written."""
    why = os.strerror(error.errno or 0)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace("the pool has no space left for the disk")
    if error.errno in (errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO):
        return PoolUnavailable(f"the pool does not take the disk: {why}")
    return Error(f"writing the disk failed: {why}")
