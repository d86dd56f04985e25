"""ZFS in the kernel, as libzfs_core reaches it, with types and this service's errors.

The binding has neither types nor a stub; what it takes and gives stays in this module. Names are
bytes to it, enumerated properties are integers, and its exceptions carry an errno. All calls block:
they run in threads, a bounded number at a time (cffi lets go of the interpreter's lock meanwhile).
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from ...errors import AlreadyExists, DeviceBusy, Error, NoSpace, NotFound, PoolUnavailable
from . import programs, zpool
from .programs import INSTRUCTION_LIMIT, MEMORY_LIMIT, Outcome
from .properties import Properties

T = TypeVar("T")

Step = Callable[[str], None]
"""Called before each change with what it is going to be: a test stops there."""

_THREADS: Final = 8

_WHOLE: Final = None
"""The earlier snapshot of an incremental stream: none."""
_AS_STORED: Final = ["large_blocks", "embedded_data", "compress"]
"""Send blocks as they are on disk, neither cut up nor decompressed."""
_NOT_FORCED: Final = False
_NOT_RAW: Final = False
_NO_ORIGIN: Final = None

_FIRST_OF_ZFS: Final = 1024
"""Errnos of ZFS's own begin here (zfs_errno_t)."""

_ERRORS: Final[Mapping[int, type[Error]]] = {
    errno.ENOENT: NotFound,
    errno.EEXIST: AlreadyExists,
    errno.EBUSY: DeviceBusy,
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.EIO: PoolUnavailable,
    errno.ENXIO: PoolUnavailable,
    errno.EROFS: PoolUnavailable,
    errno.EACCES: PoolUnavailable,  # encrypted, and its key is not loaded
    errno.EAGAIN: PoolUnavailable,
}
"""What each errno of a ZFS ioctl means to a caller; any other is a fault of this service."""


_LIMITS: Final = frozenset({errno.ENOSPC, errno.ETIME, errno.ENOMEM})
"""Errnos of a program that reached a limit (zfs_ioc_channel_program: memory, instructions)."""


class ProgramFailed(Error):
    """A channel program broke off. ``dataset`` is what it could not read, where it says so."""

    def __init__(self, what: str, details: str) -> None:
        super().__init__(f"{what}: the channel program failed: {details}")
        found = _CULPRIT.search(details)
        self.dataset = found[1] if found else ""


class TooMuch(ProgramFailed):
    """It reached the limit of its memory or of its instructions."""


_CULPRIT: Final = re.compile(r"dataset '([^']+)'")
"""In the messages of zcp_handle_error and zcp_dataset_hold_error."""


def no_step(_what: str) -> None:
    """Nothing stands between the steps of the product."""


def error_of(number: int, what: str, pool: str) -> Error:
    """The error for an errno. A pool that is lost explains every other failure."""
    health = zpool.health(pool)
    if health in zpool.LOST:
        return PoolUnavailable(f"{what}: pool {pool} is {health}")
    reason = errno.errorcode.get(number, str(number))
    kind = _ERRORS.get(number, Error)
    hint = f"; zfs list -o space -r {pool} tells where it went" if kind is NoSpace else ""
    return kind(f"{what}: ZFS answers {reason} ({_text(number)}){hint}")


