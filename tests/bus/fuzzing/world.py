"""The real service for a test that is not asynchronous itself, as hypothesis' machines are not."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from busdaemon import BusDaemon
from service.process import Client, ServiceProcess, client_on

from mvirt_zfs_dbus import errors

T = TypeVar("T")


class World:
    """A bus, the service on it and a client, in an event loop of their own."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "disks"
        self.directory.mkdir()
        self.bus = BusDaemon(folder)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._resources = AsyncExitStack()
        self.client: Client
        self.service: ServiceProcess
        self.run(self._start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def outcome(self, work: Coroutine[Any, Any, T]) -> tuple[T | None, str]:
        """The result, or the last part of the error's name."""
        try:
            return self.run(work), ""
        except errors.Error as error:
            return None, error.name.rpartition(".")[2]

    async def _start(self) -> None:
        self.client = await self._resources.enter_async_context(client_on(self.bus.address))
        self.service = ServiceProcess(self.bus.address, self.directory)
        await self.service.start(self.client.connection)

    async def restart(self, number: signal.Signals) -> None:
        """End it in this way, and start it again."""
        await self.service.stop(number)
        await self.service.start(self.client.connection)

    def close(self) -> None:
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.bus.stop()

    async def _stop(self) -> None:
        await self.service.stop()
        await self._resources.aclose()
