from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mvirt_zfs_dbus.store.base import Store

from .backends import BACKENDS, STORES, StoreBackend, loop_mount

MIB = 1024 * 1024


@pytest.fixture(scope="session")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("xfs")
    with loop_mount(directory, 512 * MIB, "mkfs.xfs", "-q", "-m", "reflink=1") as mount:
        yield mount


@pytest.fixture(scope="session")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("btrfs")
    with loop_mount(directory, 512 * MIB, "mkfs.btrfs", "-q") as mount:
        yield mount


@pytest.fixture(params=STORES)
def backend(request: pytest.FixtureRequest) -> Iterator[StoreBackend]:
    made = BACKENDS[request.param](request)
    yield made
    made.close()


class Stores:
    """Opens stores on the pool, one service after the other, and closes what a test left open."""

    def __init__(self, backend: StoreBackend) -> None:
        self._backend = backend
        self._open: list[Store] = []

    async def open(self) -> Store:
        store = self._backend.store()
        await store.start()
        self._open.append(store)
        return store

    async def close(self, store: Store) -> None:
        self._open.remove(store)
        await store.close()

    async def reopen(self, store: Store) -> Store:
        """What a restarted service sees."""
        await self.close(store)
        return await self.open()

    async def close_all(self) -> None:
        for store in list(self._open):
            await self.close(store)


@pytest.fixture
async def stores(backend: StoreBackend) -> AsyncIterator[Stores]:
    opened = Stores(backend)
    yield opened
    await opened.close_all()


@pytest.fixture
async def store(stores: Stores) -> Store:
    return await stores.open()
