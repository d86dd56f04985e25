"""The server's side of an NBD connection: a disk given over a socket, request by request.

qemu-img is handed sockets in place of files, so it needs no right to open anything, as nobody would
have on a user's image or a pool's device. Spoken is what it asks for: fixed newstyle negotiation,
NBD_OPT_GO, simple replies (the NBD protocol, doc/proto.md of NetworkBlockDevice/nbd).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
from typing import Final, Protocol

from ..errors import Error, NoSpace
from .pool import Pool
from .source import Seekable
from .writer import Target

MAX_REQUEST: Final = 2 << 20
"""Bytes; the client is told, and holds itself to it: qemu-img's own buffers are as large."""
TIMEOUT: Final = 300.0
"""Seconds a client may leave an answer unread, or a request of its own unfinished."""
_MAX_OPTION: Final = 64 * 1024
_SECTOR: Final = 512

_GREETING: Final = b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", 0b11)
"""NBD_FLAG_FIXED_NEWSTYLE, NBD_FLAG_NO_ZEROES."""
_OPTION: Final = struct.Struct(">8sII")
_OPTION_REPLY: Final = struct.Struct(">QIII")
_OPTION_REPLY_MAGIC: Final = 0x3E889045565A9
_ABORT, _GO = 2, 7
_ACK, _INFO, _UNSUPPORTED = 1, 3, (1 << 31) + 1
_INFO_EXPORT, _INFO_BLOCK_SIZE = 0, 3
_REQUEST: Final = struct.Struct(">IHHQQI")
_REQUEST_MAGIC: Final = 0x25609513
_REPLY: Final = struct.Struct(">IIQ")
_REPLY_MAGIC: Final = 0x67446698
_READ, _WRITE, _DISCONNECT, _FLUSH, _WRITE_ZEROES = 0, 1, 2, 3, 6
_HAS_FLAGS, _READ_ONLY, _SEND_FLUSH, _SEND_WRITE_ZEROES = 1 << 0, 1 << 1, 1 << 2, 1 << 6


class Export(Protocol):
    """What a client sees as a disk of ``size`` bytes."""

    size: int
    flags: int

    def do(self, kind: int, offset: int, length: int, data: bytes) -> bytes:
        """One request, which lies inside; the answer is what it read."""


class SourceExport:
    """An image to be read, with zeros up to a whole sector after it.

    QEMU counts in sectors anyway, and its NBD client waits for ever for the rest of the last one.
    """

    flags = _HAS_FLAGS | _READ_ONLY

    def __init__(self, source: Seekable) -> None:
        self.size = -(-source.size // _SECTOR) * _SECTOR
        self._source = source

    def do(self, kind: int, offset: int, length: int, _data: bytes) -> bytes:
        if kind != _READ:
            raise Error(f"an image is read, and NBD request {kind} came")
        there = max(min(length, self._source.size - offset), 0)
        return self._source.read(offset, there).ljust(length, b"\0")


class TargetExport:
    """The first ``size`` bytes of a disk that is written. It is synced by whoever has it."""

    flags = _HAS_FLAGS | _SEND_FLUSH | _SEND_WRITE_ZEROES

    def __init__(self, target: Target, size: int) -> None:
        self.size = size
        self._target = target

    def do(self, kind: int, offset: int, length: int, data: bytes) -> bytes:
        match kind:
            case 0:
                return self._target.read(offset, length)
            case 1:
                self._target.write(data, offset)
            case 6:
                self._target.zero(offset, length)
            case 3:
                pass
            case _:
                raise Error(f"a disk is read and written, and NBD request {kind} came")
        return b""


class Connection:
    """One client. Requests are answered in threads, each as soon as it is done."""

    def __init__(self, sock: socket.socket, export: Export, pool: Pool) -> None:
        self._sock = sock
        self._export = export
        self._pool = pool
        self._sending = threading.Lock()
        self._next = self._client_flags
        self.failure: Error | None = None
        """The first thing that went wrong on this side, which the client knows as an errno only."""
        timeout = struct.pack("ll", int(TIMEOUT), int(TIMEOUT % 1 * 1_000_000))
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, timeout)
        sock.sendall(_GREETING)

    def serve(self) -> bool:
        """Take the next message. False: the client has gone, or does not keep to the protocol."""
        try:
            if self._next():
                return True
        except (EOFError, OSError):
            return False
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # whoever waits for an answer sees it
        return False

    def _client_flags(self) -> bool:
        self._receive(4)
        self._next = self._option
        return True

    def _option(self) -> bool:
        magic, option, length = _OPTION.unpack(self._receive(_OPTION.size))
        if magic != b"IHAVEOPT" or length > _MAX_OPTION or option == _ABORT:
            return False
        self._receive(length)
        if option != _GO:
            self._option_reply(option, _UNSUPPORTED, b"")
            return True
        export = struct.pack(">HQH", _INFO_EXPORT, self._export.size, self._export.flags)
        self._option_reply(option, _INFO, export)
        self._option_reply(
            option, _INFO, struct.pack(">HIII", _INFO_BLOCK_SIZE, 1, 4096, MAX_REQUEST)
        )
        self._option_reply(option, _ACK, b"")
        self._next = self._request
        return True

    def _option_reply(self, option: int, kind: int, data: bytes) -> None:
        header = _OPTION_REPLY.pack(_OPTION_REPLY_MAGIC, option, kind, len(data))
        self._sock.sendall(header + data)

    def _request(self) -> bool:
        magic, _, kind, cookie, offset, length = _REQUEST.unpack(self._receive(_REQUEST.size))
        too_long = length > MAX_REQUEST and kind in (_READ, _WRITE)
        if magic != _REQUEST_MAGIC or kind == _DISCONNECT or too_long:
            return False
        data = self._receive(length) if kind == _WRITE else b""
        self._pool.run(self._answer, kind, cookie, offset, length, data)
        return True

    def _answer(self, kind: int, cookie: int, offset: int, length: int, data: bytes) -> None:
        number, answer = self._done(kind, offset, length, data)
        try:
            with self._sending:
                self._sock.sendall(_REPLY.pack(_REPLY_MAGIC, number, cookie))
                self._sock.sendall(answer)
        except OSError:
            return  # the client has gone, or reads no more

    def _done(self, kind: int, offset: int, length: int, data: bytes) -> tuple[int, bytes]:
        """An errno, and what was read."""
        if offset + length > self._export.size:
            return errno.EINVAL, b""
        try:
            return 0, self._export.do(kind, offset, length, data)
        except Error as error:
            self.failure = self.failure or error
            return errno.ENOSPC if isinstance(error, NoSpace) else errno.EIO, b""

    def _receive(self, length: int) -> bytes:
        data = self._sock.recv(length, socket.MSG_WAITALL) if length else b""
        if len(data) < length:
            raise EOFError
        return data
