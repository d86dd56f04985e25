"""The directory under the directory store: its files, and every step that changes one.

Layout: ``KEY.raw`` is a disk and ``KEY.json`` its record, where the key is a dataset's UUID or, for
a snapshot, ``UUID@UUID``; ``.tmp/`` holds what is half-made. Nothing else in the directory is ours.

All is done relative to the open directory and never through a symbolic link. Blocking; for threads.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Final

from ...errors import NoSpace, PoolUnavailable
from .owning import PRIVATE_DIRECTORY, own

RAW: Final = ".raw"
RECORD: Final = ".json"
TEMPORARY: Final = ".tmp"
MAX_RECORD: Final = 1024 * 1024
"""Bytes of a record; labels have 6 KiB at most, and a URL seldom has more."""

SECTOR: Final = 512
"""The unit of ``st_blocks``, whatever the file system's block size: stat(2)."""

WRITABLE: Final = 0o600
IMMUTABLE: Final = 0o400


def _no_step(_what: str) -> None:
    """Nothing stands between the steps of the product."""


class Folder:
    """``step`` is called before each change with what it is going to be: a test stops there."""

    def __init__(self, path: Path, step: Callable[[str], None] = _no_step) -> None:
        self.path = path
        self._step = step
        self._lock = RLock()
        self._fd = -1
        self._temporary = -1

    # Life

    def open(self) -> None:
        """Lock the directory for this service. PoolUnavailable says why it cannot be had."""
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise PoolUnavailable(
                f"{self.path} cannot be opened: {error.strerror}; it has to be a directory"
            ) from error
        try:
            own(self._fd, self.path)
            self._temporary = self._open_temporary()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for fd in (self._temporary, self._fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._temporary = -1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Nobody else reads or changes records meanwhile. PoolUnavailable: it is gone."""
        with self._lock:
            self._check()
            yield

    def _check(self) -> None:
        """The directory that was opened has to be at its path still."""
        try:
            found = self.path.stat()
        except OSError as error:
            raise PoolUnavailable(f"{self.path} is gone: {error.strerror}") from error
        if not os.path.samestat(found, os.fstat(self._fd)):
            raise PoolUnavailable(
                f"{self.path} is another directory than the one this service opened"
            )

    def _open_temporary(self) -> int:
        with suppress(FileExistsError):
            os.mkdir(TEMPORARY, PRIVATE_DIRECTORY, dir_fd=self._fd)
        try:
            return os.open(TEMPORARY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._fd)
        except OSError as error:
            raise PoolUnavailable(
                f"{self.path / TEMPORARY} cannot be opened: {error.strerror}; it has to be a"
                " directory, or absent"
            ) from error

    # Reading

    def device(self, key: str) -> str:
        return str(self.path / (key + RAW))

    def files(self) -> Iterator[tuple[str, str, os.stat_result]]:
        """The key, suffix and status of each regular file that is named as ours are."""
        with _listing(self._fd) as entries:
            for entry in entries:
                key, dot, suffix = entry.name.rpartition(".")
                if dot + suffix not in (RAW, RECORD):
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield key, dot + suffix, status

    def exists(self, key: str) -> bool:
        """Whether anything at all has one of the names of this key's files."""
        return any(self._status(key + suffix) is not None for suffix in (RAW, RECORD))

    def raw_status(self, key: str) -> os.stat_result | None:
        """The status of a raw file; None where there is none, or something else in its place."""
        return self._file_status(key + RAW)

    def record_status(self, key: str) -> os.stat_result | None:
        """The same of a record."""
        return self._file_status(key + RECORD)

    def read_record(self, key: str) -> bytes:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(key + RECORD, flags, dir_fd=self._fd), "rb") as file:
            return file.read(MAX_RECORD)

    @contextmanager
    def reading(self, key: str) -> Iterator[int]:
        """A raw file, open for reading: it stays whole for this reader whatever happens to it."""
        fd = os.open(key + RAW, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._fd)
        try:
            yield fd
        finally:
            os.close(fd)

    def open_raw(self, key: str) -> int:
        """A raw file's descriptor for reading and writing; the caller closes it."""
        return os.open(key + RAW, os.O_RDWR | os.O_NOFOLLOW, dir_fd=self._fd)

    def space(self) -> os.statvfs_result:
        return os.statvfs(self._fd)

    def _file_status(self, name: str) -> os.stat_result | None:
        status = self._status(name)
        return status if status is not None and stat.S_ISREG(status.st_mode) else None

    def _status(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    # Changing

    def write_record(self, key: str, data: bytes) -> None:
        """Replace a record in one step that a crash leaves either done or undone."""
        name = key + RECORD
        self._step(f"write {TEMPORARY}/{name}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(name, flags, WRITABLE, dir_fd=self._temporary), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._step(f"rename {TEMPORARY}/{name} to {name}")
            os.rename(name, name, src_dir_fd=self._temporary, dst_dir_fd=self._fd)
        except OSError:
            self._remove(name, self._temporary)
            raise
        os.fsync(self._fd)

    def create_raw(self, key: str) -> int:
        """A new empty raw file; the caller closes it."""
        return self._create(key + RAW, self._fd)

    def create_draft(self, key: str) -> int:
        """A raw file that is to replace one (:meth:`publish_draft`); the caller closes it."""
        self.remove_draft(key)
        return self._create(key + RAW, self._temporary)

    def publish_draft(self, key: str) -> None:
        name = key + RAW
        self._step(f"rename {TEMPORARY}/{name} to {name}")
        os.rename(name, name, src_dir_fd=self._temporary, dst_dir_fd=self._fd)
        os.fsync(self._fd)

    def remove_draft(self, key: str) -> None:
        self._remove(key + RAW, self._temporary)

    def set_size(self, fd: int, size: int, *, thin: bool) -> None:
        """Give an open raw file a size, with all its space if it is not thin. NoSpace.

        The space comes after the size: a crash between the two has reserved too little, which harms
        nobody, where the other order could leave any size.
        """
        before = os.fstat(fd).st_size
        self._step("set the size of a raw file")
        os.ftruncate(fd, size)
        try:
            if not thin and size > 0:
                self._reserve(fd, size)
            os.fsync(fd)
        except (NoSpace, OSError):
            os.ftruncate(fd, before)
            raise

    def _reserve(self, fd: int, size: int) -> None:
        """Ask first: posix_fallocate(3) may take all there is before it finds it is too little."""
        missing = size - os.fstat(fd).st_blocks * SECTOR
        space = self.space()
        available = space.f_bavail * space.f_frsize
        if missing > available:
            raise NoSpace(
                f"{missing} bytes are to be reserved and {self.path} has {available} available;"
                " a thin volume reserves none"
            )
        os.posix_fallocate(fd, 0, size)

    def seal(self, key: str) -> None:
        """Nobody writes to what others are cloned from."""
        self._step(f"make {key}{RAW} immutable")
        with self.reading(key) as fd:
            os.fchmod(fd, IMMUTABLE)

    def remove(self, keys: list[str]) -> None:
        """Remove datasets and snapshots. Each record outlives its raw file, and so tells what a
        file is for as long as it exists."""
        for suffix in (RAW, RECORD):
            for key in keys:
                self._remove(key + suffix, self._fd)
            os.fsync(self._fd)

    def spool(self) -> int:
        """The descriptor of an unnamed temporary file; the caller closes it."""
        try:
            return os.open(".", os.O_RDWR | os.O_TMPFILE, WRITABLE, dir_fd=self._temporary)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
        name = f"spool-{os.urandom(8).hex()}"
        fd = self._create(name, self._temporary)
        self._remove(name, self._temporary)
        return fd

    def clean_temporary(self) -> None:
        """Remove what a crash left half-made."""
        with _listing(self._temporary) as entries:
            names = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
        for name in names:
            self._remove(name, self._temporary)

    def _create(self, name: str, directory: int) -> int:
        self._step(f"create {name}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return os.open(name, flags, WRITABLE, dir_fd=directory)

    def _remove(self, name: str, directory: int) -> None:
        self._step(f"unlink {name}")
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)


@contextmanager
def _listing(directory: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """The entries of an open directory. It is opened once more for them: an open directory of btrfs
    lists only what was there when it was opened or last rewound."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
    try:
        with os.scandir(fd) as entries:
            yield entries
    finally:
        os.close(fd)
