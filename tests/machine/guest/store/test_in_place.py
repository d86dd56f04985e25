"""Volumes that are made where they stay, in a root dataset made as docs/administrator.md says."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import host
import pytest
from stores import Steps, a_template, clone, new, restarted

from mvirt_zfs_dbus.errors import AlreadyExists, DeviceBusy, DeviceTimeout
from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.openzfs import device
from mvirt_zfs_dbus.store.zfs import ZfsStore

VOLMODE = "dev"


async def test_a_volume_and_a_clone_take_one_step_and_inherit_what_hides_them(
    store: ZfsStore, root: str, steps: Steps
) -> None:
    template = await a_template(store)
    steps.clear()
    made = await store.create_volume(new(dataset_id=store.new_id()))
    cloned = await store.clone(template, clone(dataset_id=store.new_id()))
    assert steps.of(root) == ["create", "clone"]
    for volume in (made, cloned):
        assert device.is_device_of(volume.device, f"{root}/{volume.id}")
        assert host.get("volmode", f"{root}/{volume.id}") == "dev"
        assert host.get("volmode", f"{root}/{volume.id}", "source") == f"inherited from {root}"


async def test_what_one_step_does_not_make_is_made_aside(
    store: ZfsStore, root: str, steps: Steps
) -> None:
    template = await a_template(store)
    steps.clear()
    await store.create_volume(new(dataset_id=store.new_id(), thin=False))
    larger = clone(size=16 * host.MIB, dataset_id=store.new_id())
    await store.clone(template, larger)
    assert [step for step in steps.of(root) if step == "rename"] == ["rename"] * 2


async def test_an_id_its_caller_chose_is_written_down_first(
    store: ZfsStore, root: str, steps: Steps
) -> None:
    await store.create_volume(new(dataset_id=str(uuid.uuid4())))
    assert steps.of(root)[-2:] == ["write", "create"]


async def test_many_at_once_are_all_made(store: ZfsStore, root: str) -> None:
    asked = [
        new(dataset_id=each) for each in (store.new_id(), *(str(uuid.uuid4()) for _ in range(5)))
    ]
    made = await asyncio.gather(*map(store.create_volume, asked))
    assert {volume.id for volume in made} == {each.id for each in asked}
    assert host.datasets(root) == {each.id for each in asked}


async def test_without_udev_a_volume_is_not_left(
    store: ZfsStore, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "WAIT", 3.0)
    with host.udev_standing_still(), pytest.raises(DeviceTimeout, match="udev"):
        await store.create_volume(new(dataset_id=store.new_id()))
    assert host.datasets(root) == set()


async def test_a_volume_that_waits_for_udev_is_not_shown_and_holds_nobody_up(
    store: ZfsStore, root: str
) -> None:
    other = await store.create_volume(new(dataset_id=store.new_id()))
    host.run("udevadm", "settle")
    with host.udev_standing_still():
        asked = new(dataset_id=store.new_id())
        making = asyncio.create_task(store.create_volume(asked))
        async with asyncio.timeout(25):  # the store waits for 30
            # There is no event to wait for: the kernel is asked, as an administrator would.
            while asked.id not in await asyncio.to_thread(host.datasets, root):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            assert set((await store.scan()).volumes) == {other.id}
    assert (await making).id == asked.id
    assert set((await store.rescan()).volumes) == {other.id, asked.id}


async def test_what_a_failure_left_of_an_id_is_destroyed_before_the_id_is_used_again(
    store: ZfsStore, root: str
) -> None:
    await store.create_volume(new(dataset_id=store.new_id()))
    asked = new(dataset_id=str(uuid.uuid4()))
    left = f".tmp/volumes/{asked.id}"
    host.run("zfs", "create", "-s", "-V", "8M", f"{root}/{left}")
    host.run("udevadm", "wait", "--timeout=60", f"/dev/zvol/{root}/{left}")
    host.run("udevadm", "settle")
    with Path(f"/dev/zvol/{root}/{left}").open("rb"):
        with pytest.raises(DeviceBusy):
            await store.create_volume(asked)
        assert asked.id not in host.datasets(root)
    made = await store.create_volume(asked)
    assert device.is_device_of(made.device, f"{root}/{asked.id}")
    assert left not in host.datasets(root)


# What the root dataset says is what keeps the host out.


async def followed(store: ZfsStore, changes: AsyncIterator[None]) -> None:
    """As the service follows it."""
    async for _ in changes:
        await store.rescan()


async def eventually(value: str, name: str, dataset: str) -> None:
    async with asyncio.timeout(60):
        # Likewise; what the store reads of it is what is tested here.
        while [host.get(name, dataset, of) for of in ("value", "source")] != [value, "local"]:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_volumes_keep_what_they_were_made_with_when_the_root_says_otherwise(
    store: ZfsStore, root: str, tmp_path: Path
) -> None:
    following = asyncio.create_task(followed(store, store.watch()))
    made = await store.create_volume(new(dataset_id=store.new_id()))
    host.run("zfs", "set", "volmode=full", root)
    await eventually("dev", "volmode", f"{root}/{made.id}")
    assert host.get("snapdev", f"{root}/{made.id}") == "hidden"
    later = await store.create_volume(new(dataset_id=store.new_id()))
    assert host.get("volmode", f"{root}/{later.id}", "source") == "local"

    host.run("zfs", "set", "volmode=dev", root)
    again = await store.create_volume(new(dataset_id=store.new_id()))
    following.cancel()
    await asyncio.wait([following])
    await store.close()
    host.run("zfs", "set", "snapdev=visible", root)
    await restarted(root, tmp_path / "again")
    assert host.get("snapdev", f"{root}/{again.id}") == "hidden"
    assert host.get("snapdev", f"{root}/{again.id}", "source") == "local"


async def test_an_import_of_the_same_id_is_not_disturbed(store: ZfsStore) -> None:
    target = new(dataset_id=str(uuid.uuid4()))
    await store.create_target(Kind.VOLUME, target)
    with pytest.raises(AlreadyExists, match="being made"):
        await store.create_volume(target)
    await store.abandon(target.id)
    await store.create_volume(target)
