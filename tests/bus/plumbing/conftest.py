"""The toy service and a client on one private bus."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from mvirt_zfs_dbus.bus.wire import Connection, MatchRule, Message, connect

from .toy import NAME, ROOT, OpenHouse, Toy

Ask = Callable[..., Awaitable[list[Any]]]


@pytest.fixture(autouse=True)
def nothing_hangs() -> Iterator[None]:
    """A test that waits for what never comes fails instead of waiting for ever."""

    def fail(*_: object) -> None:
        raise TimeoutError("the test waited for ten minutes")

    signal.signal(signal.SIGALRM, fail)
    signal.alarm(600)
    yield
    signal.alarm(0)


@pytest.fixture
def authority() -> OpenHouse:
    return OpenHouse()


@pytest.fixture
async def toy(bus_address: str, authority: OpenHouse) -> AsyncIterator[Toy]:
    """A running service with one lamp, "a"."""
    service = await Toy.on(bus_address, authority)
    service.add("a")
    await service.start()
    yield service
    await service.close()


@pytest.fixture
async def client(bus_address: str) -> AsyncIterator[Connection]:
    connection = await connect(bus_address)
    yield connection
    await connection.close()


@pytest.fixture
def ask(client: Connection) -> Ask:
    """Call a member of the toy: ask(path, interface, member, signature, *arguments)."""

    async def call(
        path: str, interface: str, member: str, signature: str = "", *body: Any, **more: Any
    ) -> list[Any]:
        return await client.call(NAME, path, interface, member, signature, body, **more)

    return call


@pytest.fixture
async def heard(client: Connection, toy: Toy) -> asyncio.Queue[Message]:
    """Every signal of the toy from now on."""
    signals: asyncio.Queue[Message] = asyncio.Queue()
    rule = MatchRule(sender=toy.connection.unique_name, path_namespace=ROOT)
    await client.subscribe(rule, signals.put_nowait)
    return signals
