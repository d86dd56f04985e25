"""What the ZFS store does that the contract suite, which runs on every store, cannot ask for.

The root dataset is one that nobody prepared for it; test_in_place.py has one that is.
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import os
import re
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import host
import pytest

from mvirt_zfs_dbus.errors import (
    DeviceBusy,
    DeviceTimeout,
    Error,
    HasClones,
    HasSnapshots,
    NewerSnapshots,
    NoSpace,
    NotFound,
    PoolUnavailable,
)
from mvirt_zfs_dbus.model import Kind, Volume
from mvirt_zfs_dbus.store.base import Inventory, NewClone, NewDataset
from mvirt_zfs_dbus.store.openzfs import device
from mvirt_zfs_dbus.store.openzfs.properties import COMPRESSIONS, PIECE, PREFIX
from mvirt_zfs_dbus.store.zfs import ZfsStore

ROOT = f"{host.POOL}/store"
BLOCK = 16 * 1024


def new(
    name: str = "disk", size: int = 8 * host.MIB, *, thin: bool = True, compression: str = ""
) -> NewDataset:
    return NewDataset(str(uuid.uuid4()), name, size, BLOCK, thin, compression, created_at=1)


def clone(name: str = "clone") -> NewClone:
    return NewClone(str(uuid.uuid4()), name, created_at=1)


@pytest.fixture
def root() -> Iterator[str]:
    host.run("zfs", "create", "-o", "mountpoint=none", "-o", "volmode=default", ROOT)
    yield ROOT
    host.run("udevadm", "settle")
    host.run("zfs", "destroy", "-R", ROOT)


@pytest.fixture
async def store(root: str, tmp_path: Path) -> AsyncIterator[ZfsStore]:
    opened = ZfsStore(root, runtime_directory=tmp_path)
    await opened.start()
    yield opened
    await opened.close()


async def golden(store: ZfsStore, of: Volume) -> tuple[str, str]:
    """The ids of a snapshot of the volume and of a template cloned from it."""
    taken = await store.create_snapshot(of.id, str(uuid.uuid4()), "snapshot", 1)
    return taken.id, (await store.template_from_snapshot(taken.id, clone("golden"))).id


# What volumes are made with


def test_every_compression_has_the_number_libzfs_gives_its_name() -> None:
    libzfs = ctypes.CDLL(ctypes.util.find_library("zfs"))
    libzfs.libzfs_init.restype = ctypes.c_void_p
    assert libzfs.libzfs_init()
    compression = libzfs.zfs_name_to_prop(b"compression")
    number = ctypes.c_uint64()
    for name, ours in COMPRESSIONS.items():
        assert (
            libzfs.zfs_prop_string_to_index(compression, name.encode(), ctypes.byref(number)) == 0
        )
        assert (name, ours) == (name, number.value)


async def test_a_volume_is_compressed_as_asked_or_as_its_parent(store: ZfsStore, root: str) -> None:
    asked = await store.create_volume(new(compression="zstd-fast-30"))
    plain = await store.create_volume(new("plain"))
    assert host.get("compression", f"{root}/{asked.id}") == "zstd-fast-30"
    assert host.get("compression", f"{root}/{plain.id}") == host.get("compression", root)


async def test_a_thick_volume_reserves_what_zfs_create_reserves_and_grows_so(
    store: ZfsStore, root: str
) -> None:
    made = await store.create_volume(new(size=64 * host.MIB, thin=False))
    host.run("zfs", "create", "-b", str(BLOCK), "-V", "64M", f"{root}/twin")
    assert host.get("refreservation", f"{root}/{made.id}") == host.get(
        "refreservation", f"{root}/twin"
    )
    await store.resize(made.id, 96 * host.MIB)
    host.run("zfs", "set", "volsize=96M", f"{root}/twin")
    assert host.get("refreservation", f"{root}/{made.id}") == host.get(
        "refreservation", f"{root}/twin"
    )
    assert int(host.get("refreservation", f"{root}/twin")) > 96 * host.MIB


async def test_a_thick_volume_that_was_turned_back_reserves_what_its_size_takes(
    store: ZfsStore, root: str
) -> None:
    made = await store.create_volume(new(size=32 * host.MIB, thin=False))
    dataset = f"{root}/{made.id}"
    small = host.get("refreservation", dataset)
    taken = await store.create_snapshot(made.id, str(uuid.uuid4()), "small", 1)
    await store.resize(made.id, 48 * host.MIB)
    large = host.get("refreservation", dataset)
    await store.rollback(taken.id, destroy_newer=False)
    assert host.get("refreservation", dataset) == small
    # A crash right after the rollback leaves the larger reservation.
    host.run("zfs", "set", f"refreservation={large}", dataset)
    await store.resize(made.id, 64 * host.MIB)
    assert int(host.get("refreservation", dataset)) > 64 * host.MIB


async def test_a_part_that_an_administrator_reserved_stays_as_it_is(
    store: ZfsStore, root: str
) -> None:
    made = await store.create_volume(new(size=32 * host.MIB))
    host.run("zfs", "set", "refreservation=16M", f"{root}/{made.id}")
    await store.resize(made.id, 64 * host.MIB)
    assert host.get("refreservation", f"{root}/{made.id}") == str(16 * host.MIB)


async def test_a_template_reserves_nothing_for_writes_that_never_come(
    store: ZfsStore, root: str
) -> None:
    imported = new(size=32 * host.MIB, thin=False)
    await store.create_target(Kind.TEMPLATE, imported)
    assert int(host.get("refreservation", f"{root}/.tmp/{imported.id}")) > 32 * host.MIB
    await store.publish(imported.id)
    assert host.get("refreservation", f"{root}/{imported.id}") == "0"


async def test_a_thin_volume_reserves_nothing(store: ZfsStore, root: str) -> None:
    made = await store.create_volume(new(thin=True))
    assert host.get("refreservation", f"{root}/{made.id}") == "0"


async def test_a_checksum_is_kept_without_a_source(store: ZfsStore) -> None:
    asked = replace(new(), checksum="sha256:" + "0" * 64)
    await store.create_target(Kind.VOLUME, asked)
    await store.publish(asked.id)
    assert (await store.scan()).volumes[asked.id].checksum == asked.checksum


# Devices


async def test_the_host_never_scans_a_guests_partitions(store: ZfsStore) -> None:
    made = await store.create_volume(new(size=32 * host.MIB))
    script = "label: gpt\n,8M\n,8M\n"
    subprocess.run(["sfdisk", "-q", made.device], input=script, text=True, check=True)
    host.run("udevadm", "settle")
    disk = Path(made.device).resolve().name
    assert host.run("sfdisk", "-d", made.device).count("start=") == 2
    assert not list(Path(f"/sys/block/{disk}").glob(f"{disk}p*"))
    assert not Path(f"{made.device}-part1").exists()


@pytest.mark.parametrize("program", [["mkfs.ext4", "-q", "-L", "of-the-guest"], ["mkswap", "-q"]])
async def test_the_host_does_not_look_into_what_a_guest_wrote(
    store: ZfsStore, root: str, program: list[str]
) -> None:
    """Else /dev/disk/by-uuid/ would lead to the disk of a guest that took the host's UUID."""
    made = await store.create_volume(new(size=32 * host.MIB))
    host.run(*program, made.device)
    disk = str(Path(made.device).resolve())
    host.run("udevadm", "trigger", "--settle", "--action=change", disk)
    known = host.run("udevadm", "info", "--query=property", disk)
    assert "ID_FS_" not in known
    assert f"/dev/zvol/{root}/{made.id}" in known
    assert "/dev/disk/" not in known


