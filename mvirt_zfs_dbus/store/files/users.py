"""Who holds a file or a block device open, from proc(5) and sysfs. Blocking; for threads."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ...model import User

KERNEL: Final = 0
"""The pid of a user that is no process."""


Identity = tuple[int, ...]


def users_of(file: os.stat_result) -> list[User]:
    """The processes that hold a regular file or a block device open, this one not counted.

    What the kernel holds counts as pid 0: a loop device, a device mapper table, a mount. No process
    has the disk open then, but what is above it would lose it. Processes of others are seen by root
    only.
    """
    wanted = _identity(file)
    if not wanted:
        return []
    found = [User(pid, _command(pid)) for pid in _processes() if _has_open(pid, wanted)]
    names = [*_loop_devices(wanted)]
    if stat.S_ISBLK(file.st_mode):
        number = f"{os.major(file.st_rdev)}:{os.minor(file.st_rdev)}"
        names += [*_stacked_devices(number), *_mounts(number)]
    return found + [User(KERNEL, name) for name in names]


def _identity(file: os.stat_result) -> Identity:
    """What two paths to the same disk have in common; empty for what is no disk."""
    if stat.S_ISBLK(file.st_mode):
        return (file.st_rdev,)
    return (file.st_dev, file.st_ino) if stat.S_ISREG(file.st_mode) else ()


def _processes() -> Iterator[int]:
    own = os.getpid()
    for name in os.listdir("/proc"):  # noqa: PTH208 (a tenth of the time of iterdir)
        if name.isdecimal() and int(name) != own:
            yield int(name)


def _has_open(pid: int, wanted: Identity) -> bool:
    try:
        with os.scandir(f"/proc/{pid}/fd") as descriptors:
            return any(_is(entry, wanted) for entry in descriptors)
    except OSError:  # it ended, or is not ours to look into
        return False


def _is(entry: os.DirEntry[str], wanted: Identity) -> bool:
    try:
        found = entry.stat()
    except OSError:  # closed meanwhile
        return False
    return _identity(found) == wanted


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "?"


def _loop_devices(wanted: Identity) -> Iterator[str]:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found = Path(backing.read_text().rstrip("\n")).stat()
        except (OSError, ValueError):  # detached meanwhile, or in another mount namespace
            continue
        if _identity(found) == wanted:
            yield backing.parent.parent.name


def _stacked_devices(number: str) -> Iterator[str]:
    """The device mapper and MD devices on a block device, by their names where they have one."""
    with suppress(OSError):
        for holder in Path(f"/sys/dev/block/{number}/holders").iterdir():
            name = holder / "dm" / "name"
            yield name.read_text().strip() if name.exists() else holder.name


def _mounts(number: str) -> Iterator[str]:
    """Where a block device is mounted; proc(5), /proc/pid/mountinfo: the third and fifth field."""
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        fields = line.split(" ")
        if fields[2] == number:
            yield f"the mount on {fields[4]}"
