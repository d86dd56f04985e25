"""The device node of a zvol: where it is, waiting for it, whether it is the right one.

``/dev/zvol/DATASET`` is a link that udev makes (60-zvol.rules) after the kernel made the disk, and
changes after a rename. Until then it is absent or leads to another disk, so that it is believed
only when the disk itself says which dataset it is.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ...errors import DeviceBusy, DeviceTimeout, Error
from ...model import User
from ..files import users
from ..files.inotify import DirectoryWatch

_log = logging.getLogger(__name__)

WAIT = 30.0
"""Seconds that udev is given for a link."""

_AGAIN: Final = (5.0, 15.0)
"""Seconds after which udev is told again, see :func:`wait_for_device`."""

_LOOK_AGAIN: Final = 1.0
"""Seconds after which the link is looked at even without an event, should one have been lost."""

_SCANNERS: Final = frozenset({"(udev-worker)", "systemd-udevd", "zvol_id"})
"""udev, and the program by which its rules ask a zvol for its name (60-zvol.rules)."""

_PAUSE: Final = 0.1

_BLKZNAME: Final = 0x8100127D
"""``_IOR(0x12, 125, char[256])``, sys/fs/zfs.h: the dataset a zvol belongs to."""
_NAME_LENGTH: Final = 256

_UDEV_DATABASE: Final = Path("/run/udev/data")
_UDEV_QUEUE: Final = Path("/run/udev/queue")

_ERESTARTSYS: Final = 512
"""What opening a zvol gives while the kernel is at a pool for over a second, as in an import of any
other (zvol_open, zvol_os.c, from Linux 5.13 on): "later". It has no name in errno."""
_NOT_READY: Final = frozenset(
    {errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTBLK, errno.EBUSY, _ERESTARTSYS}
)


def device_path(dataset: str) -> str:
    """Where udev links the device; zvol_id writes a blank, as a pool's name may have, as ``+``."""
    return f"/dev/zvol/{dataset.replace(' ', '+')}"


async def wait_for_device(dataset: str, again: Callable[[], Awaitable[None]] | None = None) -> str:
    """The path of the dataset's device, once it is there and is this dataset's. DeviceTimeout.

    ``again`` makes the kernel tell udev of the disk once more; it is called when udev should long
    be through with it. udev lets alone what it cannot open, and so may be through for good.
    """
    path = device_path(dataset)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for seconds in (*(_AGAIN if again else ()), WAIT):
        if not await wait_for_devices([dataset], seconds=began + min(seconds, WAIT) - loop.time()):
            return path
        if again and seconds < WAIT:
            _log.warning("%s has not appeared after %g s: udev is told again", path, seconds)
            await again()
    raise DeviceTimeout(f"{path} did not appear within {WAIT:g} s; is udev running?")


def udev_is_busy() -> bool:
    """Whether it has something left to do (sd_device_monitor; ``udevadm settle`` looks there)."""
    return _UDEV_QUEUE.exists()


async def _yes(_dataset: str) -> bool:
    return True


async def wait_for_devices(
    datasets: Iterable[str],
    still_there: Callable[[str], Awaitable[bool]] = _yes,
    *,
    seconds: float | None = None,
) -> set[str]:
    """Wait for the devices of all of them; the answer is what has none after ``seconds``, which are
    ``WAIT`` unless told otherwise.

    A dataset that is not ``still_there`` any more is not waited for.
    """
    missing = set(datasets)
    with _udev_events() as events, suppress(TimeoutError):
        async with asyncio.timeout(WAIT if seconds is None else seconds):
            while missing := missing - await _with_device(missing):
                missing = {dataset for dataset in missing if await still_there(dataset)}
                if missing:
                    await _next(events)
    return missing


async def _with_device(datasets: set[str]) -> set[str]:
    """Without a link there is none, which is soon seen; udev may be at many others before."""
    linked = list(filter(_is_linked, datasets))
    if not linked:
        return set()
    return set(await asyncio.to_thread(lambda: list(filter(_has_device, linked))))


