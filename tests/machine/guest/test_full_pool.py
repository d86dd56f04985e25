"""A pool that fills: the error says so, nothing half-made is left, and the service works on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import host
import pytest
from host import MIB, SMALL, fed, serving, small_pool

from mvirt_zfs_dbus.client import Client
from mvirt_zfs_dbus.errors import NoSpace

SMALL_SIZE = 128 * MIB


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The service serves a pool of 128 MiB."""
    file = tmp_path_factory.mktemp("pool") / "vdev"
    with file.open("wb") as vdev:
        vdev.truncate(SMALL_SIZE)
    with small_pool(str(file)), serving(SMALL):
        yield


async def works_on(client: Client) -> None:
    """Nothing is left, and the service makes and destroys a volume."""
    host.run("zpool", "sync", SMALL)  # ZFS gives space back with the next transaction group
    host.run("zpool", "wait", "-t", "free", SMALL)
    assert host.datasets(SMALL) == set()
    volume = await client.manager.create_volume("after-the-fault", MIB)
    host.write(volume.device, b"fine")
    await volume.delete()
    assert host.datasets(SMALL) == set()


async def test_a_pool_that_fills_during_an_import_is_no_space_and_leaves_nothing(
    small: None,
) -> None:
    pid = host.unit("MainPID")
    async with Client.connect("system") as client:
        with fed(2 * SMALL_SIZE) as pipe:
            job = await client.manager.import_image("too-much", pipe, format="raw")
            with pytest.raises(NoSpace):
                await job.wait()
        await works_on(client)
    assert host.unit("MainPID") == pid


async def test_a_pool_that_fills_with_what_has_to_wait_leaves_nothing(
    small: None, tmp_path: Path
) -> None:
    """A VMDK that cannot be read twice is kept in the pool's own place first."""
    raw, image = tmp_path / "raw", tmp_path / "image.vmdk"
    with raw.open("wb") as file:
        for _ in range(0, SMALL_SIZE, MIB):
            file.write(os.urandom(MIB))
    host.run("qemu-img", "convert", "-O", "vmdk", raw, image)
    async with Client.connect("system") as client:
        with image.open("rb") as file, subprocess.Popen(["cat"], stdin=file, stdout=-1) as cat:
            assert cat.stdout is not None
            job = await client.manager.import_image("too-much", cat.stdout.fileno())
            cat.stdout.close()
            with pytest.raises(NoSpace):
                await job.wait()
        await works_on(client)


async def test_what_does_not_fit_is_refused_before_anything_is_made(small: None) -> None:
    async with Client.connect("system") as client:
        with pytest.raises(NoSpace):
            await client.manager.create_volume("thick", 2 * SMALL_SIZE, thin=False)
        await works_on(client)
