"""A private bus for every test that asks for one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from busdaemon import BusDaemon

with warnings.catch_warnings():
    # dbus-next and old dbus-fast import PyGObject 3.42, which has an importer of the old kind, and
    # Python 3.11 says so; any test's own import of the library comes after this one.
    warnings.simplefilter("ignore", ImportWarning)
    import mvirt_zfs_dbus.bus.library  # noqa: F401


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