class Kernel:
    """What this service asks of one pool. ``what`` is the change in words, for messages."""

    def __init__(self, binding: Any, root: str, step: Step = no_step) -> None:
        self.root = root
        self.pool = zpool.pool_of(root)
        self.step = step
        self.touched: Callable[[str], None] = lambda _dataset: None
        """Called after each change with the dataset or snapshot that it was of."""
        self._lzc = binding
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="zfs")

    def close(self) -> None:
        """Wait for what is under way, unless the pool keeps it from ever ending. Blocking."""
        wait = zpool.health(self.pool) not in zpool.LOST
        self._threads.shutdown(wait=wait, cancel_futures=True)

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Anything that blocks, in one of the threads."""
        call = partial(work, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    # Reading

    async def read(self, program: str, **arguments: object) -> Mapping[bytes, Any]:
        """What a reading program answers. PoolUnavailable."""
        return await self.run(self._program, "reading the pool", program, arguments, False)

    async def exists(self, dataset: str) -> bool:
        return bool(await self.run(self._lzc.lzc_exists, dataset.encode()))

    async def bookmarks(self, dataset: str) -> dict[str, int]:
        """Their full names, each with the transaction group its snapshot was taken in."""
        call = ("reading the bookmarks of", dataset, "lzc_get_bookmarks")
        found = await self.run(self._call, *call, dataset.encode(), [b"createtxg"])
        return {
            f"{dataset}#{name.decode()}": properties[b"createtxg"][b"value"]
            for name, properties in found.items()
        }

    # Changing

    async def change(self, what: str, program: str, **arguments: object) -> Outcome:
        """Run a program that changes something; a refusal is the caller's to explain."""
        try:
            answer = await self.run(self._program, what, program, arguments, True)
        finally:
            for name in _datasets(arguments):
                self.touched(name)
        outcome = programs.outcome(answer)
        if outcome.errno:
            raise error_of(outcome.errno, what, self.pool)
        return outcome

    async def create(self, dataset: str, kind: str, properties: Properties) -> None:
        """A ``zvol`` or a ``zfs`` (a file system) with its properties. AlreadyExists."""
        await self._change("create", dataset, "lzc_create", dataset.encode(), kind, properties)

    async def clone(self, dataset: str, origin: str, properties: Properties) -> None:
        await self._change(
            "clone", dataset, "lzc_clone", dataset.encode(), origin.encode(), properties
        )

    async def snapshot(self, name: str, properties: Properties) -> None:
        """A snapshot and its properties, in one transaction group."""
        await self._change("snapshot", name, "lzc_snapshot", [name.encode()], properties)

    async def rename(self, dataset: str, to: str) -> None:
        try:
            await self._change("rename", dataset, "lzc_rename", dataset.encode(), to.encode())
        finally:
            self.touched(to)

    async def destroy(self, dataset: str) -> None:
        await self._change("destroy", dataset, "lzc_destroy", dataset.encode())

    async def destroy_snapshot(self, name: str) -> None:
        await self._change("destroy", name, "lzc_destroy_snaps", [name.encode()], False)

    async def set(self, dataset: str, **values: str) -> None:
        """Native properties of a dataset that exists, by zfs(8)."""
        self.step(f"set {', '.join(values)} of {dataset}")
        try:
            await zpool.set_properties(dataset, values)
        finally:
            self.touched(dataset)

    # The two ends of a copy; each occupies its thread until the stream ends

    def send(self, snapshot: str, fd: int) -> None:
        self._call("sending", snapshot, "lzc_send", snapshot.encode(), _WHOLE, fd, _AS_STORED)

    def send_size(self, snapshot: str) -> int:
        """About how many bytes :meth:`send` will write."""
        arguments = (snapshot.encode(), _WHOLE, _AS_STORED)
        size: int = self._call("measuring", snapshot, "lzc_send_space", *arguments)
        return size

    def receive(self, snapshot: str, fd: int, properties: Properties) -> None:
        self.step(f"receive {snapshot}")
        self._call(
            "receiving",
            snapshot,
            "lzc_receive",
            snapshot.encode(),
            fd,
            False,
            False,
            None,
            properties,
        )

    # Inside

    async def _change(self, what: str, dataset: str, function: str, *arguments: object) -> None:
        def work() -> None:
            self.step(f"{what} {dataset}")
            self._call(what, dataset, function, *arguments)

        try:
            await self.run(work)
        finally:
            self.touched(dataset)

    def _call(self, what: str, dataset: str, function: str, *arguments: object) -> Any:
        try:
            return getattr(self._lzc, function)(*arguments)
        except self._lzc.exceptions.ZFSError as error:
            raise error_of(error.errno or 0, f"{what} {dataset}", self.pool) from error

    def _program(
        self, what: str, program: str, arguments: Mapping[str, object], changing: bool
    ) -> Mapping[bytes, Any]:
        if changing:
            self.step(what)
        run = self._lzc.lzc_channel_program if changing else self._lzc.lzc_channel_program_nosync
        self._check_health(what)
        try:
            answer: Mapping[bytes, Any] = run(
                self.pool.encode(),
                program.encode(),
                INSTRUCTION_LIMIT,
                MEMORY_LIMIT,
                _arguments(arguments),
            )
        except self._lzc.exceptions.ZCPError as error:
            details = getattr(error, "details", None) or str(error).encode()
            failed = TooMuch if error.errno in _LIMITS else ProgramFailed
            raise failed(what, details.decode(errors="replace")) from error
        except self._lzc.exceptions.ZFSError as error:
            raise error_of(error.errno or 0, what, self.pool) from error
        return answer

    def _check_health(self, what: str) -> None:
        """A call into a suspended pool would not come back before somebody clears it."""
        health = zpool.health(self.pool)
        if health in zpool.LOST:
            raise PoolUnavailable(f"{what}: pool {self.pool} is {health}")


def _datasets(arguments: Mapping[str, object]) -> Iterator[str]:
    """What a program was told to change, by the names our programs give it."""
    for key in ("dataset", "snapshot"):
        if isinstance(name := arguments.get(key), str):
            yield name
    if isinstance(listed := arguments.get("names"), list):
        yield from listed


def _arguments(values: Mapping[str, object]) -> dict[bytes, object]:
    """Arguments as the binding takes them: bytes for text, a numbered table for a list."""
    return {key.encode(): _argument(value) for key, value in values.items()}


def _argument(value: object) -> object:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict):
        return {_argument(key): _argument(item) for key, item in value.items()}
    if isinstance(value, list):
        return {b"%d" % number: _argument(item) for number, item in enumerate(value, 1)}
    return value


def _text(number: int) -> str:
    return os.strerror(number) if number < _FIRST_OF_ZFS else "zfs_errno_t, sys/fs/zfs.h"
