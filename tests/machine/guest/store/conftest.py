"""A store on a root dataset that nobody prepared for it, or on one whose ``volmode`` a module says
in VOLMODE, as docs/administrator.md has it made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import host
import pytest
from stores import Listener, Steps, opened

from mvirt_zfs_dbus.store.zfs import ZfsStore


@pytest.fixture
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"{host.POOL}/store"
    volmode = getattr(request.module, "VOLMODE", "default")
    host.run("zfs", "create", "-o", "mountpoint=none", "-o", f"volmode={volmode}", name)
    yield name
    host.destroy(name)


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
async def store(root: str, steps: Steps, tmp_path: Path) -> AsyncIterator[ZfsStore]:
    async with opened(root, tmp_path, steps) as started:
        yield started


@pytest.fixture
async def listener(store: ZfsStore) -> AsyncIterator[Listener]:
    listening = Listener(store)
    await listening.quiet()
    yield listening
    await listening.close()
