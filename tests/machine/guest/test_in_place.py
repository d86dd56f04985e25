"""Volumes that are made where they stay, in a root dataset made as docs/administrator.md says."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import host
import pytest

from mvirt_zfs_dbus.errors import AlreadyExists, DeviceBusy, DeviceTimeout
from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.base import NewClone, NewDataset
from mvirt_zfs_dbus.store.openzfs import device
from mvirt_zfs_dbus.store.zfs import ZfsStore

ROOT = f"{host.POOL}/in-place"


class Steps(list[str]):
    """What a store did to the pool, step by step."""

    def __call__(self, what: str) -> None:
        self.append(what)

    def of(self, root: str) -> list[str]:
        """Without names, and what others' work is."""
        return [step.partition(" ")[0] for step in self if root in step]


def new(dataset_id: str = "", *, block_size: int = 16384, thin: bool = True) -> NewDataset:
    made_of = (dataset_id or str(uuid.uuid4()), "disk", 8 * host.MIB, block_size, thin)
    return NewDataset(*made_of, created_at=1)


@pytest.fixture
def root() -> Iterator[str]:
    host.run("zfs", "create", "-o", "mountpoint=none", "-o", "volmode=dev", ROOT)
    yield ROOT
    host.run("udevadm", "settle")
    host.run("zfs", "destroy", "-R", ROOT)


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
async def store(root: str, steps: Steps, tmp_path: Path) -> AsyncIterator[ZfsStore]:
    opened = ZfsStore(root, runtime_directory=tmp_path, step=steps)
    await opened.start()
    yield opened
    await opened.close()


async def restarted(root: str, tmp_path: Path) -> set[str]:
    """What another service finds there, and leaves there."""
    again = ZfsStore(root, runtime_directory=tmp_path / "again")
    await again.start()
    try:
        return set((await again.scan()).volumes)
    finally:
        await again.close()


async def a_template(store: ZfsStore) -> str:
    made = await store.create_volume(new())
    taken = await store.create_snapshot(made.id, str(uuid.uuid4()), "snapshot", 1)
    of_it = NewClone(str(uuid.uuid4()), "golden", created_at=1)
    return (await store.template_from_snapshot(taken.id, of_it)).id


async def written_down(store: ZfsStore) -> str:
    """An id that the pool carries before anything is made with it."""
    await store.create_volume(new(store.new_id()))
    dataset_id = store.new_id()
    assert dataset_id in host.get("org.mvirt:intents", f"{ROOT}/.tmp")
    return dataset_id


async def test_a_volume_and_a_clone_take_one_step_and_inherit_what_hides_them(
    store: ZfsStore, root: str, steps: Steps
) -> None:
    template = await a_template(store)
    steps.clear()
    made = await store.create_volume(new(store.new_id()))
    cloned = await store.clone(template, NewClone(store.new_id(), "clone", created_at=1))
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
    await store.create_volume(new(store.new_id(), thin=False))
    larger = NewClone(store.new_id(), "clone", 16 * host.MIB, created_at=1)
    await store.clone(template, larger)
    assert [step for step in steps.of(root) if step == "rename"] == ["rename"] * 2


async def test_an_id_its_caller_chose_is_written_down_first(
    store: ZfsStore, root: str, steps: Steps
) -> None:
    await store.create_volume(new(str(uuid.uuid4())))
    assert steps.of(root)[-2:] == ["write", "create"]


async def test_many_at_once_are_all_made(store: ZfsStore, root: str) -> None:
    asked = [new(each) for each in (store.new_id(), *(str(uuid.uuid4()) for _ in range(5)))]
    made = await asyncio.gather(*map(store.create_volume, asked))
    assert {volume.id for volume in made} == {each.id for each in asked}
    assert host.datasets(root) == {each.id for each in asked}


# What a power cut leaves: the dataset, and nothing that says whose it is. ``zfs create`` leaves the
# same, and stands in for it; tests/machine/outside cuts the power.


async def test_what_was_left_half_made_is_destroyed_at_the_next_start(
    store: ZfsStore, root: str, tmp_path: Path
) -> None:
    template = await a_template(store)
    half, half_clone = await written_down(store), store.new_id()
    host.run("zfs", "create", "-s", "-V", "8M", f"{root}/{half}")
    host.run("zfs", "clone", f"{root}/{template}@img", f"{root}/{half_clone}")
    host.run("udevadm", "settle")
    await store.close()
    found = await restarted(root, tmp_path)
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
        opened = ZfsStore("sectors", runtime_directory=tmp_path)
        await opened.start()
        kept = await opened.create_volume(new(opened.new_id()))
        empty, written = ([opened.new_id() for _ in range(3)] for _ in range(2))
        for ids in (empty, written):
            for dataset_id, block in zip(ids, ("4K", "16K", "128K"), strict=True):
                host.run("zfs", "create", "-s", "-b", block, "-V", "8M", f"sectors/{dataset_id}")
        for dataset_id in written:
            path = f"/dev/zvol/sectors/{dataset_id}"
            host.run("udevadm", "wait", "--timeout=60", path)
            host.write(path, b"x")
        host.run("udevadm", "settle")
        host.run("zpool", "sync", "sectors")
        await opened.close()
        assert await restarted("sectors", tmp_path) == {kept.id}
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
        await store.create_volume(new(chosen))
    host.write(f"/dev/zvol/{root}/{written}", b"x")
    host.run("zfs", "snapshot", f"{root}/{kept}@theirs")
    host.run("udevadm", "settle")
    host.run("zpool", "sync", host.POOL)
    await store.close()
    await restarted(root, tmp_path)
    assert {chosen, unknown, written, kept} <= host.datasets(root)


