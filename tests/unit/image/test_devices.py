"""Block devices, as source and as target: loop devices over files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mvirt_zfs_dbus.image.source import Seekable, open_source
from mvirt_zfs_dbus.image.writer import Target

from .builder import Qcow2, deflate
from .inprocess import import_file

SIZE = 4 << 20


@pytest.fixture
def device(tmp_path):
    """A block device of 4 MiB full of old data."""
    backing = tmp_path / "backing"
    backing.write_bytes(b"o" * SIZE)
    attached = subprocess.run(
        ["losetup", "--find", "--show", backing], capture_output=True, text=True, check=False
    )
    if attached.returncode:
        pytest.skip(f"no loop devices here: {attached.stderr.strip()}")
    path = Path(attached.stdout.strip())
    yield path
    subprocess.run(["losetup", "--detach", path], check=True)


def test_a_block_device_is_a_source_with_a_size(device):
    fd = os.open(device, os.O_RDONLY)
    try:
        source = open_source(fd)
        assert isinstance(source, Seekable)
        assert source.size == SIZE
    finally:
        os.close(fd)
    result = import_file(device, algorithm="sha256")
    assert result.info.virtual_size == SIZE
    assert result.disk == b"o" * SIZE


def test_a_block_device_that_held_data_reads_as_the_image_afterwards(device):
    fd = os.open(device, os.O_RDWR)
    try:
        target = Target(fd, SIZE, is_zero=False)
        target.write(b"x" * 8192 + bytes(65536) + b"y" * 512, 4096)
        target.zero(1 << 20, 1 << 20)
        target.sync()
    finally:
        os.close(fd)
    expected = bytearray(b"o" * SIZE)
    expected[4096 : 4096 + 8192 + 65536 + 512] = b"x" * 8192 + bytes(65536) + b"y" * 512
    expected[1 << 20 : 2 << 20] = bytes(1 << 20)
    assert device.read_bytes() == bytes(expected)


def test_nothing_is_copied_inside_the_kernel_to_a_block_device(device, tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 8192)
    fd = os.open(device, os.O_RDWR)
    try:
        with (tmp_path / "source").open() as source:
            assert not Target(fd, SIZE, is_zero=True).copy(source.fileno(), 0, 0, 8192)
    finally:
        os.close(fd)


def test_a_qcow2_image_on_a_block_device_is_read(device):
    image = Qcow2(size=1 << 20).data(0, b"x" * 4096).packed(5, deflate(b"y" * 4096)).build()
    with device.open("r+b") as file:
        file.write(image)
    disk = import_file(device).disk
    assert disk == b"x" * 4096 + bytes(16384) + b"y" * 4096 + bytes((1 << 20) - 24576)


def test_plain_clusters_reach_a_target_the_kernel_cannot_copy_to(tmp_path, monkeypatch):
    """A double of the one answer copy_file_range(2) gives for a zvol."""
    monkeypatch.setattr(Target, "copy", lambda *_: False)
    (tmp_path / "image").write_bytes(Qcow2(size=8192).data(1, b"x" * 4096).build())
    assert import_file(tmp_path / "image").disk == bytes(4096) + b"x" * 4096
