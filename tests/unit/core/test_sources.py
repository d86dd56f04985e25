"""What a path or a passed descriptor may be, and what leads out of an import directory."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from open_fds import open_fds

from mvirt_zfs_dbus.core import sources
from mvirt_zfs_dbus.errors import AccessDenied, InvalidArgs, NotFound


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "disk.raw").write_bytes(b"disk")
    (tmp_path / "secret").write_bytes(b"secret")
    return folder


@pytest.fixture
def no_fd_leaks() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


def read(path: Path, images: Path) -> bytes:
    fd = sources.open_path_now(str(path), [images], False)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def test_a_file_below_an_import_directory_is_read(images: Path, no_fd_leaks: None) -> None:
    assert read(images / "sub" / "disk.raw", images) == b"disk"


def test_a_link_that_stays_below_is_followed(images: Path, no_fd_leaks: None) -> None:
    (images / "link").symlink_to("sub/disk.raw")
    assert read(images / "link", images) == b"disk"


@pytest.mark.parametrize("target", ["../secret", "{root}/secret", "/proc/self/root{root}/secret"])
def test_a_link_that_leads_out_is_refused(images: Path, target: str, no_fd_leaks: None) -> None:
    (images / "link").symlink_to(target.format(root=images.parent))
    with pytest.raises(AccessDenied, match="link"):
        sources.open_path_now(str(images / "link"), [images], False)


def test_a_path_that_climbs_out_is_refused(images: Path, no_fd_leaks: None) -> None:
    with pytest.raises(AccessDenied, match="leads out"):
        sources.open_path_now(f"{images}/../secret", [images], False)


def test_a_folder_link_swapped_in_for_a_folder_is_refused(images: Path, no_fd_leaks: None) -> None:
    (images / "swapped").symlink_to(images.parent)
    with pytest.raises(AccessDenied):
        sources.open_path_now(str(images / "swapped" / "secret"), [images], False)


def test_a_path_elsewhere_is_refused_with_the_way_out(images: Path, no_fd_leaks: None) -> None:
    with pytest.raises(AccessDenied, match="import-directories"):
        sources.open_path_now("/etc/shadow", [images], False)
    with pytest.raises(AccessDenied):
        sources.open_path_now(f"{images}-evil/x", [images], False)


def test_without_import_directories_any_readable_path_is_read(
    images: Path, no_fd_leaks: None
) -> None:
    fd = sources.open_path_now(str(images.parent / "secret"), None, False)
    assert os.read(fd, 10) == b"secret"
    os.close(fd)


@pytest.mark.parametrize("directories", [True, False])
def test_what_is_no_file_is_refused_at_once(
    images: Path, directories: bool, no_fd_leaks: None
) -> None:
    below = [images] if directories else None
    os.mkfifo(images / "fifo")
    with pytest.raises(InvalidArgs, match="fifo"):
        sources.open_path_now(str(images / "fifo"), below, False)
    with pytest.raises(InvalidArgs, match="sub"):
        sources.open_path_now(str(images / "sub"), below, False)
    with pytest.raises(NotFound, match="absent"):
        sources.open_path_now(str(images / "absent"), below, False)


async def test_a_descriptor_to_read_from_is_taken(images: Path) -> None:
    reader, writer = os.pipe()
    left, right = socket.socketpair()
    with (images / "sub" / "disk.raw").open("rb") as file, left, right:
        for fd in (reader, left.fileno(), file.fileno()):
            await sources.check_fd(fd)
    os.close(reader)
    os.close(writer)


async def test_a_descriptor_that_cannot_be_read_is_refused(images: Path) -> None:
    reader, writer = os.pipe()
    with (images / "out").open("wb") as file:
        for fd in (writer, file.fileno()):
            with pytest.raises(InvalidArgs, match="file descriptor"):
                await sources.check_fd(fd)
    place = os.open(images / "out", os.O_PATH)
    with pytest.raises(InvalidArgs, match="file descriptor"):
        await sources.check_fd(place)
    os.close(place)
    folder = os.open(images, os.O_RDONLY)
    with pytest.raises(InvalidArgs, match="file descriptor"):
        await sources.check_fd(folder)
    for fd in (reader, writer, folder):
        os.close(fd)
