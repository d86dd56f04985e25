"""What has to be true before a pool is served."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path
from typing import Final

from ...errors import PoolUnavailable
from . import programs, zpool
from .kernel import Kernel

_MODULE: Final = Path("/sys/module/zfs")

_LONGEST: Final = 255 - len(f"/{uuid.UUID(int=0)}@{uuid.UUID(int=0)}")
"""Bytes of a dataset's name: ZFS_MAX_DATASET_NAME_LEN, without what comes after it."""


async def check_root(kernel: Kernel) -> None:
    """PoolUnavailable: the pool is not imported or not usable, or has no such dataset."""
    if len(kernel.root.encode()) > _LONGEST:
        raise PoolUnavailable(
            f"the name {kernel.root} is longer than {_LONGEST} bytes: it leaves no room for the"
            " names of volumes and their snapshots"
        )
    if not _MODULE.exists():
        raise PoolUnavailable("the kernel has no ZFS: modprobe zfs loads it where it is installed")
    health = zpool.health(kernel.pool)
    if health == zpool.UNAVAILABLE:
        raise PoolUnavailable(f"there is no pool {kernel.pool}; zpool import brings one in")
    if health in zpool.LOST:
        raise PoolUnavailable(f"pool {kernel.pool} is {health}")
    if not await kernel.exists(kernel.root):
        raise PoolUnavailable(
            f"there is no dataset {kernel.root}; zfs create -o mountpoint=none -o"
            f" volmode=dev {kernel.root} makes it"
        )
    found = await kernel.read(programs.PROPERTY, dataset=kernel.root, property="keystatus")
    if found.get(b"value") == b"unavailable":
        raise PoolUnavailable(f"{kernel.root} is encrypted; zfs load-key unlocks it")


def lock(directory: Path, pool: str) -> int:
    """A descriptor that keeps other services away from the pool as long as it is open."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / f"{pool.replace('/', '%')}.lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise PoolUnavailable(
            f"{directory} cannot be used: {error.strerror}; run as root"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise PoolUnavailable(f"another service has pool {pool} open") from error
    return fd
