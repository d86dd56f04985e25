"""The stores the contract suite runs on, and what the tests do to them from outside.

A test knows the ``Store`` protocol and this file's ``StoreBackend``, and nothing of any one store.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from mvirt_zfs_dbus.store.base import Store
from mvirt_zfs_dbus.store.directory import DirectoryStore
from mvirt_zfs_dbus.store.zfs import ZfsStore

STORES = os.environ.get("MVIRT_TEST_STORES", "directory directory-xfs directory-btrfs").split()
"""Which of ``BACKENDS`` to run on: ``MVIRT_TEST_STORES=zfs pytest tests/contract``."""


class StoreBackend(ABC):
    """A pool that is this test's own, and empty at first."""

    @abstractmethod
    def store(self) -> Store:
        """A store on the pool, not started. Called again for what a restarted service sees."""

    @abstractmethod
    def store_without_pool(self) -> Store:
        """A store whose pool does not exist."""

    @abstractmethod
    async def remove_behind(self, dataset_id: str) -> None:
        """Destroy a dataset without snapshots as an administrator would, past the store."""

    @abstractmethod
    async def add_stranger(self, dataset_id: str) -> None:
        """Make something of that name in the pool that is not of the store's making."""

    @abstractmethod
    async def stranger_exists(self, dataset_id: str) -> bool: ...

    @abstractmethod
    async def settle(self) -> None:
        """Wait until usage counters tell what was written."""

    @abstractmethod
    def close(self) -> None:
        """Take the pool away."""

    def write(self, device: str, offset: int, data: bytes) -> None:
        """As a guest would: through the device, and synced."""
        with self._open(device, os.O_RDWR) as fd:
            os.pwrite(fd, data, offset)
            os.fsync(fd)

    def read(self, device: str, offset: int, length: int) -> bytes:
        with self._open(device, os.O_RDONLY) as fd:
            return os.pread(fd, length, offset)

    def device_size(self, device: str) -> int:
        with self._open(device, os.O_RDONLY) as fd:
            return os.lseek(fd, 0, os.SEEK_END)

    @asynccontextmanager
    async def held_open(self, device: str) -> AsyncIterator[int]:
        """Another process has the device open; the answer is its pid."""
        holder = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import sys; held = open(sys.argv[1], 'r+b'); print('open', flush=True); input()",
            device,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert holder.stdin is not None and holder.stdout is not None
        try:
            assert await holder.stdout.readline() == b"open\n"
            yield holder.pid
        finally:
            await holder.communicate(b"\n")

    @contextmanager
    def _open(self, device: str, flags: int) -> Iterator[int]:
        fd = os.open(device, flags)
        try:
            yield fd
        finally:
            os.close(fd)


class DirectoryBackend(StoreBackend):
    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700)

    def store(self) -> Store:
        return DirectoryStore(self.path)

    def store_without_pool(self) -> Store:
        return DirectoryStore(self.path / "missing")

    async def remove_behind(self, dataset_id: str) -> None:
        for file in self.path.glob(f"{dataset_id}.*"):
            file.unlink()

    async def add_stranger(self, dataset_id: str) -> None:
        (self.path / f"{dataset_id}.raw").write_bytes(b"a stranger's")

    async def stranger_exists(self, dataset_id: str) -> bool:
        return (self.path / f"{dataset_id}.raw").read_bytes() == b"a stranger's"

    async def settle(self) -> None:
        """Files tell at once."""

    def close(self) -> None:
        """Whoever gave the path clears it away."""


