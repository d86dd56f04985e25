"""The machine itself: what every other test here takes for granted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import libzfs_core
import pytest

POOL = "tank"


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def dataset() -> Iterator[str]:
    name = f"{POOL}/smoke-{uuid4()}"
    yield name
    subprocess.run(["udevadm", "settle"], check=True)
    subprocess.run(["zfs", "destroy", "-r", name], check=True)


def test_the_kernel_has_zfs_of_the_release_the_product_is_made_for() -> None:
    assert Path("/sys/module/zfs/version").read_text().startswith("2.")


def test_the_pool_is_online_on_its_own_disk() -> None:
    assert output("zpool", "list", "-H", "-o", "health", POOL) == "ONLINE"
    disk = Path("/dev/disk/by-id/virtio-pool").resolve()
    assert str(disk) in output("zpool", "status", "-LP", POOL)


def test_the_system_bus_systemd_and_polkit_answer() -> None:
    call = ("busctl", "--system", "call")
    assert output(*call, "org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId")
    polkit = ("org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority")
    enumerate_actions = ("org.freedesktop.PolicyKit1.Authority", "EnumerateActions", "s", "C")
    assert "org.freedesktop.systemd1.manage-units" in output(*call, *polkit, *enumerate_actions)
    assert output("systemctl", "list-units", "--failed", "--quiet", "--plain") == ""


def test_libzfs_core_creates_a_zvol_whose_device_appears(dataset: str) -> None:
    size = 64 << 20
    libzfs_core.lzc_create(dataset.encode(), "zvol", {b"volsize": size})
    output("udevadm", "settle", f"--exit-if-exists=/dev/zvol/{dataset}")
    assert output("blockdev", "--getsize64", f"/dev/zvol/{dataset}") == str(size)


def test_a_channel_program_sets_a_user_property(dataset: str) -> None:
    libzfs_core.lzc_create(dataset.encode(), "zvol", {b"volsize": 1 << 20})
    program = b'name = (...)["argv"]["name"]; return zfs.sync.set_prop(name, "org.mvirt:kind", "v")'
    parameters = {b"name": dataset.encode()}
    assert libzfs_core.lzc_channel_program(POOL.encode(), program, params=parameters) == 0
    assert output("zfs", "get", "-H", "-o", "value", "org.mvirt:kind", dataset) == "v"
