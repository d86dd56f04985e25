"""A file that is written into while it is imported: its checksum is of what became the disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import pytest

from mvirt_zfs_dbus.image.source import Seekable

from . import qemu
from .inprocess import import_fd

DATA = bytes(range(1, 129)) * 8192
"""A MiB with no zeros."""


class Changing:
    """Its data are other ones after each time that some of them were read."""

    def __init__(self, fd: int, image: bytes) -> None:
        self.fd = fd
        self.image = image
        self.start = image.index(DATA)
        self.reads = 0

    def was_read(self, fd: int, offset: int, length: int) -> None:
        is_it = os.path.samestat(os.fstat(fd), os.fstat(self.fd))
        if is_it and offset < self.start + len(DATA) and offset + length > self.start:
            self.reads += 1
            os.pwrite(self.fd, bytes([128 + self.reads % 128]) * len(DATA), self.start)

    def with_data(self, data: bytes) -> bytes:
        return self.image[: self.start] + data + self.image[self.start + len(DATA) :]


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("raw", ""),
        ("qcow2", "cluster_size=65536"),
        ("qcow2", "cluster_size=4096"),
        ("vdi", ""),
        ("vmdk", ""),
        ("vhdx", ""),
        ("vpc", "subformat=fixed"),
        ("vpc", "subformat=dynamic"),
    ],
)
def test_a_checksum_is_of_the_bytes_that_became_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_format: str, options: str
) -> None:
    raw, image = tmp_path / "disk", tmp_path / "image"
    raw.write_bytes(DATA + bytes(1 << 20))
    more = ["-o", options] if options else []
    qemu.run("qemu-img", "convert", "-f", "raw", "-O", image_format, *more, raw, image)
    with tempfile.TemporaryFile() as file:
        file.write(image.read_bytes())
        file.flush()
        changing = Changing(file.fileno(), image.read_bytes())
        _watch(monkeypatch, changing)
        result = import_fd(file.fileno(), algorithm="sha256")
    assert changing.reads
    assert result.done
    claimed = changing.with_data(result.disk[: len(DATA)])
    assert result.done.digest == hashlib.sha256(claimed).hexdigest()


def _watch(monkeypatch: pytest.MonkeyPatch, changing: Changing) -> None:
    read_up_to, read_into = Seekable.read_up_to, Seekable.read_into

    def watched_read_up_to(self: Seekable, offset: int, length: int) -> bytes:
        data = read_up_to(self, offset, length)
        changing.was_read(self.fd, offset, len(data))
        return data

    def watched_read_into(self: Seekable, offset: int, view: memoryview) -> None:
        read_into(self, offset, view)
        changing.was_read(self.fd, offset, len(view))

    monkeypatch.setattr(Seekable, "read_up_to", watched_read_up_to)
    monkeypatch.setattr(Seekable, "read_into", watched_read_into)
