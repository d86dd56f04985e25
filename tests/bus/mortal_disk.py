"""A disk that dies: ext4 on a loop device whose file begins to refuse every write.

It is a real one as far as the file system can tell: reads go on, writes are EIO, and what was not
synced by then is lost. Root alone can mount.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SEAL_FUTURE_WRITE = 0x10  # F_SEAL_FUTURE_WRITE, fcntl(2); the loop driver makes its EPERM EIO
SIZE = 64 * 2**20


class MortalDisk:
    def __init__(self, mount: Path) -> None:
        self.mount = mount
        self._file = _memory()
        subprocess.run(["mkfs.ext4", "-q", "-F", _path(self._file)], check=True)
        self._insert()
        (mount / "lost+found").rmdir()

    def die(self) -> None:
        """No write reaches it any more."""
        fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, _SEAL_FUTURE_WRITE)

    def revive(self) -> None:
        """A disk that works has what this one had at its death. Nobody may have files open."""
        self.remove()
        copy = _memory()
        os.pwrite(copy, os.pread(self._file, SIZE, 0), 0)
        os.close(self._file)
        self._file = copy
        self._insert()

    def remove(self) -> None:
        _run("umount", str(self.mount))

    def _insert(self) -> None:
        device = _run("losetup", "--find", "--show", _path(self._file))
        try:
            _run("mount", "-t", "ext4", device, str(self.mount))
        finally:
            _run("losetup", "--detach", device)  # while it is mounted, once it no longer is


def _memory() -> int:
    file = os.memfd_create("disk", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(file, SIZE)
    return file


def _path(file: int) -> str:
    return f"/proc/{os.getpid()}/fd/{file}"


def _run(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@contextmanager
def mortal_disk(mount: Path) -> Iterator[MortalDisk]:
    if os.geteuid() != 0:
        pytest.skip("mounting a file system takes root")
    mount.mkdir()
    try:
        disk = MortalDisk(mount)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no ext4 on a loop device: {getattr(error, 'stderr', error)}")
    try:
        yield disk
    finally:
        disk.remove()
