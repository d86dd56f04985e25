"""Signals of the service, in order, until it or the bus is gone."""

from __future__ import annotations

import asyncio

from .. import errors
from ..bus import wire


class ServiceUnreachable(errors.Error):
    """The service, or the bus it is on, is not there or does not answer."""


class Signals:
    """What was subscribed to, as it arrives."""

    def __init__(self, connection: wire.Connection) -> None:
        self._connection = connection
        self._messages: list[wire.Message] = []
        self._arrived = asyncio.Event()
        self._ended = False

    def take(self, message: wire.Message) -> None:
        self._messages.append(message)
        self._arrived.set()

    def end(self, _: wire.Message) -> None:
        self._ended = True
        self._arrived.set()

    async def next(self) -> list[wire.Message]:
        """All that arrived since the last call, at least one. ServiceUnreachable: none will."""
        await self._arrived_or_lost()
        self._arrived.clear()
        if self._messages:
            messages, self._messages = self._messages, []
            if self._ended:
                self._arrived.set()
            return messages
        if self._ended:
            raise ServiceUnreachable("the service has left the bus")
        raise ServiceUnreachable(self._connection.why_lost)

    async def _arrived_or_lost(self) -> None:
        waits = [
            asyncio.ensure_future(self._arrived.wait()),
            asyncio.ensure_future(self._connection.lost.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
