"""Those who are told of what changes in a store, each through an iterator of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from weakref import WeakSet


class Watchers:
    """Of one store. A watcher that nobody holds any more is forgotten."""

    def __init__(self, gather: float = 0.0, longest: float = 0.0) -> None:
        """What changes is told when nothing else has for ``gather`` seconds, or when the watcher
        has waited for that for ``longest`` seconds."""
        self._gather = gather
        self._longest = longest
        self._watchers: WeakSet[_Watcher] = WeakSet()
        self._closed = False

    def add(self) -> AsyncIterator[None]:
        """Yields after changes told from now on. Ends with :meth:`close`."""
        watcher = _Watcher(self._gather, self._longest)
        self._watchers.add(watcher)
        if self._closed:
            watcher.end()
        return watcher

    def tell(self) -> None:
        for watcher in self._watchers:
            watcher.happened.set()

    def close(self) -> None:
        self._closed = True
        for watcher in self._watchers:
            watcher.end()


class _Watcher:
    def __init__(self, gather: float, longest: float) -> None:
        self.happened = asyncio.Event()
        self._gather = gather
        self._longest = longest
        self._ended = False

    def end(self) -> None:
        self._ended = True
        self.happened.set()

    def __aiter__(self) -> _Watcher:
        return self

    async def __anext__(self) -> None:
        if not self._ended:
            await self.happened.wait()
        if self._ended:
            raise StopAsyncIteration
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._longest):
                    await self._quiet()
        except asyncio.CancelledError:
            self.happened.set()  # nobody was told
            raise
        self.happened.clear()

    async def _quiet(self) -> None:
        while self.happened.is_set() and not self._ended:
            self.happened.clear()
            await asyncio.sleep(self._gather)
