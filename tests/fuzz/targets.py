"""What is fuzzed: each target takes any bytes, and fails only where the product does.

An error of ours is the right answer to most input. Anything else that is raised, and a disk that is
not what the reference reader (``reference.py``) or qemu-img makes of the same image, is a fault.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from mvirt_zfs_dbus.errors import CorruptImage, Error, InvalidSize, UnsafeImage, UnsupportedImage
from mvirt_zfs_dbus.image import convert, detect, qcow2_header, unpack
from mvirt_zfs_dbus.image.base import Progress
from mvirt_zfs_dbus.image.pool import Pool
from mvirt_zfs_dbus.image.source import CHUNK, Seekable, Stream
from mvirt_zfs_dbus.image.writer import Target

from . import reference, shaped

LARGEST = 4 << 20
"""Bytes of a disk that is written; of a larger one the tables are read only."""
_SAMPLE = 512
"""One of so many accepted images is compared with qemu-img, too, which takes 20 ms."""

unpack.FREE = LARGEST  # what may be a bomb is one sooner
_pool = Pool(1)


class Worker:
    """In place of the daemon, what a converter asks for."""

    def __init__(self, files: ExitStack) -> None:
        self._files = files
        self.target = self.open_memory()

    def report(self, progress: Progress) -> None:
        pass

    def grow(self, size: int, least: int) -> int:
        if least > LARGEST:
            raise InvalidSize(f"{least} bytes are too many for a fuzzer")
        os.truncate(self.target, least)
        return least

    def open_memory(self) -> int:
        fd = os.memfd_create("fuzz")
        self._files.callback(os.close, fd)
        return fd

    open_spool = open_memory

    def start_program(self) -> None:
        raise UnsupportedImage("no qemu-img is started")


class Dribble(Stream):
    """Bytes that come in pieces whose sizes depend on them."""

    def __init__(self, data: bytes) -> None:
        super().__init__(-1)
        self._data = memoryview(data)
        self._state = zlib.crc32(data)

    def _read(self, length: int) -> bytes:
        self._state = (self._state * 1103515245 + 12345) & 0x7FFFFFFF
        size = 1 + (self._state >> 8) % (1 << (self._state % 17))
        piece = bytes(self._data[: min(size, length)])
        self._data = self._data[len(piece) :]
        return piece

    def _raw_chunks(self) -> Iterator[bytes]:
        """Not gathered to a MiB, as those of a real pipe are."""
        head, self._head = self._head, b""
        if head:
            yield head
        while piece := self._read(CHUNK):
            yield piece


def qcow2(data: bytes) -> None:
    """A qcow2 image, read from a file and in one pass."""
    from_file = disk_of(data, "qcow2", _as_file)
    in_one_pass = disk_of(data, "qcow2", _as_stream)
    if in_one_pass is None:  # too large, and so not looked at
        return
    if isinstance(in_one_pass, CorruptImage) and "overlap" in in_one_pass.message:
        return  # only one pass minds compressed clusters that begin in the middle of others
    if isinstance(from_file, Error) or isinstance(in_one_pass, Error):
        # One pass finds the same faults, if in another order.
        assert isinstance(from_file, Error) and isinstance(in_one_pass, Error), (
            f"from a file: {_told(from_file)}; in one pass: {_told(in_one_pass)}"
        )
        return
    assert from_file == in_one_pass, "a file and one pass give different disks"
    assert from_file == reference.qcow2_disk(data), "the disk is not what is in the image"
    if zlib.crc32(data) % _SAMPLE == 0:
        compare_with_qemu_img(data, from_file)


def tables(data: bytes) -> None:
    """The same with a header that is right, and tables that point to something."""
    qcow2(shaped.image(data))


def header(data: bytes) -> None:
    """The first bytes of a qcow2 image."""
    try:
        found = qcow2_header.parse(data)
    except Error:
        return
    assert found.size <= found.l1_entries * found.table_span
    assert found.l1_entries * 8 <= 32 << 20


def formats(data: bytes) -> None:
    """Anything: what is it, and what is in it? qemu-img is not asked."""
    for source in (_as_file, _as_stream):
        disk_of(data, "auto", source)


def packed(data: bytes) -> None:
    """Something packed by gzip, xz, zstd or bzip2."""
    name = unpack.packing(data)
    if name is None:
        assert detect.packing("auto", data) is None
        return
    expected = reference.unpacked(data, name) if len(data) < 1 << 17 else None
    try:
        output = b"".join(unpack.unpacked(Dribble(data).chunks(), name))
    except (UnsafeImage, UnsupportedImage):
        return
    except Error as error:
        assert expected is None, f"sound {name} data is refused: {error}"
        return
    assert expected is not None, f"damaged {name} data is taken"
    assert output == expected, f"{name} data is unpacked to something else"
    assert unpack.peek(Dribble(data), name) == output[: unpack.HEAD]


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "qcow2": qcow2,
    "tables": tables,
    "header": header,
    "formats": formats,
    "packed": packed,
}


def disk_of(
    data: bytes, image_format: str, source: Callable[[bytes, ExitStack], Seekable | Stream]
) -> bytes | Error | None:
    """The disk in an image, or why there is none; None if it is too large to be written."""
    with ExitStack() as files:
        worker = Worker(files)
        files.callback(_pool.abandon)
        try:
            image = convert.understand(source(data, files), image_format, None, _pool, worker)
            size = image.info.virtual_size
            if size is not None and size > LARGEST:
                return None
            used = bool(zlib.crc32(data) & 1)  # whether the target holds something already
            os.truncate(worker.target, size or 0)
            if used:
                os.pwrite(worker.target, b"\xa5" * (size or 0), 0)
            target = Target(worker.target, size or 0, is_zero=not used)
            outcome = image.write(target)
            target.sync()
        except Error as error:
            return error
        assert os.fstat(worker.target).st_size == outcome.size
        return os.pread(worker.target, outcome.size, 0)


def compare_with_qemu_img(image: bytes, disk: bytes) -> None:
    """An image that qemu-img takes as well has the same disk for it."""
    with tempfile.TemporaryDirectory() as folder:
        source, raw = Path(folder, "image"), Path(folder, "raw")
        source.write_bytes(image)
        words = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", source, raw]
        if subprocess.run(words, capture_output=True, timeout=60).returncode == 0:
            sectors = len(disk) - len(disk) % 512  # qemu-img leaves off half a sector
            assert raw.read_bytes()[:sectors] == disk[:sectors], "qemu-img finds another disk in it"


def _as_file(data: bytes, files: ExitStack) -> Seekable:
    fd = os.memfd_create("image")
    files.callback(os.close, fd)
    os.write(fd, data)
    return Seekable(fd, len(data))


def _as_stream(data: bytes, _: ExitStack) -> Stream:
    return Dribble(data)


def _told(result: bytes | Error | None) -> str:
    return f"{type(result).__name__} {result}" if isinstance(result, Error) else "accepted"