async def test_a_template_has_no_device(store: ZfsStore, root: str) -> None:
    made = await store.create_volume(new())
    snapshot, template = await golden(store, made)
    copied = await store.copy_to_template(snapshot, clone("copied"), lambda *_: None)
    imported = new("imported")
    await store.create_target(Kind.TEMPLATE, imported)
    os.close(await store.open_target(imported.id))
    await store.publish(imported.id)
    host.run("udevadm", "settle")
    links = {link.name for link in Path(f"/dev/zvol/{root}").iterdir()}
    assert links == {made.id}
    for dataset_id in (template, copied.id, imported.id):
        assert host.get("volmode", f"{root}/{dataset_id}") == "none"


async def test_a_snapshot_has_no_device_though_its_parent_asks_for_one(
    store: ZfsStore, root: str
) -> None:
    host.run("zfs", "set", "snapdev=visible", root)
    made = await store.create_volume(new())
    snapshot, template = await golden(store, made)
    cloned = await store.clone(template, clone())
    await store.create_snapshot(cloned.id, str(uuid.uuid4()), "of-the-clone", 1)
    copied = await store.copy_to_template(snapshot, clone("copied"), lambda *_: None)
    host.run("zfs", "set", "volmode=dev", f"{root}/{copied.id}")
    # The kernel makes a disk some time after it was asked to.
    host.run("udevadm", "wait", "--timeout=60", f"/dev/zvol/{root}/{copied.id}")
    host.run("udevadm", "settle")
    links = {link.name for link in Path(f"/dev/zvol/{root}").iterdir()}
    assert links == {made.id, cloned.id, copied.id}


