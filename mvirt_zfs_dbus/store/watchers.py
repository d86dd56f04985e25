"""Those who are told of what changes in a store, each through an iterator of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from weakref import WeakSet


class Watchers:
    """Of one store. A watcher that nobody holds any more is forgotten."""

    def __init__(self, gather: float = 0.0) -> None:
        """``gather``: seconds in which further changes are told together with the first."""
        self._gather = gather
        self._watchers: WeakSet[_Watcher] = WeakSet()
        self._closed = False

    def add(self) -> AsyncIterator[None]:
        """Yields after changes told from now on. Ends with :meth:`close`."""
        watcher = _Watcher(self._gather)
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
    def __init__(self, gather: float) -> None:
        self.happened = asyncio.Event()
        self._gather = gather
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
        await asyncio.sleep(self._gather)
        self.happened.clear()
