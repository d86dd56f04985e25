"""Device nodes, and who may look into them."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from pathlib import Path

import host
import pytest
from stores import clone, golden, new

from mvirt_zfs_dbus.errors import (
    DeviceBusy,
    DeviceTimeout,
    Error,
)
from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.openzfs import device
from mvirt_zfs_dbus.store.zfs import ZfsStore


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
    with host.udev_standing_still():
        host.run("zfs", "create", "-s", "-V", "1M", "-o", "volmode=dev", places[0])
        assert _has_disk(places[0])
        host.run("zfs", "clone", "-o", "volmode=dev", f"{root}/{template}@img", places[1])
        assert _has_disk(places[1])
        host.run("zfs", "rename", places[0], f"{root}/renamed")
        host.run("zfs", "set", "volsize=16M", places[1])
    host.run("udevadm", "wait", "--timeout=60", f"/dev/zvol/{root}/renamed")


def _has_disk(dataset: str) -> bool:
    return any(device.is_device_of(str(path), dataset) for path in Path("/dev").glob("zd*[0-9]"))


async def test_lvm_reads_guests_disks_unless_it_is_told_as_the_page_tells_it(
    store: ZfsStore,
) -> None:
    page = Path(__file__).parents[4] / "docs" / "administrator.md"
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
    with host.udev_standing_still(), pytest.raises(DeviceTimeout, match="udev"):
        await store.create_volume(new())
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
