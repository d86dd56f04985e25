"""The running machine that MVIRT_MACHINE names, with the product installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.machine.machine import Machine

EMPTY = "cd tests/machine/guest && python3 -c 'import host; host.empty()'"


@pytest.fixture
def machine() -> Iterator[Machine]:
    found = Machine(os.environ["MVIRT_MACHINE"])
    found.output("systemctl start mvirt-zfs-dbus.service")
    yield found
    found.output(EMPTY)
