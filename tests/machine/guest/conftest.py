"""The service as installed, on the pool `tank`, and a client of it on the system bus."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator

import host
import pytest

with warnings.catch_warnings():
    # dbus-fast 1.84 imports PyGObject, whose importer is of a kind that Python 3.11 warns of.
    warnings.simplefilter("ignore")
    from mvirt_zfs_dbus.client import Client


@pytest.fixture
def service() -> Iterator[None]:
    """The service runs on an empty pool, and leaves it empty."""
    host.run("systemctl", "reset-failed", host.UNIT)
    host.run("systemctl", "start", host.UNIT)
    yield
    host.empty()


@pytest.fixture
async def client(service: None) -> AsyncIterator[Client]:
    async with Client.connect("system", interactive=False) as connected:
        yield connected