async def test_a_stranger_who_comes_first_by_a_moment_is_let_alone(
    store: ZfsStore, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = store._kernel.create

    async def beaten(dataset: str, *arguments: object) -> None:
        host.run("zfs", "create", "-s", "-V", "8M", dataset)
        await create(dataset, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store._kernel, "create", beaten)
    asked = new(str(uuid.uuid4()))
    with pytest.raises(AlreadyExists):
        await store.create_volume(asked)
    assert asked.id not in host.get("org.mvirt:intents", f"{root}/.tmp")
    host.run("udevadm", "settle")
    await store.close()
    await restarted(root, tmp_path)
    assert asked.id in host.datasets(root)


async def test_what_lost_its_properties_keeps_what_was_written_to_it(
    store: ZfsStore, root: str, tmp_path: Path
) -> None:
    """An administrator takes a volume and a clone away from the service, right after the making.
    What is written over what the clone had makes it no larger."""
    origin = await store.create_volume(new(store.new_id(), block_size=512))
    host.write(origin.device, b"a" * 4096)
    taken = await store.create_snapshot(origin.id, str(uuid.uuid4()), "snapshot", 1)
    template = await store.template_from_snapshot(taken.id, NewClone(str(uuid.uuid4()), "gold"))
    made = [
        await store.create_volume(new(store.new_id())),
        await store.clone(template.id, NewClone(store.new_id(), "clone", created_at=1)),
    ]
    for volume in made:
        host.write(volume.device, b"x")
        host.run("zfs", "inherit", "org.mvirt:kind", f"{root}/{volume.id}")
    host.run("zpool", "sync", host.POOL)
    host.run("udevadm", "settle")
    written = host.get("org.mvirt:intents", f"{root}/.tmp")
    assert all(volume.id in written for volume in made)
    await store.close()
    assert await restarted(root, tmp_path) == {origin.id}
    assert {volume.id for volume in made} <= host.datasets(root)


async def test_used_ids_are_written_down_no_more_after_a_start(
    store: ZfsStore, root: str, tmp_path: Path
) -> None:
    made = await store.create_volume(new(store.new_id()))
    await store.close()
    assert await restarted(root, tmp_path) == {made.id}
    assert made.id not in host.get("org.mvirt:intents", f"{root}/.tmp")


async def test_without_udev_a_volume_is_not_left(
    store: ZfsStore, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "WAIT", 3.0)
    host.run("udevadm", "control", "--stop-exec-queue")
    try:
        with pytest.raises(DeviceTimeout, match="udev"):
            await store.create_volume(new(store.new_id()))
    finally:
        host.run("udevadm", "control", "--start-exec-queue")
    assert host.datasets(root) == set()


async def test_a_volume_that_waits_for_udev_is_not_shown_and_holds_nobody_up(
    store: ZfsStore, root: str
) -> None:
    other = await store.create_volume(new(store.new_id()))
    host.run("udevadm", "settle")
    host.run("udevadm", "control", "--stop-exec-queue")
    try:
        asked = new(store.new_id())
        making = asyncio.create_task(store.create_volume(asked))
        async with asyncio.timeout(10):
            # There is no event to wait for: the kernel is asked, as an administrator would.
            while asked.id not in host.datasets(root):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            assert set((await store.scan()).volumes) == {other.id}
    finally:
        host.run("udevadm", "control", "--start-exec-queue")
    assert (await making).id == asked.id
    assert set((await store.rescan()).volumes) == {other.id, asked.id}


async def test_what_a_failure_left_of_an_id_is_destroyed_before_the_id_is_used_again(
    store: ZfsStore, root: str
) -> None:
    await store.create_volume(new(store.new_id()))
    asked = new(str(uuid.uuid4()))
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
    made = await store.create_volume(new(store.new_id()))
    host.run("zfs", "set", "volmode=full", root)
    await eventually("dev", "volmode", f"{root}/{made.id}")
    assert host.get("snapdev", f"{root}/{made.id}") == "hidden"
    later = await store.create_volume(new(store.new_id()))
    assert host.get("volmode", f"{root}/{later.id}", "source") == "local"

    host.run("zfs", "set", "volmode=dev", root)
    again = await store.create_volume(new(store.new_id()))
    await store.close()
    await following
    host.run("zfs", "set", "snapdev=visible", root)
    await restarted(root, tmp_path)
    assert host.get("snapdev", f"{root}/{again.id}") == "hidden"
    assert host.get("snapdev", f"{root}/{again.id}", "source") == "local"


async def test_an_import_of_the_same_id_is_not_disturbed(store: ZfsStore) -> None:
    target = new(str(uuid.uuid4()))
    await store.create_target(Kind.VOLUME, target)
    with pytest.raises(AlreadyExists, match="being made"):
        await store.create_volume(target)
    await store.abandon(target.id)
    await store.create_volume(target)