class ZfsBackend(StoreBackend):
    """A dataset of its own in a real pool, which takes a kernel with ZFS and root."""

    def __init__(self, root: str, runtime_directory: Path) -> None:
        self.root = root
        self._runtime_directory = runtime_directory
        # As docs/administrator.md has it made; tests/machine has a root that nobody prepared.
        self._zfs("create", "-o", "mountpoint=none", "-o", "volmode=dev", root)

    def store(self) -> Store:
        return ZfsStore(self.root, runtime_directory=self._runtime_directory)

    def store_without_pool(self) -> Store:
        return ZfsStore(f"{self.root}/missing", runtime_directory=self._runtime_directory)

    async def remove_behind(self, dataset_id: str) -> None:
        subprocess.run(["udevadm", "settle"], check=True)  # it looks into what was just made
        self._zfs("destroy", f"{self.root}/{dataset_id}")

    async def add_stranger(self, dataset_id: str) -> None:
        self._zfs("create", "-s", "-V", "1M", f"{self.root}/{dataset_id}")

    async def stranger_exists(self, dataset_id: str) -> bool:
        return f"{self.root}/{dataset_id}" in self._zfs("list", "-H", "-o", "name", "-r", self.root)

    async def settle(self) -> None:
        subprocess.run(["zpool", "sync", self.root.partition("/")[0]], check=True)

    def read(self, device: str, offset: int, length: int) -> bytes:
        """A template has no device: what is in it is read through a clone of its ``@img``."""
        if Path(device).exists():
            return super().read(device, offset, length)
        template = device.removeprefix("/dev/zvol/")
        clone = f"{self.root}-reader"
        self._zfs("clone", f"{template}@img", clone)
        try:
            subprocess.run(["udevadm", "settle"], check=True)
            return super().read(f"/dev/zvol/{clone}", offset, length)
        finally:
            subprocess.run(["udevadm", "settle"], check=True)
            self._zfs("destroy", clone)

    @asynccontextmanager
    async def held_open(self, device: str) -> AsyncIterator[int]:
        """A template has no device until an administrator asks for one."""
        dataset = device.removeprefix("/dev/zvol/")
        hidden = self._zfs("get", "-H", "-o", "value", "volmode", dataset) == ["none"]
        if hidden:
            self._zfs("set", "volmode=dev", dataset)
            subprocess.run(["udevadm", "wait", device], check=True)
        async with super().held_open(device) as pid:
            yield pid
        if hidden:
            self._zfs("set", "volmode=none", dataset)

    def close(self) -> None:
        subprocess.run(["udevadm", "settle"], check=True)
        self._zfs("destroy", "-R", self.root)

    @staticmethod
    def _zfs(*arguments: str) -> list[str]:
        done = subprocess.run(["zfs", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, f"zfs {' '.join(arguments)}: {done.stderr}"
        return done.stdout.splitlines()


def _in_a_pool(request: pytest.FixtureRequest) -> StoreBackend:
    tests_own: Path = request.getfixturevalue("tmp_path")
    pool = os.environ.get("MVIRT_TEST_POOL", "tank")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")  # each has a tmp_path of this name
    return ZfsBackend(f"{pool}/{worker}{tests_own.name.replace('_', '-')}", tests_own / "run")


def _on_plain_files(request: pytest.FixtureRequest) -> StoreBackend:
    path: Path = request.getfixturevalue("tmp_path")
    return DirectoryBackend(path / "pool")


def _mounted(fixture: str) -> Callable[[pytest.FixtureRequest], StoreBackend]:
    def make(request: pytest.FixtureRequest) -> StoreBackend:
        mount: Path = request.getfixturevalue(fixture)
        tests_own: Path = request.getfixturevalue("tmp_path")
        return DirectoryBackend(mount / tests_own.name)

    return make


BACKENDS: dict[str, Callable[[pytest.FixtureRequest], StoreBackend]] = {
    "directory": _on_plain_files,
    "directory-xfs": _mounted("xfs"),
    "directory-btrfs": _mounted("btrfs"),
    "zfs": _in_a_pool,
}


@contextmanager
def loop_mount(directory: Path, size: int, *mkfs: str) -> Iterator[Path]:
    """A file system of its own in a file. Skips the test where this machine cannot have it."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system takes root")
    image, mount = directory / "image", directory / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    _run_or_skip(*mkfs, str(image))
    _run_or_skip("mount", "-o", "loop", str(image), str(mount))
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def _run_or_skip(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{' '.join(command)}: {error.stderr.strip()}")
