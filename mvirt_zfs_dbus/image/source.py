"""Bytes in: file descriptors that can seek, and streams that cannot."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import Iterator
from typing import Final

from ..errors import Error, InvalidArgs, Truncated

CHUNK: Final = 1 << 20
"""Bytes read at once."""
_PATIENCE: Final = 0.1
"""Seconds a chunk of a slow stream may fill before it is handed on: progress must show."""
HEAD: Final = 64 * 1024
"""Bytes at the start that tell what an image is; a qcow2 header ends long before."""


class Seekable:
    """A regular file or a block device. Its bytes are read at any place, by any thread."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size

    def head(self, length: int = HEAD) -> bytes:
        return self.read(0, min(length, self.size))

    def chunks(self) -> Iterator[bytes]:
        """All bytes, in order. Truncated: the file became shorter meanwhile."""
        for offset in range(0, self.size, CHUNK):
            yield self.read(offset, min(CHUNK, self.size - offset))

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes. Truncated: the file ends before."""
        data = self.read_up_to(offset, length)
        if len(data) != length:
            raise Truncated(
                f"the source ends at byte {offset + len(data)} where at least"
                f" {offset + length} bytes were expected"
            )
        return data

    def read_up_to(self, offset: int, length: int) -> bytes:
        """These bytes, or fewer where the file ends."""
        if offset >= self.size:  # as far away as no file reaches, if a damaged table says so
            return b""
        with reading():
            data = os.pread(self.fd, length, offset)
            while 0 < len(data) < length:
                more = os.pread(self.fd, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill the view. Truncated: the file ends before."""
        with reading():
            while view:
                count = os.preadv(self.fd, [view], offset)
                if not count:
                    raise Truncated(
                        f"the source ends at byte {offset} where at least"
                        f" {offset + len(view)} bytes were expected"
                    )
                view, offset = view[count:], offset + count

    def check_size(self) -> None:
        """Truncated: the file has become shorter since it was opened."""
        if stat.S_ISREG(os.fstat(self.fd).st_mode) and os.fstat(self.fd).st_size < self.size:
            raise Truncated(f"the source became shorter than its {self.size} bytes meanwhile")

    def extents(self) -> Iterator[tuple[int, int]]:
        """The (start, end) of everything that is no hole, in order (lseek(2), SEEK_DATA)."""
        end = 0
        while end < self.size:
            try:
                start = os.lseek(self.fd, end, os.SEEK_DATA)
                end = os.lseek(self.fd, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole from here to the end
                    return
                start, end = end, self.size  # a file system or device that knows no holes
            if start >= self.size:
                return
            yield start, min(end, self.size)


class Stream:
    """A pipe or a socket. Its bytes come once, in order."""

    def __init__(self, fd: int, length: int | None = None) -> None:
        self.fd = fd
        self.length = length
        """In bytes, where the one who sends it has said so."""
        self.received = 0
        """Bytes handed out by :meth:`chunks`."""
        self._head = b""

    def head(self, length: int = HEAD) -> bytes:
        """The first bytes, or all if they are fewer; :meth:`chunks` hands them out again."""
        while len(self._head) < length:
            data = self._read(min(CHUNK, length - len(self._head)))
            if not data:
                break
            self._head += data
        return self._head[:length]

    def chunks(self) -> Iterator[bytes]:
        """All bytes. Truncated: they end before ``length``; Error: they do not end there."""
        for data in self._raw_chunks():
            self.received += len(data)
            if self.length is not None and self.received > self.length:
                raise Error(f"the source holds more than the announced {self.length} bytes")
            yield data
        if self.length is not None and self.received < self.length:
            raise Truncated(f"the source ended after {self.received} of {self.length} bytes")

    def _raw_chunks(self) -> Iterator[bytes]:
        head, self._head = self._head, b""
        if head:
            yield head
        pieces: list[bytes] = []
        size, since = 0, time.monotonic()
        while data := self._read(CHUNK - size):
            pieces.append(data)
            size += len(data)
            if size == CHUNK or time.monotonic() - since > _PATIENCE:
                yield b"".join(pieces)
                pieces, size, since = [], 0, time.monotonic()
        if pieces:
            yield b"".join(pieces)

    def _read(self, length: int) -> bytes:
        """Up to so many bytes, and none at the end.

        Who passed the descriptor may have made it non-blocking, and it is theirs to stay so.
        """
        with reading():
            while True:
                try:
                    return os.read(self.fd, length)
                except BlockingIOError:
                    poll = select.poll()
                    poll.register(self.fd, select.POLLIN)
                    poll.poll()


class InOrder(Stream):
    """A file that is read once, from its beginning to its end, whoever else moves its offset.

    What a checksum says of it is then said of the bytes that were used, also where somebody writes
    into the file meanwhile.
    """

    def __init__(self, file: Seekable) -> None:
        super().__init__(file.fd, file.size)
        self._file = file
        self._at = 0

    def _read(self, length: int) -> bytes:
        data = self._file.read_up_to(self._at, length)
        self._at += len(data)
        return data


Source = Seekable | Stream


def open_source(fd: int, length: int | None = None) -> Source:
    """What a file descriptor gives. InvalidArgs: it gives nothing that could be an image."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return Seekable(fd, os.fstat(fd).st_size)
    if stat.S_ISBLK(mode):
        with reading():
            return Seekable(fd, os.lseek(fd, 0, os.SEEK_END))
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return Stream(fd, length)
    raise InvalidArgs("the source is neither a file, a block device, a pipe nor a socket")


class reading:
    """Turns a failed read into the error a client is to see."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: object, _traceback: object) -> None:
        if isinstance(error, BlockingIOError) or not isinstance(error, OSError):
            return
        if error.errno == errno.EBADF:
            raise InvalidArgs("the source is not open for reading") from error
        raise Error(f"reading the source failed: {os.strerror(error.errno or 0)}") from error
