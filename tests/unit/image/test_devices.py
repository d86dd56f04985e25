"""Block devices, as source and as target: loop devices over files."""

from __future__ import annotations

import fcntl
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


def test_a_block_device_shares_nothing_with_a_file(device, tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 8192)
    fd = os.open(device, os.O_RDWR)
    try:
        with (tmp_path / "source").open() as source:
            assert not Target(fd, SIZE, is_zero=True).clone(source.fileno(), 0, 0, 8192)
    finally:
        os.close(fd)


def test_a_qcow2_image_on_a_block_device_is_read(device):
    image = Qcow2(size=1 << 20).data(0, b"x" * 4096).packed(5, deflate(b"y" * 4096)).build()
    with device.open("r+b") as file:
        file.write(image)
    disk = import_file(device).disk
    assert disk == b"x" * 4096 + bytes(16384) + b"y" * 4096 + bytes((1 << 20) - 24576)


def test_a_block_device_is_written_past_the_page_cache(device):
    data = os.urandom(1 << 20) + bytes(1 << 20) + os.urandom(4096)
    with device.open("r+b", buffering=0) as file:
        file.write(bytes(SIZE))
        target = Target(file.fileno(), SIZE, is_zero=True)
        target.begin_direct()
        assert fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & os.O_DIRECT
        target.write(data, 8192)
        target.sync()
    assert device.read_bytes() == bytes(8192) + data + bytes(SIZE - 8192 - len(data))
