"""What is bounded because everybody may ask for it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

from mvirt_zfs_dbus.core.catalog import Catalog
from mvirt_zfs_dbus.core.locks import Locks
from mvirt_zfs_dbus.core.volumes import Volumes
from mvirt_zfs_dbus.model import User
from mvirt_zfs_dbus.store.base import Store


async def test_users_are_looked_for_one_question_at_a_time() -> None:
    """Each look takes a thread of the store, which has two for all its work."""
    looking = 0

    async def users(volume_id: str) -> list[User]:
        nonlocal looking
        assert not looking
        looking += 1
        await asyncio.sleep(0)
        looking -= 1
        return [User(1, volume_id)]

    # Doubles: a store that can do nothing else, and a catalog that has every volume.
    store = cast(Store, SimpleNamespace(users=users))
    catalog = cast(Catalog, SimpleNamespace(volume=lambda volume_id: None))
    volumes = Volumes(store, catalog, Locks())
    found = await asyncio.gather(*(volumes.users(volume_id) for volume_id in "abc"))
    assert found == [[User(1, volume_id)] for volume_id in "abc"]