def _is_linked(dataset: str) -> bool:
    return os.path.lexists(device_path(dataset))


def _has_device(dataset: str) -> bool:
    try:
        return is_device_of(device_path(dataset), dataset)
    except OSError as error:  # a failing disk must not hide the others
        _log.warning("%s cannot be opened: %s", device_path(dataset), error.strerror)
        return False


async def wait_until_gone(dataset: str, timeout: float) -> bool:
    """Whether the dataset's device goes within ``timeout`` seconds."""
    path = device_path(dataset)
    with _udev_events() as events:
        try:
            async with asyncio.timeout(timeout):
                while await asyncio.to_thread(Path(path).exists):
                    await _next(events)
        except TimeoutError:
            return False
    return True


async def open_device(dataset: str, patience: float) -> int:
    """The dataset's device, readable and writable, and claimed: nobody can mount it meanwhile.

    ``O_EXCL`` on a block device keeps out every other user that asks for it exclusively: file
    systems, device mapper and LVM, MD (open(2)). DeviceBusy when one of them has it longer than
    ``patience`` seconds.
    """
    path = await wait_for_device(dataset)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        try:
            fd = await asyncio.to_thread(os.open, path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
            break
        except OSError as error:
            if error.errno not in _NOT_READY:
                raise Error(f"{path} cannot be opened for writing: {error.strerror}") from error
            if loop.time() > deadline:
                raise DeviceBusy(
                    f"{path} cannot be opened: {error.strerror}; it is held by"
                    f" {await asyncio.to_thread(holder_of, dataset) or 'something unknown'}"
                ) from error
        await asyncio.sleep(_PAUSE)
    if _dataset_of(fd) != dataset:
        os.close(fd)
        raise DeviceTimeout(f"{path} turned into another dataset's device while it was opened")
    return fd


def is_device_of(path: str, dataset: str) -> bool:
    """Whether the path leads to the block device of this very dataset."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NOT_READY:
            return False
        raise
    try:
        return stat.S_ISBLK(os.fstat(fd).st_mode) and _dataset_of(fd) == dataset
    finally:
        os.close(fd)


def users_of(dataset: str) -> list[User]:
    """Who uses the dataset's device; what the kernel does with it counts as pid 0.

    udev has a look at every disk that was just made or written, which is no use of it.
    """
    return [user for user in _openers(dataset) if user.command not in _SCANNERS]


def holder_of(dataset: str) -> str:
    """Who has the device open, in words for an error message; empty when it cannot be told."""
    try:
        openers = _openers(dataset)
    except DeviceBusy:
        return ""
    return ", ".join(
        f"{user.command} (pid {user.pid})" if user.pid else user.command for user in openers
    )


def _openers(dataset: str) -> list[User]:
    try:
        status = Path(device_path(dataset)).stat()
    except OSError:
        return []
    return users.users_of(status)


def _dataset_of(fd: int) -> str:
    """What ZFS says the open disk is; empty when it is no zvol."""
    name = bytearray(_NAME_LENGTH)
    try:
        fcntl.ioctl(fd, _BLKZNAME, name)
    except OSError:
        return ""
    return os.fsdecode(bytes(name).partition(b"\0")[0])


@contextmanager
def _udev_events() -> Iterator[asyncio.Event]:
    """Set whenever udev is through with a device, its links included.

    udev then writes, or removes, what it knows of it (systemd-udevd.service(8), /run/udev). That
    can be watched without a netlink socket, which the service's unit does not allow it.
    """
    seen = asyncio.Event()
    try:
        watch = DirectoryWatch(_UDEV_DATABASE, seen.set)
    except OSError:  # no udev has ever run here
        yield seen
        return
    try:
        yield seen
    finally:
        watch.close()


async def _next(events: asyncio.Event) -> None:
    """Return when udev has finished something, or after a while; the caller looks what it was."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LOOK_AGAIN):
            await events.wait()
    events.clear()
