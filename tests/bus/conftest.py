"""A private bus for every test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from busdaemon import BusDaemon


@pytest.fixture
def bus_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusDaemon]:
    """A dbus-daemon with ``.address``, ``.pid``, ``.pause()``, ``.stop()`` and ``.kill()``."""
    folder: Path = tmp_path_factory.mktemp("bus")
    daemon = BusDaemon(folder)
    yield daemon
    daemon.stop()


@pytest.fixture
def bus_address(bus_daemon: BusDaemon) -> str:
    """The address of a private bus."""
    return bus_daemon.address
