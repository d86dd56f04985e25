"""One import as the converter process does it: the parts put together.

Nothing here opens anything: source, target and temporary file come as file descriptors.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

from ..errors import Error
from ..model import Phase
from . import channel, detect, protocol, qcow2, qcow2_header, raw
from .base import ImageInfo, Outcome, Progress
from .digest import Digest, FileDigest
from .meter import Meter
from .pool import Pool
from .source import Seekable, Source, Stream, open_source
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

    def open_spool(self) -> int:
        self._control.send(protocol.NeedSpool())
        _, (fd,) = self._control.expect(protocol.Spool)
        self._files.callback(os.close, fd)
        return fd


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
    head = source.head()
    found = detect.image_format(image_format, head, source)
    if found == detect.RAW:
        return Raw(source, algorithm, pool, daemon)
    header = qcow2_header.parse(head)
    if isinstance(source, Seekable):
        return Qcow2File(source, header, algorithm, pool, daemon)
    return Qcow2Stream(source, header, algorithm, pool, daemon)


class Raw:
    def __init__(self, source: Source, algorithm: str | None, pool: Pool, daemon: Daemon) -> None:
        self._source = source
        self._algorithm = algorithm
        self._pool = pool
        self._daemon = daemon
        if isinstance(source, Seekable):
            self.info = ImageInfo(detect.RAW, source.size, raw.allocated(source))
        else:
            self.info = ImageInfo(detect.RAW, source.length, None)

    def write(self, target: Target) -> Outcome:
        digest = Digest(self._algorithm, self._pool)
        if isinstance(self._source, Seekable):
            size = self._source.size
            self._write_file(self._source, target, digest)
        else:
            size = self._write_stream(self._source, target, digest)
        target.zero(size, target.size - size)
        return Outcome(size, digest.value())

    def _write_file(self, source: Seekable, target: Target, digest: Digest) -> None:
        meter = Meter(Phase.WRITING, source.size, self._daemon.report)
        if self._algorithm:
            raw.convert_file_hashed(source, target, self._pool, meter, digest)
        else:
            raw.convert_file(source, target, self._pool, meter)
        meter.finish()

    def _write_stream(self, source: Stream, target: Target, digest: Digest) -> int:
        meter = Meter(Phase.DOWNLOADING, source.length or 0, self._daemon.report)
        size = raw.convert_stream(source, target, self._pool, meter, digest, self._daemon.grow)
        meter.finish()
        if source.length is None:
            target.size = self._daemon.grow(size, size)
        return size


class Qcow2File:
    def __init__(
        self,
        source: Seekable,
        header: qcow2_header.Header,
        algorithm: str | None,
        pool: Pool,
        daemon: Daemon,
    ) -> None:
        self._algorithm = algorithm
        self._pool = pool
        self._daemon = daemon
        self._image = qcow2.read(source, header)
        self.info = ImageInfo(detect.QCOW2, header.size, self._image.allocated)

    def write(self, target: Target) -> Outcome:
        source = self._image.source
        digest = FileDigest(self._algorithm, source, self._pool)
        _convert_qcow2(self._image, target, self._pool, self._daemon.report)
        return Outcome(self._image.header.size, digest.value(self._daemon.report))


class Qcow2Stream:
    """Refused by its header at once; the rest is checked when all of it is in the spool."""

    def __init__(
        self,
        source: Stream,
        header: qcow2_header.Header,
        algorithm: str | None,
        pool: Pool,
        daemon: Daemon,
    ) -> None:
        self._source = source
        self._header = header
        self._algorithm = algorithm
        self._pool = pool
        self._daemon = daemon
        self.info = ImageInfo(detect.QCOW2, header.size, None)

    def write(self, target: Target) -> Outcome:
        digest = Digest(self._algorithm, self._pool)
        spooled = self._spool(digest)
        _convert_qcow2(qcow2.read(spooled, self._header), target, self._pool, self._daemon.report)
        return Outcome(self._header.size, digest.value())

    def _spool(self, digest: Digest) -> Seekable:
        spool = Target(self._daemon.open_spool(), 0, is_zero=True)
        meter = Meter(Phase.DOWNLOADING, self._source.length or 0, self._daemon.report)
        size = raw.convert_stream(
            self._source, spool, self._pool, meter, digest, lambda wanted, _: wanted
        )
        meter.finish()
        os.ftruncate(spool.fd, size)
        return Seekable(spool.fd, size)


def _convert_qcow2(
    image: qcow2.Image, target: Target, pool: Pool, report: Callable[[Progress], None]
) -> None:
    meter = Meter(Phase.CONVERTING, image.source.size, report)
    qcow2.convert(image, target, pool, meter)
    meter.finish()
    target.zero(image.header.size, target.size - image.header.size)
