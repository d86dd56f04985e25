"""Paths whose parts somebody swaps while they are opened: the secret is never read."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mvirt_zfs_dbus.core import sources
from mvirt_zfs_dbus.errors import AccessDenied, InvalidArgs, NotFound

TRIES = 10_000
SWAPPER = """
import ctypes, os, sys

libc = ctypes.CDLL(None)

def exchange(one, other):
    libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2)  # RENAME_EXCHANGE

def move(one, other):
    os.rename(one, other)
    os.rename(other, one)

print(flush=True)
while True:
    {how}(*sys.argv[1:])
"""


@contextmanager
def swapping(how: str, one: Path, other: Path) -> Iterator[None]:
    """Exchange or move, all the time, in another process."""
    swapper = subprocess.Popen(
        [sys.executable, "-c", SWAPPER.format(how=how), one, other], stdout=subprocess.PIPE
    )
    assert swapper.stdout
    with swapper:
        swapper.stdout.readline()
        try:
            yield
        finally:
            swapper.kill()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder images/ with in/disk, and beside it out/disk with the secret."""
    for name, content in (("images/in", b"public"), ("out", b"secret")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "disk").write_bytes(content)
    return tmp_path / "images"


def read_often(path: str, images: Path) -> tuple[int, int]:
    """How often it could be read, and how often it was refused."""
    read = refused = 0
    for _ in range(TRIES):
        try:
            fd = sources.open_path_now(path, [images], False)
        except (AccessDenied, InvalidArgs, NotFound):
            refused += 1
            continue
        assert os.read(fd, 100) == b"public"
        os.close(fd)
        read += 1
    return read, refused


def test_a_link_swapped_for_one_that_leads_out_never_does(images: Path) -> None:
    (images / "link").symlink_to("in/disk")
    (images / "evil").symlink_to(images.parent / "out" / "disk")
    with swapping("exchange", images / "link", images / "evil"):
        read, refused = read_often(f"{images}/link", images)
    assert read and refused


def test_a_folder_swapped_for_a_link_that_leads_out_is_never_left(images: Path) -> None:
    (images / "evil").symlink_to("../out")
    with swapping("exchange", images / "in", images / "evil"):
        read, refused = read_often(f"{images}/in/disk", images)
    assert read and refused


def test_a_folder_moved_out_while_it_is_walked_back_leads_nowhere(images: Path) -> None:
    """``in/..`` of a folder that is somewhere else by now would be somewhere else, too."""
    (images / "a").mkdir()
    (images / "a" / "in").symlink_to("../in/../in")
    with swapping("move", images / "in", images.parent / "moved"):
        read, refused = read_often(f"{images}/a/in/disk", images)
    assert read and refused


def test_a_file_swapped_for_a_fifo_or_a_device_never_hangs(images: Path) -> None:
    os.mkfifo(images / "fifo")
    with swapping("exchange", images / "in" / "disk", images / "fifo"):
        read, refused = read_often(f"{images}/in/disk", images)
    assert read and refused


@pytest.mark.parametrize(
    "path",
    [
        "/proc/self/environ",
        "/proc/self/mem",
        "/proc/self/fd/0",
        "/proc/self/root/etc/hostname",
        "/proc/version",
        "/proc/cmdline",
        "/dev/fd/0",
        "/dev/stdin",
        "/sys/kernel/notes",
    ],
)
def test_the_kernels_own_files_are_no_images_wherever_paths_may_lie(path: str) -> None:
    for directories in (None, [Path("/")], [Path("/proc"), Path("/dev"), Path("/sys")]):
        with pytest.raises((AccessDenied, InvalidArgs)):
            sources.open_path_now(path, directories, True)


def test_a_link_to_the_kernels_files_is_no_way_to_them(images: Path) -> None:
    (images / "link").symlink_to("/proc/self/environ")
    with pytest.raises(AccessDenied, match="in proc"):
        sources.open_path_now(f"{images}/link", None, False)


@pytest.fixture
def block_device(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.write_bytes(b"disk" * 1024)
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        found = subprocess.run(
            ["losetup", "--find", "--show", disk], check=True, capture_output=True, text=True
        )
        yield Path(found.stdout.strip())
        subprocess.run(["losetup", "--detach", found.stdout.strip()], check=True)
        return
    pytest.skip("needs root and loop devices")


def test_a_block_device_is_read_where_that_was_chosen(block_device: Path) -> None:
    for directories in (None, [Path("/dev")]):
        with pytest.raises(AccessDenied, match="import-block-devices"):
            sources.open_path_now(str(block_device), directories, False)
        fd = sources.open_path_now(str(block_device), directories, True)
        assert os.read(fd, 4) == b"disk"
        os.close(fd)
