"""Imports on file systems that share extents, and have their own ways with O_DIRECT."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mvirt_zfs_dbus.image.base import Progress
from mvirt_zfs_dbus.image.convert import Daemon, understand
from mvirt_zfs_dbus.image.pool import Pool
from mvirt_zfs_dbus.image.source import open_source
from mvirt_zfs_dbus.image.writer import Target

from . import qemu
from .inprocess import import_file

MIB = 1 << 20
DATA = 32 * MIB


@pytest.fixture(
    scope="module",
    params=[["mkfs.xfs", "-q", "-m", "reflink=1"], ["mkfs.btrfs", "-q"]],
    ids=["xfs", "btrfs"],
)
def mount(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a file system takes root")
    directory = tmp_path_factory.mktemp("file-system")
    image, mount = directory / "image", directory / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(512 * MIB)
    for command in ([*request.param, str(image)], ["mount", "-o", "loop", str(image), str(mount)]):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            pytest.skip(f"{command[0]}: {getattr(error, 'stderr', error)}")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.fixture
def raw(mount: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 64 MiB, a half of it data, on the file system that the target is on too."""
    monkeypatch.setattr(tempfile, "tempdir", str(mount))
    path = mount / "disk.raw"
    with path.open("wb") as file:
        file.truncate(2 * DATA)
        file.seek(MIB)
        file.write(os.urandom(DATA))
    yield path
    path.unlink()


def used(mount: Path) -> int:
    os.sync()
    found = os.statvfs(mount)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


class Quiet(Daemon):
    """A daemon that is told the progress, and has nothing else to do."""

    def __init__(self) -> None:
        pass

    def report(self, _progress: Progress) -> None:
        pass


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_disk_shares_the_data_of_an_image_beside_it(mount, raw, format):
    image = raw
    if format == "qcow2":
        image = mount / "disk.qcow2"
        qemu.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    pool, before = Pool(2), used(mount)
    try:
        with image.open("rb") as source, (mount / "target").open("w+b") as file:
            file.truncate(2 * DATA)
            target = Target(file.fileno(), 2 * DATA, is_zero=True)
            understand(open_source(source.fileno()), "auto", None, pool, Quiet()).write(target)
            target.sync()
        assert (mount / "target").read_bytes() == raw.read_bytes()
        assert used(mount) - before < 2 * MIB
    finally:
        pool.close()
        (mount / "target").unlink()


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_compressed_images_are_written_bit_for_bit(mount, raw, compression):
    image = mount / "disk.qcow2"
    options = f"compression_type={compression}"
    qemu.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, image)
    try:
        result = import_file(image)
        assert result.disk == raw.read_bytes()
        assert result.allocated <= DATA + 2 * MIB
    finally:
        image.unlink()
