"""One import as the converter process does it: the parts put together.

Nothing here opens anything: source, target and temporary file come as file descriptors.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import Protocol

from ..errors import Error
from ..model import Phase
from . import channel, detect, foreign, protocol, qcow2, qcow2_header, raw, vhd
from .base import ImageInfo, Outcome, Progress
from .buffer import ALIGNMENT
from .decompress import decompressor
from .digest import Digest
from .incoming import Incoming
from .meter import Meter
from .pool import Pool
from .qcow2_settle import settle
from .qcow2_stream import Arrival
from .rest import Rest
from .source import InOrder, Seekable, Source, Stream, open_source
from .writer import Target


class Image(Protocol):
    """A source that was understood: what it is, and the one way to write it."""

    info: ImageInfo

    def write(self, target: Target) -> Outcome: ...


class Daemon:
    """What the converter asks of the daemon while it writes."""

    def __init__(self, control: channel.Connection, files: ExitStack) -> None:
        self._control = control
        self._files = files

    def report(self, progress: Progress) -> None:
        self._control.send(
            protocol.Report(progress.phase, progress.bytes_done, progress.bytes_total)
        )

    def grow(self, size: int, least: int) -> int:
        self._control.send(protocol.Resize(size, least))
        answer, _ = self._control.expect(protocol.Resized)
        return answer.size

    def open_memory(self) -> int:
        """An empty file that takes no place but memory."""
        fd = os.memfd_create("import")
        self._files.callback(os.close, fd)
        return fd

    def open_spool(self) -> int:
        self._control.send(protocol.NeedSpool())
        _, (fd,) = self._control.expect(protocol.Spool)
        self._files.callback(os.close, fd)
        return fd

    def start_program(self) -> socket.socket:
        self._control.send(protocol.NeedProgram())
        _, (fd,) = self._control.expect(protocol.Program)
        sock = socket.socket(fileno=fd)
        sock.setblocking(True)  # as the daemon's own sockets are not
        return sock

    def program_status(self) -> int:
        self._control.send(protocol.AwaitProgram())
        answer, _ = self._control.expect(protocol.Exited)
        return answer.status


def serve(control: channel.Connection, pool: Pool) -> None:
    """Answer one daemon's requests, from Open to Done.

    Errors are told to the daemon; EOFError and OSError are left to the caller: the daemon is gone.
    """
    with ExitStack() as files:
        try:
            _serve(control, pool, files)
        except Error as error:
            control.send(protocol.Failure(error.name, error.message))
        except MemoryError:
            message = "the image needs too much memory to be read"
            control.send(protocol.Failure(Error.name, message))
        finally:
            files.callback(pool.abandon)  # before the files are closed


def _serve(control: channel.Connection, pool: Pool, files: ExitStack) -> None:
    request, (source_fd,) = control.expect(protocol.Open)
    files.callback(os.close, source_fd)
    source = open_source(source_fd, request.length)
    image = understand(
        source, request.image_format, request.checksum_algorithm, pool, Daemon(control, files)
    )
    info = image.info
    control.send(protocol.Image(info.format, info.virtual_size, info.allocated))
    order, (target_fd,) = control.expect(protocol.Write)
    files.callback(os.close, target_fd)
    if order.size < (info.virtual_size or 0):
        raise Error(f"a target of {order.size} bytes is too small for {info.virtual_size} bytes")
    target = Target(target_fd, order.size, is_zero=order.is_zero)
    outcome = image.write(target)
    target.sync()
    received = source.received if isinstance(source, Stream) else source.size
    control.send(protocol.Done(outcome.size, outcome.digest, received))


def understand(
    source: Source, image_format: str, algorithm: str | None, pool: Pool, daemon: Daemon
) -> Image:
    """What the source is. UnsupportedImage, UnsafeImage, CorruptImage, Truncated."""
    # A checksum is of the bytes that are converted, so with one a file is read once.
    once = InOrder(source) if algorithm and isinstance(source, Seekable) else source
    packing = detect.packing(image_format, once.head())
    incoming = Incoming(once, packing)
    head = incoming.head()
    found = detect.image_format(image_format, head, None if packing else source)
    at_any_place = source if isinstance(source, Seekable) and not packing else None
    if found == detect.RAW:
        if at_any_place:
            return RawFile(at_any_place, algorithm, pool, daemon)
        return RawStream(incoming, image_format, algorithm, pool, daemon)
    if found in foreign.FORMATS:
        if at_any_place and not algorithm:
            return foreign.open_file(at_any_place, found, pool, daemon)
        if found == detect.VPC and not head.startswith(vhd.COOKIE):
            info = foreign.FixedVhd(at_any_place, pool, daemon).info if at_any_place else None
            return RawStream(incoming, found, algorithm, pool, daemon, info)
        return foreign.open_stream(incoming, found, algorithm, pool, daemon)
    header = qcow2_header.parse(head)
    if at_any_place:
        file = Qcow2File(at_any_place, header, pool, daemon)
        if not algorithm:
            return file
        return Qcow2Stream(incoming, header, algorithm, pool, daemon, file.info.allocated)
    return Qcow2Stream(incoming, header, algorithm, pool, daemon)


class RawFile:
    def __init__(self, source: Seekable, algorithm: str | None, pool: Pool, daemon: Daemon) -> None:
        self._source = source
        self._algorithm = algorithm
        self._pool = pool
        self._daemon = daemon
        self.info = ImageInfo(detect.RAW, source.size, raw.allocated(source))

    def write(self, target: Target) -> Outcome:
        source = self._source
        target.begin_direct()
        if raw.is_sparse(source):
            target.reserve(raw.data(source))
        digest = Digest(self._algorithm, self._pool)
        meter = Meter(Phase.WRITING, source.size, self._daemon.report)
        if self._algorithm:
            raw.convert_file_hashed(source, target, self._pool, meter, digest)
        else:
            raw.convert_file(source, target, self._pool, meter)
        meter.finish()
        target.zero(source.size, target.size - source.size)
        return Outcome(source.size, digest.value())


class RawStream:
    """A raw disk, or a fixed VHD, which tells so at its end only."""

    def __init__(
        self,
        source: Incoming,
        asked: str,
        algorithm: str | None,
        pool: Pool,
        daemon: Daemon,
        info: ImageInfo | None = None,
    ) -> None:
        """``info``: where more is known beforehand than the length."""
        self._source = source
        self._asked = asked
        self._algorithm = algorithm
        self._pool = pool
        self._daemon = daemon
        self.info = info or ImageInfo(detect.RAW, source.length, None)

    def write(self, target: Target) -> Outcome:
        target.begin_direct()
        digest = Digest(self._algorithm, self._pool)
        source = self._source
        meter = Meter(source.phase, source.stored_length or 0, self._daemon.report)
        chunks = source.chunks(digest, meter)
        if self._asked != detect.RAW:
            chunks = vhd.disk_of_stream(chunks, required=self._asked == detect.VPC)
        size = raw.convert_stream(chunks, target, self._pool, self._daemon.grow)
        meter.finish()
        if size != self._source.length:
            target.size = self._daemon.grow(size, size)
        target.zero(size, target.size - size)
        return Outcome(size, digest.value())


class Qcow2File:
    def __init__(
        self,
        source: Seekable,
        header: qcow2_header.Header,
        pool: Pool,
        daemon: Daemon,
    ) -> None:
        self._pool = pool
        self._daemon = daemon
        self._image = qcow2.read(source, header)
        self.info = ImageInfo(detect.QCOW2, header.size, self._image.allocated)

    def write(self, target: Target) -> Outcome:
        source, header = self._image.source, self._image.header
        _begin_direct(target, header)
        target.reserve(self._image.data())
        meter = Meter(Phase.CONVERTING, source.size, self._daemon.report)
        extents = self._image.tables.extents()
        qcow2.convert(source, header, extents, target, self._pool, meter)
        meter.finish()
        target.zero(header.size, target.size - header.size)
        return Outcome(header.size, None)


class Qcow2Stream:
    """Refused by its header at once; the rest is checked when all of it has come."""

    def __init__(
        self,
        source: Incoming,
        header: qcow2_header.Header,
        algorithm: str | None,
        pool: Pool,
        daemon: Daemon,
        allocated: int | None = None,
    ) -> None:
        """``allocated``: bytes of the disk that hold data, where that is known beforehand."""
        decompressor(header.compression)
        self._source = source
        self._header = header
        self._algorithm = algorithm
        self._pool = pool
        self._daemon = daemon
        self.info = ImageInfo(detect.QCOW2, header.size, allocated)

    def write(self, target: Target) -> Outcome:
        header, pool = self._header, self._pool
        _begin_direct(target, header)
        digest = Digest(self._algorithm, pool)
        rest = Rest(self._daemon.open_memory(), self._daemon.open_spool, pool)
        arrival = Arrival(header, target, pool, rest)
        source = self._source
        meter = Meter(source.phase, source.stored_length or 0, self._daemon.report)
        kept = arrival.receive(source.chunks(digest, meter))
        meter.finish()
        settle(arrival, kept, target, pool, self._daemon.report)
        target.zero(header.size, target.size - header.size)
        return Outcome(header.size, digest.value())


def _begin_direct(target: Target, header: qcow2_header.Header) -> None:
    """Write past the page cache unless clusters are too small for that."""
    if header.unit % ALIGNMENT == 0:
        target.begin_direct()
