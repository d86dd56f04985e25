"""Copies between two ends that are doubles of ZFS's: one that never ends, one that fails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import cast

import pytest

from mvirt_zfs_dbus.errors import Error, NoSpace
from mvirt_zfs_dbus.store.openzfs.kernel import Kernel
from mvirt_zfs_dbus.store.openzfs.stream import Copier

PIECE = 65536


class EndlessStream:
    """Sends zeros until the other end is closed."""

    pool = "tank"

    def __init__(self) -> None:
        self.enough = False
        self.received = 0

    async def run(self, work: Callable[..., int], *arguments: object) -> int:
        return work(*arguments)

    def send_size(self, _snapshot: str) -> int:
        return 1 << 40

    def send(self, _snapshot: str, fd: int) -> None:
        try:
            while not self.enough:
                os.write(fd, bytes(PIECE))
        except BrokenPipeError as error:
            raise Error("sending: EPIPE") from error

    def receive(self, _snapshot: str, fd: int, _properties: object) -> None:
        while piece := os.read(fd, PIECE):
            self.received += len(piece)
        raise Error("receiving: incomplete stream")


class FullPool(EndlessStream):
    def receive(self, _snapshot: str, fd: int, _properties: object) -> None:
        os.read(fd, PIECE)
        raise NoSpace("receiving: ENOSPC")


def copy(kernel: EndlessStream, progress: Callable[[int, int], None]) -> asyncio.Task[None]:
    copier = Copier(cast(Kernel, kernel))
    return asyncio.create_task(copier.copy("tank/1@one", "tank/2@two", {}, progress))


async def test_a_cancelled_copy_ends_though_its_stream_does_not() -> None:
    kernel = EndlessStream()
    under_way = asyncio.Event()
    copying = copy(kernel, lambda done, _total: under_way.set() if done else None)
    try:
        await under_way.wait()
        copying.cancel()
        await asyncio.wait([copying], timeout=30)
        assert copying.cancelled()
        assert kernel.received
    finally:
        kernel.enough = True
        await asyncio.wait([copying])


async def test_of_both_ends_failures_the_first_is_told() -> None:
    with pytest.raises(NoSpace):
        await copy(FullPool(), lambda *_: None)