async def test_what_is_unfinished_gets_a_device_only_when_it_is_written(
    store: ZfsStore, root: str
) -> None:
    """A bare zvol is what a power cut leaves: made, but without its properties yet."""
    bare = f"{root}/.tmp/{uuid.uuid4()}"
    host.run("zfs", "create", "-s", "-V", "1M", bare)
    host.run("udevadm", "settle")
    assert not Path(f"/dev/zvol/{bare}").exists()
    assert host.get("org.mvirt:state", bare) == "importing"


async def test_what_is_published_at_once_has_its_device_before_udev_hears_of_it(
    store: ZfsStore, root: str
) -> None:
    """Or the rename would come before the device, and the volume would never get one."""
    made = await store.create_volume(new())
    _, template = await golden(store, made)
    places = [f"{root}/.tmp/volumes/{uuid.uuid4()}" for _ in range(2)]
    host.run("udevadm", "control", "--stop-exec-queue")
    try:
        host.run("zfs", "create", "-s", "-V", "1M", "-o", "volmode=dev", places[0])
        assert _has_disk(places[0])
        host.run("zfs", "clone", "-o", "volmode=dev", f"{root}/{template}@img", places[1])
        assert _has_disk(places[1])
        host.run("zfs", "rename", places[0], f"{root}/renamed")
        host.run("zfs", "set", "volsize=16M", places[1])
    finally:
        host.run("udevadm", "control", "--start-exec-queue")
    host.run("udevadm", "wait", "--timeout=60", f"/dev/zvol/{root}/renamed")


def _has_disk(dataset: str) -> bool:
    return any(device.is_device_of(str(path), dataset) for path in Path("/dev").glob("zd*[0-9]"))


async def test_lvm_reads_guests_disks_unless_it_is_told_as_the_page_tells_it(
    store: ZfsStore,
) -> None:
    page = Path(__file__).parents[3] / "docs" / "administrator.md"
    told = re.search(r"^ +(devices \{ global_filter .*\})$", page.read_text(), re.MULTILINE)
    assert told
    made = await store.create_volume(new(size=16 * host.MIB))
    host.run("udevadm", "settle")
    host.run("pvcreate", "--quiet", "--config", "devices { use_devicesfile = 0 }", made.device)
    listed = ("pvs", "--noheadings", "--options", "pv_name", "--config")
    assert host.run(*listed, "devices { use_devicesfile = 0 }")
    assert not host.run(*listed, told[1])


