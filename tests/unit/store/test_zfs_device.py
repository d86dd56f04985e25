from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from open_fds import open_fds

from mvirt_zfs_dbus.errors import DeviceTimeout
from mvirt_zfs_dbus.model import User
from mvirt_zfs_dbus.store.openzfs import device


def test_a_blank_in_a_pools_name_is_written_as_udev_writes_it() -> None:
    assert device.device_path("my tank/1") == "/dev/zvol/my+tank/1"


def test_a_file_and_another_device_are_not_the_datasets_device(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "missing", Path("/dev/null")):
        assert not device.is_device_of(str(path), "tank/1")


async def test_a_device_that_does_not_appear_is_waited_for_and_then_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "WAIT", 0.1)
    with pytest.raises(DeviceTimeout, match="/dev/zvol/no-pool/1"):
        await device.wait_for_device("no-pool/1")


async def test_a_device_is_found_when_udev_is_through_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A double of udev, its links and its database, and of the kernel's word on the dataset."""
    link, database = tmp_path / "1", tmp_path / "data"
    database.mkdir()
    monkeypatch.setattr(device, "device_path", lambda _dataset: str(link))
    monkeypatch.setattr(device, "is_device_of", lambda path, _dataset: Path(path).is_symlink())
    monkeypatch.setattr(device, "_LOOK_AGAIN", 60.0)
    monkeypatch.setattr(device, "_UDEV_DATABASE", database)
    waiting = asyncio.create_task(device.wait_for_device("tank/1"))
    await asyncio.sleep(0)
    (database / "b8:0").touch()
    link.symlink_to("/dev/null")
    (database / "b230:0").touch()
    async with asyncio.timeout(30):
        assert await waiting == str(link)
        going = asyncio.create_task(device.wait_until_gone("tank/1", 30))
        await asyncio.sleep(0)
        link.unlink()
        (database / "b230:0").unlink()
        assert await going


async def test_nothing_stays_open_after_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "WAIT", 0.01)
    before = open_fds()
    for _ in range(3):
        with pytest.raises(DeviceTimeout):
            await device.wait_for_device("no-pool/1")
    assert open_fds() == before


async def test_the_device_of_a_dataset_that_is_gone_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "_LOOK_AGAIN", 0.01)
    asked: list[str] = []

    async def still_there(dataset: str) -> bool:
        asked.append(dataset)
        return len(asked) < 3

    async with asyncio.timeout(20):  # less than it would wait for the device
        assert not await device.wait_for_devices(["no-pool/1"], still_there)
    assert asked == ["no-pool/1"] * 3


@pytest.mark.parametrize("number", [errno.ENXIO, 512])
def test_a_device_that_is_not_ready_is_not_there_yet(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """512 is ERESTARTSYS, which zvol_open lets out while a pool is imported: a double of that."""

    def not_ready(_path: str, _flags: int) -> int:
        raise OSError(number, "not ready")

    monkeypatch.setattr(os, "open", not_ready)
    assert not device.is_device_of("/dev/zvol/tank/1", "tank/1")


def test_what_udev_does_with_a_disk_is_no_use_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = User(3, "qemu-system-x86")
    openers = [User(1, "(udev-worker)"), User(2, "zvol_id"), guest]
    monkeypatch.setattr(device, "_openers", lambda _dataset: openers)
    assert device.users_of("tank/web") == [guest]
