"""What the directory store does better where the file system shares extents."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mvirt_zfs_dbus.model import Volume
from mvirt_zfs_dbus.store.base import NewClone, NewDataset
from mvirt_zfs_dbus.store.directory import DirectoryStore

MIB = 1024 * 1024
DATA = 32 * MIB
VOLUME, SNAPSHOT, TEMPLATE, CLONE = (f"00000000-0000-4000-8000-{n:012d}" for n in range(4))


@pytest.fixture(
    scope="module",
    params=[["mkfs.xfs", "-q", "-m", "reflink=1"], ["mkfs.btrfs", "-q"]],
    ids=["xfs", "btrfs"],
)
def mount(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a file system takes root")
    directory = tmp_path_factory.mktemp("reflinks")
    image, mount = directory / "image", directory / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(512 * MIB)
    for command in ([*request.param, str(image)], ["mount", "-o", "loop", str(image), str(mount)]):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            pytest.skip(f"{command[0]}: {getattr(error, 'stderr', error)}")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.fixture
async def store(mount: Path, request: pytest.FixtureRequest) -> AsyncIterator[DirectoryStore]:
    path = mount / request.function.__name__
    path.mkdir()
    store = DirectoryStore(path)
    await store.start()
    yield store
    await store.close()


async def written_volume(store: DirectoryStore) -> Volume:
    made = await store.create_volume(NewDataset(VOLUME, "disk", DATA, 4096))
    with Path(made.device).open("r+b") as file:
        file.write(os.urandom(DATA))
        file.flush()
        os.fsync(file.fileno())
    return made


async def test_snapshots_templates_clones_and_rollbacks_share_their_data(
    store: DirectoryStore, mount: Path
) -> None:
    made = await written_volume(store)
    os.sync()
    before = (await store.pool()).usage.available
    await store.create_snapshot(made.id, SNAPSHOT, "snapshot", 1)
    await store.template_from_snapshot(SNAPSHOT, NewClone(TEMPLATE, "template"))
    clone = await store.clone(TEMPLATE, NewClone(CLONE, "clone"))
    await store.rollback(SNAPSHOT, destroy_newer=False)
    os.sync()
    assert before - (await store.pool()).usage.available < DATA // 4
    assert Path(clone.device).read_bytes() == Path(made.device).read_bytes()


async def test_a_full_copy_shares_nothing(store: DirectoryStore) -> None:
    made = await written_volume(store)
    await store.create_snapshot(made.id, SNAPSHOT, "snapshot", 1)
    os.sync()
    before = (await store.pool()).usage.available
    await store.copy_to_template(SNAPSHOT, NewClone(TEMPLATE, "copy"), lambda done, total: None)
    os.sync()
    assert before - (await store.pool()).usage.available > DATA * 3 // 4


async def test_a_volume_in_use_is_snapshotted_as_of_one_moment(store: DirectoryStore) -> None:
    """Two ends of the disk are written in turn: the first is never behind the second."""
    made = await written_volume(store)
    code = (
        "import os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "for n in range(10**9):\n"
        "    data = n.to_bytes(8, 'big')\n"
        "    os.pwrite(fd, data, 0)\n"
        f"    os.pwrite(fd, data, {DATA} - 8)\n"
        "    if n == 0: print(flush=True)\n"
    )
    guest = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, made.device, stdout=asyncio.subprocess.PIPE
    )
    assert guest.stdout is not None
    await guest.stdout.readline()
    try:
        taken = await store.create_snapshot(made.id, SNAPSHOT, "snapshot", 1)
    finally:
        guest.kill()
        await guest.communicate()
    raw = Path(made.device).with_name(f"{made.id}@{taken.id}.raw").read_bytes()
    first, last = raw[:8], raw[-8:]
    difference = int.from_bytes(first, "big") - int.from_bytes(last, "big")
    assert difference in (0, 1)
