"""Who holds a file or a block device open, from proc(5) and sysfs. Blocking; for threads.

To look at what a process has open is to ask the file system it is on, and that of a dead NFS server
never answers: so it is looked for in a thread of its own, and for a while only.
"""

from __future__ import annotations

import os
import queue
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ...errors import DeviceBusy
from ...model import User

KERNEL: Final = 0
"""The pid of a user that is no process."""
PATIENCE: Final = 10.0
"""Seconds; a look at ten thousand open files takes a tenth of one."""
_MOST_HUNG: Final = 4
"""Looks that may hang at a time."""

Identity = tuple[int, ...]


def users_of(file: os.stat_result) -> list[User]:
    """The processes that hold a regular file or a block device open, this one not counted.

    What the kernel holds counts as pid 0: a loop device, a device mapper table, a mount. No process
    has the disk open then, but what is above it would lose it. Processes of others are seen by root
    only. DeviceBusy: it cannot be told, because some process's file system does not answer.
    """
    wanted = _identity(file)
    if not wanted:
        return []
    if not _free.acquire(timeout=PATIENCE):
        raise DeviceBusy(_UNTOLD)
    answer: queue.SimpleQueue[list[User] | Exception] = queue.SimpleQueue()
    threading.Thread(target=_look, args=(file, wanted, answer), name="users", daemon=True).start()
    try:
        found = answer.get(timeout=PATIENCE)
    except queue.Empty:
        raise DeviceBusy(_UNTOLD) from None
    if isinstance(found, Exception):
        raise found
    return found


_free: Final = threading.BoundedSemaphore(_MOST_HUNG)
_UNTOLD: Final = (
    "it cannot be told who has the disk open: some process has a file open on a file system that"
    " does not answer"
)


def _look(
    file: os.stat_result, wanted: Identity, answer: queue.SimpleQueue[list[User] | Exception]
) -> None:
    try:
        answer.put(_users(file, wanted))
    except Exception as error:
        answer.put(error)
    finally:
        _free.release()


def _users(file: os.stat_result, wanted: Identity) -> list[User]:
    opened = ((pid, _command(pid)) for pid in _processes() if _has_open(pid, wanted))
    found = [User(pid, command) for pid, command in opened if command is not None]
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


def _command(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):  # it ended, and so has nothing open
        return None
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
