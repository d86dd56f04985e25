"""VMDK, VHDX, VDI and VHD: looked at by us, read by qemu-img.

Looked at first, since qemu-img takes a file cut in half, a map that points outside of it or a part
of a disk, and answers zeros. A source that cannot seek is spooled whole before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from ..errors import CorruptImage, Truncated, UnsafeImage
from ..model import Phase
from . import detect, qemu_img, raw, vdi, vhd, vhdx, vmdk
from .base import ImageInfo, Outcome, Progress
from .digest import Digest
from .incoming import Incoming
from .meter import Meter
from .pool import Pool
from .rest import Rest
from .source import HEAD, Seekable
from .writer import Target

_LAST_LOOK: Final = 1 << 30
"""Bytes of a stream that have to hold what the disk is; most tell at once, a VHDX after 1 MiB."""
_SPARE: Final = 1 << 30
"""Bytes an image may have beyond its disk and an eighth of that, for its maps."""


class Daemon(qemu_img.Daemon, Protocol):
    """What is asked of the daemon."""

    def report(self, progress: Progress) -> None: ...
    def open_spool(self) -> int: ...


class _Format(NamedTuple):
    virtual_size: Callable[[Seekable], int]
    allocated: Callable[[Seekable], int]


FORMATS: Final[Mapping[str, _Format]] = {
    detect.VMDK: _Format(vmdk.virtual_size, vmdk.allocated),
    detect.VHDX: _Format(vhdx.virtual_size, vhdx.allocated),
    detect.VDI: _Format(vdi.virtual_size, vdi.allocated),
    detect.VPC: _Format(vhd.virtual_size, vhd.allocated),
}


def open_file(
    source: Seekable, image_format: str, pool: Pool, daemon: Daemon
) -> FixedVhd | Foreign:
    """UnsafeImage, UnsupportedImage, CorruptImage, Truncated."""
    if image_format == detect.VPC and not source.head(len(vhd.COOKIE)).startswith(vhd.COOKIE):
        return FixedVhd(source, pool, daemon)
    return Foreign(source, image_format, None, pool, daemon)


def open_stream(
    source: Incoming, image_format: str, algorithm: str | None, pool: Pool, daemon: Daemon
) -> Foreign:
    """Spool the source, and open that. Errors as above."""
    digest = Digest(algorithm, pool)
    meter = Meter(source.phase, source.stored_length or 0, daemon.report)
    rest = Rest(daemon.open_memory(), daemon.open_spool, pool)
    spooled = _spool(source.chunks(digest, meter), image_format, rest)
    meter.finish()
    return Foreign(spooled, image_format, digest.value(), pool, daemon)


def _spool(chunks: Iterable[bytes], image_format: str, rest: Rest) -> Seekable:
    """All of the stream. What speaks against the image ends it as soon as it has come.

    UnsafeImage: more comes than the image's disk can need.
    """
    size, look, limit = 0, HEAD, 0
    for chunk in chunks:
        rest.keep(size, chunk)
        size += len(chunk)
        if size >= look and not limit:
            try:
                disk = FORMATS[image_format].virtual_size(rest.source(size))
            except Truncated:
                if size >= _LAST_LOOK:
                    raise
                look *= 2
            else:
                limit = disk + disk // 8 + _SPARE
        if limit and size > limit:
            raise UnsafeImage(
                f"more than {limit} bytes come for a disk that cannot need them: they are no"
                f" {image_format} image alone"
            )
    return rest.source(size)


class Foreign:
    """An image that qemu-img reads."""

    def __init__(
        self,
        source: Seekable,
        image_format: str,
        digest: str | None,
        pool: Pool,
        daemon: Daemon,
    ) -> None:
        found = FORMATS[image_format]
        size = found.virtual_size(source)
        self.info = ImageInfo(image_format, size, found.allocated(source))
        said = qemu_img.inspect(image_format, source, daemon, pool)
        if said != size:
            raise CorruptImage(
                f"the {image_format} image tells two sizes of its disk: {size} and {said} bytes"
            )
        self._source = source
        self._digest = digest
        self._pool = pool
        self._daemon = daemon

    def write(self, target: Target) -> Outcome:
        size = self.info.virtual_size
        assert size is not None
        meter = Meter(Phase.CONVERTING, self._source.size, self._daemon.report)
        qemu_img.convert(
            self.info.format, self._source, size, target, self._daemon, self._pool, meter
        )
        self._source.check_size()
        meter.finish()
        target.zero(size, target.size - size)
        return Outcome(size, self._digest)


class FixedVhd:
    """A disk's own bytes, and a footer after them: nothing that takes qemu-img."""

    def __init__(self, source: Seekable, pool: Pool, daemon: Daemon) -> None:
        footer = source.read(max(source.size - vhd.FOOTER, 0), min(vhd.FOOTER, source.size))
        self._disk = Seekable(source.fd, vhd.fixed_size(footer, source.size))
        self._source = source
        self._pool = pool
        self._daemon = daemon
        self.info = ImageInfo(detect.VPC, self._disk.size, raw.allocated(self._disk))

    def write(self, target: Target) -> Outcome:
        disk = self._disk
        meter = Meter(Phase.WRITING, self._source.size, self._daemon.report)
        raw.convert_file(disk, target, self._pool, meter)
        meter.finish()
        target.zero(disk.size, target.size - disk.size)
        return Outcome(disk.size, None)
