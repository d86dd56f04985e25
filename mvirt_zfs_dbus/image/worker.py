"""The worker processes that imports run in. One ``Workers`` belongs to the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from ..hosts import ANY_HOST, HostRules
from . import program
from .base import Progress, Source, UrlSource
from .children import Child, ForkServer
from .conversion import Conversion

STALL_TIMEOUT: Final = 60.0
"""Seconds a download may go without a byte."""


class Workers:
    """The fork server, and every worker forked from it."""

    def __init__(self, *, stall_timeout: float = STALL_TIMEOUT) -> None:
        self._stall_timeout = stall_timeout
        self._server: ForkServer | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start the fork server, so that the first import need not wait for it. Error."""
        await self._running_server()

    async def close(self) -> None:
        """End the fork server and kill what is left of its workers."""
        async with self._starting:
            if self._server:
                await self._server.close()
            self._server = None

    @asynccontextmanager
    async def convert(
        self,
        source: Source,
        *,
        image_format: str,
        checksum_algorithm: str | None,
        hosts: HostRules = ANY_HOST,
        open_spool: Callable[[], Awaitable[int]],
        progress: Callable[[Progress], None],
    ) -> AsyncIterator[Conversion]:
        """The workers for one import; they are dead when the context is left, however it is.

        ``image_format`` is one of ``rules.IMAGE_FORMATS``; ``checksum_algorithm`` one of hashlib's;
        ``hosts`` says what a URL may lead to; ``open_spool`` gives a temporary file, which the
        conversion closes; ``progress`` is called on the event loop, about ten times a second at
        most.
        """
        async with AsyncExitStack() as stack:
            converter = await stack.enter_async_context(await self._fork("converter"))
            downloader = None
            if isinstance(source, UrlSource):
                downloader = await stack.enter_async_context(await self._fork("downloader"))

            async def start_program() -> Child:
                return await stack.enter_async_context(await self._fork(program.NAME))

            yield Conversion(
                source,
                converter,
                downloader,
                start_program=start_program,
                image_format=image_format,
                checksum_algorithm=checksum_algorithm,
                stall_timeout=self._stall_timeout,
                hosts=hosts,
                open_spool=open_spool,
                progress=progress,
            )

    async def _fork(self, role: str) -> Child:
        server = await self._running_server()
        return await server.fork(role)

    async def _running_server(self) -> ForkServer:
        """The fork server; a new one where it has died."""
        async with self._starting:
            if self._server and not self._server.running:
                await self._server.close()
                self._server = None
            if self._server is None:
                self._server = await ForkServer.start()
            return self._server
