"""What fails below and beside the service, and what the service makes of it.

After each fault: the documented error, nothing lost, nothing half-made, a service that works on.
``tests/machine/guest/test_faults.py`` does the same to an installed service on real ZFS.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from busdaemon import BusDaemon
from mortal_disk import MortalDisk, mortal_disk

from mvirt_zfs_dbus.names import ErrorName, Interface

from .faults import JOB, failed, fed_import, left_in, refused, served, works
from .process import MIB, Client, ServiceProcess, client_on


def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A file system of so many bytes."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system takes root")
    folder.mkdir()
    options = f"size={size},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


def fill(folder: Path) -> Path:
    """The file that takes all space that was left."""
    filler = folder / "filler"
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return filler


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "small", "8m")


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "tiny", "64k")


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[MortalDisk]:
    with mortal_disk(tmp_path / "mortal") as disk:
        yield disk


# The disks below


async def test_a_disk_that_takes_no_more_writes_during_an_import_loses_nothing(
    bus_address: str, connected: Client, mortal: MortalDisk
) -> None:
    directory = mortal.mount
    async with served(connected, bus_address, directory) as service:
        kept = await connected.create("kept")
        device = await connected.device(kept)
        with device.open("r+b") as disk:
            disk.write(b"still here")
            disk.flush()
            os.fsync(disk.fileno())
        async with fed_import(connected) as fed:
            mortal.die()
            await fed.feed(os.urandom(4 * MIB))
        said = await failed(connected, fed.job, ErrorName.POOL_UNAVAILABLE)
        assert "Input/output error" in said or "Read-only" in said
        await refused(connected.create("impossible"), ErrorName.POOL_UNAVAILABLE)
        assert await connected.manager("ListVolumes", "a{sv}", {}) == [kept]
        assert device.read_bytes()[:10] == b"still here"
    mortal.revive()
    await service.start(connected.connection)
    try:
        properties = await connected.get_all(fed.job, JOB)  # its end could not be written
        assert properties["ErrorName"] == ErrorName.INTERRUPTED
        assert await connected.manager("ListVolumes", "a{sv}", {}) == [kept]
        assert device.read_bytes()[:10] == b"still here"
        assert len(left_in(directory)) == 2
        await works(connected, directory)
    finally:
        await service.stop()


async def test_disks_that_become_read_only_are_shown_and_nothing_is_changed(
    bus_address: str, connected: Client, small: Path, tmp_path: Path, image: Path
) -> None:
    directory = small
    state = ("--state-directory", str(tmp_path / "state"))
    async with served(connected, bus_address, directory, *state):
        volume = await connected.create("web")
        snapshot = await connected.snapshot(volume)
        before = left_in(directory)
        remount(small, "ro")
        for call in (
            connected.create("another"),
            connected.snapshot(volume, "second"),
            connected.template(snapshot),
            connected.call(volume, Interface.VOLUME, "Resize", "ta{sv}", 2 * MIB, {}),
            connected.call(volume, Interface.VOLUME, "Rename", "sa{sv}", "other", {}),
            connected.call(snapshot, Interface.SNAPSHOT, "Rollback", "a{sv}", {}),
            connected.call(snapshot, Interface.SNAPSHOT, "Delete", "a{sv}", {}),
        ):
            await refused(call, ErrorName.POOL_UNAVAILABLE)
        job = await connected.import_path("image", image)
        await failed(connected, job, ErrorName.POOL_UNAVAILABLE)
        assert left_in(directory) == before
        remount(small, "rw")
        assert await connected.get(volume, Interface.VOLUME, "Name") == "web"
        await works(connected, directory)


async def test_disks_without_space_end_the_import_and_give_back_what_it_took(
    bus_address: str, connected: Client, small: Path
) -> None:
    directory = small
    async with served(connected, bus_address, directory):
        kept = await connected.create("kept")
        before = left_in(directory)
        for _ in range(3):
            async with fed_import(connected) as fed:
                await fed.feed(os.urandom(16 * MIB))
            await failed(connected, fed.job, ErrorName.NO_SPACE)
            assert left_in(directory) == before
            assert os.statvfs(small).f_bavail * os.statvfs(small).f_frsize > 6 * MIB
        assert await connected.manager("ListVolumes", "a{sv}", {}) == [kept]
        await works(connected, directory)


async def test_damaged_records_of_disks_and_jobs_hide_nothing_else(
    client: Client, service: ServiceProcess, directory: Path, image: Path
) -> None:
    volume = await client.create("whole")
    job = await client.import_path("image", image)
    await client.completed(job)
    await service.stop()
    whole = next(directory.glob("*.json")).read_bytes()
    damaged = [b"", b"{", b"[]", b"[" * 100_000, os.urandom(5000), b"\0" * 4096, whole[:-9]]
    for number, data in enumerate(damaged, 1):
        for folder in (directory, directory / ".state" / "jobs"):
            (folder / f"{uuid.UUID(int=number)}.json").write_bytes(data)
        (directory / f"{uuid.UUID(int=number)}.raw").write_bytes(b"whose?")
    await service.start(client.connection)
    shown = [path for path in await client.objects() if "/pool/" not in path]
    assert len(shown) == 3 and {volume, job} <= set(shown)
    for number in range(1, len(damaged) + 1):
        assert (directory / f"{uuid.UUID(int=number)}.raw").read_bytes() == b"whose?"
    await works(client, directory)
    assert "Traceback" not in service.log.read_text()


# The state directory


async def test_a_read_only_state_directory_refuses_jobs_and_nothing_else(
    bus_address: str, connected: Client, tiny: Path, directory: Path, image: Path
) -> None:
    async with served(connected, bus_address, directory, "--state-directory", str(tiny)):
        done = await connected.import_path("before", image)
        await connected.completed(done)
        remount(tiny, "ro")
        await refused(connected.import_path("web", image), ErrorName.FAILED)
        assert await connected.get(done, JOB, "State") == "done"
        await works(connected, directory)
        remount(tiny, "rw")
        job = await connected.import_path("web", image)
        assert (await connected.completed(job))["State"] == "done"


async def test_a_full_state_directory_refuses_jobs_and_loses_none_that_runs(
    bus_address: str, connected: Client, tiny: Path, directory: Path, image: Path
) -> None:
    state = ("--state-directory", str(tiny))
    async with served(connected, bus_address, directory, *state) as service:
        async with fed_import(connected) as fed:
            filler = fill(tiny)
            await refused(connected.import_path("other", image), ErrorName.NO_SPACE)
            await works(connected, directory)
        properties = await connected.completed(fed.job)
        assert properties["State"] == "done"
    await service.start(connected.connection)
    try:
        again = await connected.get_all(fed.job, JOB)  # its end could not be written
        assert (again["State"], again["Result"]) == ("done", properties["Result"])
        filler.unlink()
        job = await connected.import_path("other", image)
        assert (await connected.completed(job))["State"] == "done"
    finally:
        await service.stop()


# The bus


async def test_a_bus_that_is_restarted_gets_the_service_back_with_everything(
    client: Client, service: ServiceProcess, bus_daemon: BusDaemon, directory: Path, tmp_path: Path
) -> None:
    """systemd starts the service again when it ends with a failure; here, the test does."""

    def disks(objects: dict[str, Any]) -> dict[str, Any]:
        return {path: value for path, value in objects.items() if "/job/" not in path}

    template = await client.template(await client.snapshot(await client.create("web")))
    await client.clone(template)
    before = disks(await client.objects())
    async with fed_import(client, "unfinished") as fed:
        bus_daemon.kill()
        assert service.process
        assert await service.process.wait() == 1
    (tmp_path / "bus").mkdir()
    restarted = BusDaemon(tmp_path / "bus")
    try:
        service.address = restarted.address
        async with client_on(restarted.address) as again:
            await service.start(again.connection)
            found = await again.objects()
            assert disks(found).keys() == before.keys()
            for path in before.keys() - {path for path in before if "/pool/" in path}:
                assert found[path] == before[path]
            assert found[fed.job][str(JOB)]["ErrorName"] == ErrorName.INTERRUPTED
            await works(again, directory)
            assert await service.stop() == 0
    finally:
        restarted.stop()
    assert "Traceback" not in service.log.read_text()
