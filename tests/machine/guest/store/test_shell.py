"""What an administrator does on a shell is told at once, and what a clone held goes."""

from __future__ import annotations

import asyncio
import time
import uuid

import host
from stores import Listener, clone, golden, new

from mvirt_zfs_dbus.store.base import Inventory
from mvirt_zfs_dbus.store.zfs import ZfsStore


async def test_what_is_done_on_a_shell_is_told_at_once(
    store: ZfsStore, root: str, listener: Listener
) -> None:
    made = await store.create_volume(new())
    other = await store.create_volume(new("other"))
    await listener.quiet()
    for command in (
        ["zfs", "snapshot", f"{root}/{made.id}@theirs"],
        ["zfs", "rollback", f"{root}/{made.id}@theirs"],
        ["zfs", "set", "org.mvirt:name=by-hand", f"{root}/{made.id}"],
        ["zfs", "rename", f"{root}/{other.id}", f"{root}/elsewhere"],
        ["zfs", "destroy", "-r", f"{root}/{made.id}"],
        ["zfs", "create", "-s", "-V", "1M", f"{root}/theirs"],
    ):
        running = asyncio.create_task(asyncio.to_thread(host.run, *command))
        told = await listener.told()
        await running
        print(f"{' '.join(command[:2])}: told {time.monotonic() - told:.3f} s before it had ended")
        await listener.quiet()
    assert not (await store.scan()).volumes


async def test_a_rescan_finds_what_a_scan_finds(
    store: ZfsStore, root: str, listener: Listener
) -> None:
    async def check() -> Inventory:
        await listener.told()
        await listener.quiet()
        found = await store.rescan()
        assert found == await store.scan()
        return found

    made = await store.create_volume(new())
    snapshot, template = await golden(store, made)
    assert (await store.rescan()).templates.keys() == {template}, "it need not be told of its own"
    await check()
    cloned = await store.clone(template, clone())
    await store.destroy_template(template, defer=True)
    await check()
    for command in (
        ["zfs", "snapshot", f"{root}/{cloned.id}@theirs"],
        ["zfs", "promote", f"{root}/{cloned.id}"],
        ["zfs", "rename", f"{root}/{made.id}", f"{root}/{(moved := str(uuid.uuid4()))}"],
        ["zfs", "set", "org.mvirt:name=theirs", f"{root}/{moved}"],
    ):
        host.run(*command)
        found = await check()
    assert found.volumes[moved].name == "theirs"
    assert found.snapshots[snapshot].volume_id == moved
    outside = f"{host.POOL}/{uuid.uuid4()}"
    host.run("udevadm", "settle")
    host.run("zfs", "rename", f"{root}/{moved}", outside)
    assert moved not in (await check()).volumes
    host.run("udevadm", "settle")
    host.run("zfs", "rename", outside, f"{root}/{moved}")
    assert moved in (await check()).volumes


async def test_the_last_clone_destroyed_on_a_shell_lets_what_was_deferred_go(
    store: ZfsStore, root: str, listener: Listener
) -> None:
    made = await store.create_volume(new())
    _, template = await golden(store, made)
    cloned = await store.clone(template, clone())
    await store.destroy_template(template, defer=True)
    await store.destroy_volume(made.id, snapshots=True, defer=True)
    await listener.quiet()
    host.run("udevadm", "settle")
    host.run("zfs", "destroy", f"{root}/{cloned.id}")
    await listener.told()
    await store.collect()
    assert host.datasets(root) == set()