async def test_nobody_can_mount_or_format_a_target_that_is_being_written(
    store: ZfsStore, root: str, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    host.run("mkfs.ext4", "-q", image, "8M")
    target = new()
    await store.create_target(Kind.VOLUME, target)
    fd = await store.open_target(target.id)
    path = f"/dev/zvol/{root}/.tmp/{target.id}"
    try:
        os.pwrite(fd, image.read_bytes(), 0)
        os.fsync(fd)
        for command in (["mkfs.ext4", "-q", "-F", path], ["mount", path, "/mnt"]):
            refused = subprocess.run(command, capture_output=True, text=True)
            assert refused.returncode != 0, command
            assert "in use" in refused.stderr or "already mounted" in refused.stderr
    finally:
        os.close(fd)
    await store.abandon(target.id)


async def test_a_target_that_cannot_be_written_is_not_called_busy(
    store: ZfsStore, root: str
) -> None:
    host.run("zfs", "set", "readonly=on", root)
    target = new()
    await store.create_target(Kind.VOLUME, target)
    with pytest.raises(Error, match="Read-only") as refused:
        await store.open_target(target.id)
    assert not isinstance(refused.value, DeviceBusy)
    await store.abandon(target.id)


async def test_a_mounted_volume_is_busy_and_the_mount_is_named(store: ZfsStore) -> None:
    made = await store.create_volume(new(size=32 * host.MIB))
    host.run("mkfs.ext4", "-q", made.device)
    host.run("mount", made.device, "/mnt")
    try:
        with pytest.raises(DeviceBusy, match="the mount on /mnt"):
            await store.destroy_volume(made.id, snapshots=False, defer=False)
        assert [user.pid for user in await store.users(made.id)] == [0]
    finally:
        host.run("umount", "/mnt")
    await store.destroy_volume(made.id, snapshots=False, defer=False)


async def test_without_udev_a_volume_is_not_made(
    store: ZfsStore, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "WAIT", 3.0)
    host.run("udevadm", "control", "--stop-exec-queue")
    try:
        with pytest.raises(DeviceTimeout, match="udev"):
            await store.create_volume(new())
    finally:
        host.run("udevadm", "control", "--start-exec-queue")
    assert not (await store.scan()).volumes
    assert host.datasets(root) == set()


async def test_a_volume_whose_device_does_not_follow_is_not_left_behind(
    store: ZfsStore, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A double of a udev that dies in the middle: the device is there, and not under its name."""
    wait_for_device = device.wait_for_device

    async def wait(dataset: str) -> str:
        if "/.tmp/" not in dataset:
            raise DeviceTimeout(f"{dataset} did not appear")
        return await wait_for_device(dataset)

    monkeypatch.setattr(device, "wait_for_device", wait)
    with pytest.raises(DeviceTimeout):
        await store.create_volume(new())
    assert host.datasets(root) == set()
    target = new()
    await store.create_target(Kind.VOLUME, target)
    with pytest.raises(DeviceTimeout):
        await store.publish(target.id)
    assert host.datasets(root) == {f".tmp/{target.id}"}
    await store.abandon(target.id)


async def test_a_device_that_is_another_volumes_is_not_believed(store: ZfsStore) -> None:
    one, two = await store.create_volume(new("one")), await store.create_volume(new("two"))
    dataset = one.device.removeprefix("/dev/zvol/")
    assert device.is_device_of(one.device, dataset)
    assert not device.is_device_of(two.device, dataset)


# What others made


async def test_a_snapshot_of_somebody_else_is_never_destroyed_along(
    store: ZfsStore, root: str
) -> None:
    made = await store.create_volume(new())
    taken = await store.create_snapshot(made.id, str(uuid.uuid4()), "ours", 1)
    host.run("zfs", "snapshot", f"{root}/{made.id}@autosnap")
    with pytest.raises(HasSnapshots, match="@autosnap"):
        await store.destroy_volume(made.id, snapshots=True, defer=True)
    with pytest.raises(NewerSnapshots, match="@autosnap"):
        await store.rollback(taken.id, destroy_newer=True)
    found = await store.scan()
    assert set(found.snapshots) == {taken.id}
    assert f"{made.id}@autosnap" in host.datasets(root)


async def test_properties_that_are_inherited_make_nothing_ours(store: ZfsStore, root: str) -> None:
    made = await store.create_volume(new())
    stranger, taken = str(uuid.uuid4()), str(uuid.uuid4())
    host.run("zfs", "create", "-s", "-V", "1M", f"{root}/{stranger}")
    host.run("zfs", "snapshot", f"{root}/{made.id}@{taken}")
    for kind in ("volume", "snapshot"):
        host.run("zfs", "set", f"org.mvirt:kind={kind}", root)
        found = await store.scan()
        assert (set(found.volumes), set(found.snapshots)) == ({made.id}, set())
    with pytest.raises(NotFound):
        await store.destroy_volume(stranger, snapshots=True, defer=True)
    with pytest.raises(NotFound):
        await store.set_labels(stranger, {"ours": "yes"})
    with pytest.raises(NotFound):
        await store.destroy_snapshot(taken, defer=True)
    assert {stranger, f"{made.id}@{taken}"} <= host.datasets(root)


async def test_a_clone_of_somebody_else_keeps_a_snapshot(store: ZfsStore, root: str) -> None:
    made = await store.create_volume(new())
    taken = await store.create_snapshot(made.id, str(uuid.uuid4()), "ours", 1)
    host.run("zfs", "clone", f"{root}/{made.id}@{taken.id}", f"{root}/theirs")
    with pytest.raises(HasClones, match=f"{root}/theirs"):
        await store.destroy_snapshot(taken.id, defer=False)
    assert set((await store.scan()).volumes) == {made.id}


async def test_a_held_snapshot_is_not_destroyed(store: ZfsStore, root: str) -> None:
    made = await store.create_volume(new())
    taken = await store.create_snapshot(made.id, str(uuid.uuid4()), "ours", 1)
    host.run("zfs", "hold", "backup", f"{root}/{made.id}@{taken.id}")
    try:
        with pytest.raises(DeviceBusy, match="held"):
            await store.destroy_volume(made.id, snapshots=True, defer=False)
        assert set((await store.scan()).snapshots) == {taken.id}
    finally:
        host.run("zfs", "release", "backup", f"{root}/{made.id}@{taken.id}")


async def test_a_bookmark_newer_than_the_snapshot_stands_in_the_way_of_a_rollback(
    store: ZfsStore, root: str
) -> None:
    made = await store.create_volume(new())
    older, target, newer = [
        (await store.create_snapshot(made.id, str(uuid.uuid4()), name, 1)).id
        for name in ("older", "target", "newer")
    ]
    for snapshot in (older, target, newer):
        host.run("zfs", "bookmark", f"{root}/{made.id}@{snapshot}", f"{root}/{made.id}#{snapshot}")
    with pytest.raises(NewerSnapshots, match=f"#{newer}; zfs destroy") as refused:
        await store.rollback(target, destroy_newer=True)
    assert f"#{target}" not in refused.value.message
    assert set((await store.scan()).snapshots) == {older, target, newer}
    host.run("zfs", "destroy", f"{root}/{made.id}#{newer}")
    await store.rollback(target, destroy_newer=True)
    assert set((await store.scan()).snapshots) == {older, target}
    await store.destroy_volume(made.id, snapshots=True, defer=False)


# What is left of a crash


async def test_what_a_power_cut_left_without_a_sign_of_whose_it_is_goes_at_the_start(
    store: ZfsStore, root: str, tmp_path: Path
) -> None:
    await store.close()
    host.run("zfs", "create", "-s", "-V", "1M", f"{root}/.tmp/{uuid.uuid4()}")
    made = f"{root}/.tmp/{uuid.uuid4()}"
    host.run("zfs", "create", "-s", "-V", "1M", made)
    host.run("zfs", "snapshot", f"{made}@img")
    await _restart(root, tmp_path)
    assert host.datasets(root) == set()


async def test_an_id_can_be_used_again_after_its_maker_could_not_clear_up(
    store: ZfsStore, root: str
) -> None:
    asked, target = new(), new("target")
    host.run("zfs", "create", "-s", "-V", "1M", f"{root}/.tmp/volumes/{asked.id}")
    host.run("zfs", "create", "-s", "-V", "1M", f"{root}/.tmp/{target.id}")
    assert (await store.create_volume(asked)).size == asked.size
    await store.create_target(Kind.VOLUME, target)
    await store.publish(target.id)
    assert host.datasets(root) == {asked.id, target.id}


async def test_a_place_without_its_properties_is_taken_over_and_a_strangers_is_not(
    root: str, tmp_path: Path
) -> None:
    host.run("zfs", "create", "-o", "mountpoint=none", f"{root}/.tmp")
    await _restart(root, tmp_path)
    assert host.get("org.mvirt:kind", f"{root}/.tmp") == "spool"
    assert host.get("volmode", f"{root}/.tmp") == "none"
    assert [host.get(name, f"{root}/.tmp") for name in ("mountpoint", "canmount")] == [
        "legacy",
        "noauto",
    ]
    host.run("zfs", "destroy", f"{root}/.tmp/volumes")
    host.run("zfs", "create", f"{root}/.tmp/volumes")
    await _restart(root, tmp_path)
    assert host.get("volmode", f"{root}/.tmp/volumes") == "dev"
    for theirs in (f"{root}/.tmp/theirs", f"{root}/.tmp/volumes"):
        host.run("zfs", "destroy", "-r", f"{root}/.tmp")
        host.run("zfs", "create", "-o", "mountpoint=none", f"{root}/.tmp")
        host.run("zfs", "create", theirs)
        with pytest.raises(PoolUnavailable, match="rename it"):
            await _restart(root, tmp_path)
        host.run("zfs", "list", theirs)


@pytest.mark.parametrize("mounted", [True, False])
async def test_a_place_with_somebody_elses_files_is_left_as_it_is(
    root: str, tmp_path: Path, mounted: bool
) -> None:
    theirs = tmp_path / "theirs"
    host.run("zfs", "create", "-o", f"mountpoint={theirs}", f"{root}/.tmp")
    (theirs / "file").write_bytes(b"kept")
    if not mounted:
        host.run("zfs", "unmount", f"{root}/.tmp")
    with pytest.raises(PoolUnavailable, match="rename it"):
        await _restart(root, tmp_path)
    assert host.get("mountpoint", f"{root}/.tmp") == str(theirs)
    assert host.get("org.mvirt:kind", f"{root}/.tmp") == "-"
    if not mounted:
        host.run("zfs", "mount", f"{root}/.tmp")
    assert (theirs / "file").read_bytes() == b"kept"


async def _restart(root: str, tmp_path: Path) -> Inventory:
    again = ZfsStore(root, runtime_directory=tmp_path)
    await again.start()
    try:
        return await again.scan()
    finally:
        await again.close()


# The pool


class Listener:
    """Notes when a store's watcher is told of a change."""

    def __init__(self, store: ZfsStore) -> None:
        self._told = asyncio.Event()
        self._task = asyncio.create_task(self._listen(store))

    async def _listen(self, store: ZfsStore) -> None:
        async for _ in store.watch():
            self._told.set()

    async def told(self) -> float:
        """The moment in which the next change was told."""
        async with asyncio.timeout(30):
            await self._told.wait()
        self._told.clear()
        return time.monotonic()

    async def quiet(self) -> None:
        """Until nothing was told for a second."""
        while True:
            self._told.clear()
            try:
                async with asyncio.timeout(1):
                    await self._told.wait()
            except TimeoutError:
                return

    async def until(self, store: ZfsStore, found: Callable[[Inventory], bool]) -> Inventory:
        """The inventory that a client of the service would see once a change was told."""
        while not found(inventory := await store.rescan()):
            await self.told()
        return inventory

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


@pytest.fixture
async def listener(store: ZfsStore) -> AsyncIterator[Listener]:
    listening = Listener(store)
    await listening.quiet()
    yield listening
    await listening.close()


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


@pytest.fixture
def fragile() -> Iterator[str]:
    """A mirror of two files: a pool that may be lost."""
    files = [Path(f"/var/tmp/fragile-{number}") for number in (1, 2)]
    for file in files:
        with file.open("wb") as opened:
            opened.truncate(256 * host.MIB)
    host.run("zpool", "create", "-O", "mountpoint=none", "fragile", "mirror", *files)
    yield "fragile"
    subprocess.run(["zpool", "import", "-d", "/var/tmp", "fragile"], capture_output=True)
    host.run("udevadm", "settle")
    host.run("zpool", "destroy", "-f", "fragile")
    for file in files:
        file.unlink()


async def test_what_comes_unfinished_with_an_imported_pool_goes(
    fragile: str, tmp_path: Path
) -> None:
    store = ZfsStore(fragile, runtime_directory=tmp_path)
    await store.start()
    listener = Listener(store)
    await listener.quiet()
    left = f"{fragile}/.tmp/{uuid.uuid4()}"
    host.run("zfs", "create", "-s", "-V", "1M", left)
    host.run("udevadm", "settle")
    host.run("zpool", "export", fragile)
    await listener.until(store, lambda found: found.pool.health == "UNAVAIL")
    host.run("zpool", "import", "-d", "/var/tmp", fragile)
    await listener.until(store, lambda found: found.pool.health == "ONLINE")
    while left.removeprefix(f"{fragile}/") in host.datasets(fragile):
        await listener.told()
    await listener.close()
    await store.close()


async def test_a_pool_that_is_exported_is_unavailable_and_comes_back_whole(
    fragile: str, tmp_path: Path
) -> None:
    store = ZfsStore(fragile, runtime_directory=tmp_path)
    await store.start()
    listener = Listener(store)
    made = await store.create_volume(new())
    host.write(made.device, b"kept")
    _, template = await golden(store, made)
    half = new("half")
    await store.create_target(Kind.VOLUME, half)
    before = await store.scan()

    host.run("udevadm", "settle")
    host.run("zpool", "export", fragile)
    lost = await listener.until(store, lambda found: found.pool.health == "UNAVAIL")
    assert not lost.volumes and not lost.templates and not lost.snapshots
    assert (await store.pool()).health == "UNAVAIL"
    for operation in (
        store.create_volume(new()),
        store.clone(template, clone()),
        store.destroy_volume(made.id, snapshots=True, defer=True),
        store.rename(made.id, "name"),
        store.resize(made.id, 2 * made.size),
        store.open_target(half.id),
        store.open_spool(),
        store.usage(made.id),
    ):
        with pytest.raises(PoolUnavailable, match="UNAVAIL"):
            await operation

    host.run("zpool", "import", "-d", "/var/tmp", fragile)
    assert await listener.until(store, lambda found: found.pool.health == "ONLINE") == before
    host.run("udevadm", "settle")
    assert host.read(made.device, 4) == b"kept"
    assert (await store.publish(half.id)).id == half.id, "what was being made goes on"
    await listener.close()
    await store.close()


async def test_a_rollback_whose_reservation_does_not_fit_destroys_no_snapshot(
    fragile: str, tmp_path: Path
) -> None:
    store = ZfsStore(fragile, runtime_directory=tmp_path)
    await store.start()
    made = await store.create_volume(new(size=32 * host.MIB, thin=False))
    snapshots = [
        (await store.create_snapshot(made.id, str(uuid.uuid4()), name, 1)).id
        for name in ("target", "newer")
    ]
    host.write(made.device, os.urandom(30 * host.MIB))
    host.run("zpool", "sync", fragile)
    other = await store.create_volume(new("other"))
    left = int(host.get("available", fragile)) - 12 * host.MIB
    host.run("zfs", "set", f"refreservation={left}", f"{fragile}/{other.id}")
    with pytest.raises(NoSpace):
        await store.rollback(snapshots[0], destroy_newer=True)
    assert set((await store.scan()).snapshots) == set(snapshots)
    await store.close()


async def test_a_disk_that_goes_offline_is_in_the_pools_health(
    fragile: str, tmp_path: Path
) -> None:
    store = ZfsStore(fragile, runtime_directory=tmp_path)
    await store.start()
    listener = Listener(store)
    await listener.quiet()
    host.run("zpool", "offline", fragile, "/var/tmp/fragile-2")
    await listener.until(store, lambda found: found.pool.health == "DEGRADED")
    host.run("zpool", "online", fragile, "/var/tmp/fragile-2")
    await listener.until(store, lambda found: found.pool.health == "ONLINE")
    await listener.close()
    await store.close()


async def test_a_volume_too_large_to_be_read_does_not_hide_the_others(
    store: ZfsStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit is a double: what a program may take at most is 100 MiB."""
    small, large, other = [await store.create_volume(new()) for _ in range(3)]
    dataset = f"{store.pool_name}/{large.id}"
    pieces = [f"{PREFIX}labels{f'-{n}' if n else ''}={'x' * PIECE}" for n in range(20)]
    host.run("zfs", "set", *pieces, dataset)
    assert set((await store.scan()).volumes) == {small.id, large.id, other.id}
    monkeypatch.setattr("mvirt_zfs_dbus.store.openzfs.kernel.MEMORY_LIMIT", 512 * 1024)
    assert set((await store.scan()).volumes) == {small.id, other.id}
    assert f"{dataset} cannot be read" in caplog.text


async def test_a_root_that_leaves_no_room_for_names_is_refused(root: str, tmp_path: Path) -> None:
    longest = root + "/" + "x" * (181 - len(f"{root}/"))
    host.run("zfs", "create", "-o", "mountpoint=none", longest)
    with pytest.raises(PoolUnavailable, match="longer than"):
        await _restart(f"{longest}x", tmp_path)
    store = ZfsStore(longest, runtime_directory=tmp_path)
    await store.start()
    made = await store.create_volume(new())
    await store.create_snapshot(made.id, str(uuid.uuid4()), "taken", 1)
    assert len((await store.scan()).snapshots) == 1
    await store.close()


async def test_a_pool_that_is_locked_says_so(root: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    locked = f"{root}/locked"
    encryption = ["-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}"]
    host.run("zfs", "create", "-o", "mountpoint=none", *encryption, locked)
    store = ZfsStore(locked, runtime_directory=tmp_path)
    await store.start()
    made = await store.create_volume(new())
    host.write(made.device, b"secret")
    host.run("udevadm", "settle")
    host.run("zfs", "unload-key", locked)
    with pytest.raises(PoolUnavailable, match="load-key"):
        await store.scan()
    host.run("zfs", "load-key", locked)
    assert set((await store.scan()).volumes) == {made.id}
    await store.close()
    host.run("udevadm", "settle")
    host.run("zfs", "unload-key", locked)
    with pytest.raises(PoolUnavailable, match="load-key"):
        await _restart(locked, tmp_path)
