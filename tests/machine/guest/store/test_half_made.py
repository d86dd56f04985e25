"""What a power cut leaves of a volume that was being made where it stays: the dataset, and nothing
that says whose it is. ``zfs create`` leaves the same, and stands in for it; tests/machine/outside
cuts the power.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import host
import pytest
from stores import a_template, clone, golden, new, opened, restarted

from mvirt_zfs_dbus.errors import AlreadyExists
from mvirt_zfs_dbus.store.zfs import ZfsStore

VOLMODE = "dev"


async def written_down(store: ZfsStore) -> str:
    """An id that the pool carries before anything is made with it."""
    await store.create_volume(new(dataset_id=store.new_id()))
    dataset_id = store.new_id()
    assert dataset_id in host.get("org.mvirt:intents", f"{store.pool_name}/.tmp")
    return dataset_id


async def test_what_was_left_half_made_is_destroyed_at_the_next_start(
    store: ZfsStore, root: str, tmp_path: Path
) -> None:
    template = await a_template(store)
    half, half_clone = await written_down(store), store.new_id()
    host.run("zfs", "create", "-s", "-V", "8M", f"{root}/{half}")
    host.run("zfs", "clone", f"{root}/{template}@img", f"{root}/{half_clone}")
    host.run("udevadm", "settle")
    await store.close()
    found = (await restarted(root, tmp_path / "again")).volumes
    assert host.datasets(root) & {half, half_clone} == set()
    assert len(found) == 2


@pytest.mark.parametrize("ashift", ["9", "12"])
async def test_nothing_is_known_from_one_byte_whatever_the_sectors_and_blocks(
    tmp_path: Path, ashift: str
) -> None:
    disk = "/dev/disk/by-id/virtio-spare"
    options = ("-f", "-o", f"ashift={ashift}", "-O", "mountpoint=none", "-O", "volmode=dev")
    host.run("zpool", "create", *options, "sectors", disk)
    try:
        async with opened("sectors", tmp_path) as store:
            kept = await store.create_volume(new(dataset_id=store.new_id()))
            empty, written = ([store.new_id() for _ in range(3)] for _ in range(2))
        for ids in (empty, written):
            for dataset_id, block in zip(ids, ("4K", "16K", "128K"), strict=True):
                host.run("zfs", "create", "-s", "-b", block, "-V", "8M", f"sectors/{dataset_id}")
        for dataset_id in written:
            path = f"/dev/zvol/sectors/{dataset_id}"
            host.run("udevadm", "wait", "--timeout=60", path)
            host.write(path, b"x")
        host.run("udevadm", "settle")
        host.run("zpool", "sync", "sectors")
        found = await restarted("sectors", tmp_path / "again")
        assert set(found.volumes) == {kept.id}
        assert host.datasets("sectors") == {kept.id, *written}
    finally:
        host.run("udevadm", "settle")
        host.run("zpool", "destroy", "-f", "sectors")


async def test_a_strangers_dataset_is_never_taken_for_ours(
    store: ZfsStore, root: str, tmp_path: Path
) -> None:
    chosen, unknown = str(uuid.uuid4()), str(uuid.uuid4())
    written, kept = await written_down(store), store.new_id()
    for dataset_id in (chosen, unknown, written, kept):
        host.run("zfs", "create", "-s", "-V", "8M", f"{root}/{dataset_id}")
        host.run("udevadm", "wait", "--timeout=60", f"/dev/zvol/{root}/{dataset_id}")
    with pytest.raises(AlreadyExists):
        await store.create_volume(new(dataset_id=chosen))
    host.write(f"/dev/zvol/{root}/{written}", b"x")
    host.run("zfs", "snapshot", f"{root}/{kept}@theirs")
    host.run("udevadm", "settle")
    host.run("zpool", "sync", host.POOL)
    await store.close()
    await restarted(root, tmp_path / "again")
    assert {chosen, unknown, written, kept} <= host.datasets(root)


async def test_a_stranger_who_comes_first_by_a_moment_is_let_alone(
    store: ZfsStore, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = store._kernel.create

    async def beaten(dataset: str, *arguments: object) -> None:
        host.run("zfs", "create", "-s", "-V", "8M", dataset)
        await create(dataset, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store._kernel, "create", beaten)
    asked = new(dataset_id=str(uuid.uuid4()))
    with pytest.raises(AlreadyExists):
        await store.create_volume(asked)
    assert asked.id not in host.get("org.mvirt:intents", f"{root}/.tmp")
    host.run("udevadm", "settle")
    await store.close()
    await restarted(root, tmp_path / "again")
    assert asked.id in host.datasets(root)


async def test_what_lost_its_properties_keeps_what_was_written_to_it(
    store: ZfsStore, root: str, tmp_path: Path
) -> None:
    """An administrator takes a volume and a clone away from the service, right after the making.
    What is written over what the clone had makes it no larger."""
    origin = await store.create_volume(new(dataset_id=store.new_id(), block_size=512))
    host.write(origin.device, b"a" * 4096)
    _, template = await golden(store, origin)
    made = [
        await store.create_volume(new(dataset_id=store.new_id())),
        await store.clone(template, clone(dataset_id=store.new_id())),
    ]
    for volume in made:
        host.write(volume.device, b"x")
        host.run("zfs", "inherit", "org.mvirt:kind", f"{root}/{volume.id}")
    host.run("zpool", "sync", host.POOL)
    host.run("udevadm", "settle")
    written = host.get("org.mvirt:intents", f"{root}/.tmp")
    assert all(volume.id in written for volume in made)
    await store.close()
    assert set((await restarted(root, tmp_path / "again")).volumes) == {origin.id}
    assert {volume.id for volume in made} <= host.datasets(root)


async def test_used_ids_are_written_down_no_more_after_a_start(
    store: ZfsStore, root: str, tmp_path: Path
) -> None:
    made = await store.create_volume(new(dataset_id=store.new_id()))
    await store.close()
    assert set((await restarted(root, tmp_path / "again")).volumes) == {made.id}
    assert made.id not in host.get("org.mvirt:intents", f"{root}/.tmp")
