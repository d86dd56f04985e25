"""What is the directory store's own: its files, and what a hand does to them.

What every store does is in ``tests/contract``.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import select
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mvirt_zfs_dbus.errors import (
    AlreadyExists,
    DeviceBusy,
    Error,
    NoSpace,
    NotFound,
    PoolUnavailable,
)
from mvirt_zfs_dbus.model import Kind, Snapshot, Volume
from mvirt_zfs_dbus.store.base import NewClone, NewDataset
from mvirt_zfs_dbus.store.directory import DirectoryStore
from mvirt_zfs_dbus.store.files import reflink

MIB = 1024 * 1024


def an_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


async def volume(store: DirectoryStore, number: int = 1, size: int = MIB) -> Volume:
    return await store.create_volume(NewDataset(an_id(number), f"disk-{number}", size, 4096))


async def snapshot(store: DirectoryStore, of: Volume, number: int = 50) -> Snapshot:
    return await store.create_snapshot(of.id, an_id(number), f"snapshot-{number}", number)


def write(device: str, data: bytes) -> None:
    with Path(device).open("r+b") as file:
        file.write(data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "pool"
    path.mkdir()
    return path


@pytest.fixture
async def store(path: Path) -> AsyncIterator[DirectoryStore]:
    store = DirectoryStore(path)
    await store.start()
    yield store
    await store.close()


# The directory


async def test_the_pool_is_named_after_the_directory(store: DirectoryStore) -> None:
    assert store.pool_name == "pool"
    assert (await store.scan()).pool.name == "pool"


async def test_a_device_is_the_absolute_path_of_its_raw_file(
    store: DirectoryStore, path: Path
) -> None:
    made = await volume(store)
    assert made.device == f"{path}/{made.id}.raw"


async def test_the_directory_and_its_files_are_private_to_their_owner(
    store: DirectoryStore, path: Path
) -> None:
    made = await volume(store)
    await snapshot(store, made)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for file in path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


async def test_what_others_are_cloned_from_is_read_only(store: DirectoryStore, path: Path) -> None:
    made = await volume(store)
    taken = await snapshot(store, made)
    template = await store.template_from_snapshot(taken.id, NewClone(an_id(2), "golden"))
    clone = await store.clone(template.id, NewClone(an_id(3), "clone"))
    modes = {key: Path(key).stat().st_mode & 0o777 for key in (template.device, clone.device)}
    assert modes == {template.device: 0o400, clone.device: 0o600}
    assert (path / f"{made.id}@{taken.id}.raw").stat().st_mode & 0o777 == 0o400


async def test_a_directory_everybody_may_write_into_is_refused(path: Path) -> None:
    path.chmod(0o777)
    with pytest.raises(PoolUnavailable, match="everybody may write"):
        await DirectoryStore(path).start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o777


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away takes root")
async def test_a_directory_of_somebody_else_is_refused(path: Path) -> None:
    os.chown(path, 12345, -1)
    with pytest.raises(PoolUnavailable, match="12345"):
        await DirectoryStore(path).start()


async def test_a_file_is_no_directory_to_start_in(path: Path) -> None:
    (path / "file").touch()
    with pytest.raises(PoolUnavailable, match="directory"):
        await DirectoryStore(path / "file").start()


async def test_a_link_in_place_of_the_temporary_directory_is_not_followed(
    path: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (path / ".tmp").symlink_to(elsewhere)
    with pytest.raises(PoolUnavailable, match=r"\.tmp"):
        await DirectoryStore(path).start()
    assert (elsewhere / "precious").exists()


async def test_a_refused_start_leaves_the_directory_to_others(path: Path) -> None:
    (path / ".tmp").write_text("in the way")
    with pytest.raises(PoolUnavailable):
        await DirectoryStore(path).start()
    (path / ".tmp").unlink()
    store = DirectoryStore(path)
    await store.start()
    await store.close()


async def test_a_killed_service_leaves_no_lock(path: Path) -> None:
    """The lock is the kernel's, and goes with the process that had it."""
    code = (
        "import asyncio, os, signal, sys; from pathlib import Path;"
        "from mvirt_zfs_dbus.store.directory import DirectoryStore;"
        "asyncio.run(DirectoryStore(Path(sys.argv[1])).start());"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False, capture_output=True)
    store = DirectoryStore(path)
    await store.start()
    await store.close()


# Files that are not ours


async def test_files_that_are_not_ours_are_neither_listed_nor_touched(
    store: DirectoryStore, path: Path
) -> None:
    await store.close()
    names = ["notes.txt", "disk.raw", f"{an_id(7)}.raw", f"{an_id(8)}.raw.bak", ".hidden"]
    for name in names:
        (path / name).write_text(name)
    (path / f"{an_id(9)}.json").mkdir()
    os.mkfifo(path / f"{an_id(10)}.json")
    again = DirectoryStore(path)
    await again.start()
    found = await again.scan()
    await again.close()
    assert not found.volumes and not found.templates
    assert [(path / name).read_text() for name in names] == names


async def test_symbolic_links_are_never_followed(
    store: DirectoryStore, path: Path, tmp_path: Path
) -> None:
    made = await volume(store)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 1000)
    (path / f"{made.id}.raw").unlink()
    (path / f"{made.id}.raw").symlink_to(secret)
    assert not (await store.scan()).volumes
    for operation in (
        store.resize(made.id, 2 * MIB),
        snapshot(store, made),
        store.destroy_volume(made.id, snapshots=True, defer=True),
    ):
        with pytest.raises(NotFound):
            await operation
    (path / f"{an_id(2)}.json").symlink_to(path / f"{made.id}.json")
    (path / f"{an_id(2)}.raw").write_bytes(bytes(MIB))
    assert not (await store.scan()).volumes
    with pytest.raises(AlreadyExists):
        await volume(store, 2)
    assert secret.read_bytes() == b"secret" * 1000


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"garbage",
        b"[]",
        b'{"version": 2}',
        b'{"version": 1, "kind": 5}',
        b"[" * 100_000,
        b"\xff" * 100,
    ],
    ids=["empty", "garbage", "list", "future", "wrong type", "deep", "not UTF-8"],
)
async def test_a_damaged_record_is_logged_and_its_disk_left_alone(
    store: DirectoryStore, path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    other = await volume(store, 2)
    made = await volume(store)
    write(made.device, b"precious")
    (path / f"{made.id}.json").write_bytes(damage)
    for current in (store, DirectoryStore(path)):
        if current is not store:
            await store.close()
            await current.start()
        with caplog.at_level(logging.ERROR):
            assert (await current.scan()).volumes == {other.id: other}
        assert f"{made.id}.json is damaged" in caplog.text
        with pytest.raises(NotFound):
            await current.destroy_volume(made.id, snapshots=True, defer=True)
        with pytest.raises(AlreadyExists):
            await volume(current)
        await volume(current, 3 if current is store else 4)
        await current.destroy_volume(an_id(3 if current is store else 4), **GONE)
    await current.close()
    assert Path(made.device).read_bytes()[:8] == b"precious"
    assert (path / f"{made.id}.json").read_bytes() == damage


GONE = {"snapshots": False, "defer": False}


# What a hand does


async def test_a_raw_file_taken_away_and_brought_back_is_the_same_volume(
    store: DirectoryStore, path: Path, tmp_path: Path
) -> None:
    made = await volume(store)
    write(made.device, b"kept")
    taken = await snapshot(store, made)
    before = await store.scan()
    changes = store.watch()
    Path(made.device).rename(tmp_path / "aside")
    async with asyncio.timeout(30):
        await anext(changes)
    found = await store.scan()
    assert not found.volumes and not found.snapshots
    for operation in (
        store.rename(made.id, "name"),
        store.destroy_snapshot(taken.id, defer=True),
        store.rollback(taken.id, destroy_newer=True),
    ):
        with pytest.raises(NotFound):
            await operation
    await store.collect()
    await store.close()
    again = DirectoryStore(path)
    await again.start()
    changes = again.watch()
    (tmp_path / "aside").rename(made.device)
    async with asyncio.timeout(30):
        await anext(changes)
    assert await again.scan() == before
    await again.close()
    assert Path(made.device).read_bytes()[:4] == b"kept"


async def test_a_snapshot_taken_away_is_gone_and_its_volume_free(
    store: DirectoryStore, path: Path
) -> None:
    made = await volume(store)
    taken = await snapshot(store, made)
    (path / f"{made.id}@{taken.id}.raw").unlink()
    assert not (await store.scan()).snapshots
    await store.destroy_volume(made.id, **GONE)
    assert [file.name for file in path.iterdir()] == [".tmp"]


async def test_a_volume_copied_in_by_hand_appears(store: DirectoryStore, path: Path) -> None:
    made = await volume(store)
    for suffix in (".raw", ".json"):
        shutil.copy(path / (made.id + suffix), path / (an_id(2) + suffix))
    assert set((await store.scan()).volumes) == {made.id, an_id(2)}
    await store.destroy_volume(an_id(2), **GONE)
    assert set((await store.scan()).volumes) == {made.id}


async def test_a_size_changed_by_hand_is_seen(store: DirectoryStore) -> None:
    made = await volume(store)
    changes = store.watch()
    with Path(made.device).open("r+b") as file:
        file.truncate(4 * MIB)
    async with asyncio.timeout(30):
        await anext(changes)
    assert (await store.scan()).volumes[made.id].size == 4 * MIB


async def test_guests_writing_wake_nobody(store: DirectoryStore) -> None:
    made = await volume(store)
    with Path(made.device).open("r+b", buffering=0) as guest:
        await until_quiet(store)
        waiting = asyncio.ensure_future(anext(store.watch()))
        await asyncio.sleep(0)
        for _ in range(100):
            guest.write(b"x" * 512)
        await until_quiet(store)
        await asyncio.sleep(0)
        assert not waiting.done()
    async with asyncio.timeout(30):
        await waiting


async def test_a_change_lost_in_a_flood_of_events_is_told(
    store: DirectoryStore, path: Path
) -> None:
    """The flood is beside the directory and wakes nobody; that it overflowed does."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    made = await volume(store)
    await until_quiet(store)
    changes = store.watch()
    noise = path.parent / "noise"
    for _ in range(limit // 2 + 1):
        noise.touch()
        noise.unlink()
    Path(made.device).unlink()
    async with asyncio.timeout(30):
        await anext(changes)


async def until_quiet(store: DirectoryStore) -> None:
    """Have the store read all that the kernel has to say so far."""
    assert store._watch is not None
    while select.select([store._watch._fd], [], [], 0)[0]:
        store._watch._read()


# The directory lost


async def test_a_directory_that_is_moved_away_is_unavailable_until_it_is_back(
    store: DirectoryStore, path: Path
) -> None:
    made = await volume(store)
    before = await store.scan()
    await until_quiet(store)
    changes = store.watch()
    aside = path.with_name("aside")
    path.rename(aside)
    async with asyncio.timeout(30):
        await anext(changes)
    found = await store.scan()
    assert not found.volumes
    assert (await store.pool()).health == "UNAVAIL"
    for operation in (
        volume(store, 2),
        store.rename(made.id, "name"),
        store.destroy_volume(made.id, snapshots=True, defer=True),
        store.open_target(made.id),
    ):
        with pytest.raises(PoolUnavailable):
            await operation
    await until_quiet(store)
    changes = store.watch()
    aside.rename(path)
    async with asyncio.timeout(30):
        await anext(changes)
    assert await store.scan() == before


async def test_a_deleted_directory_is_told_and_unavailable(
    store: DirectoryStore, path: Path
) -> None:
    (path / ".tmp").rmdir()
    await until_quiet(store)
    changes = store.watch()
    path.rmdir()
    async with asyncio.timeout(30):
        await anext(changes)
    assert (await store.scan()).pool.health == "UNAVAIL"
    with pytest.raises(PoolUnavailable, match="gone"):
        await volume(store, 2)
    with pytest.raises(PoolUnavailable):
        await store.open_spool()


async def test_another_directory_in_its_place_is_not_taken_for_it(
    store: DirectoryStore, path: Path
) -> None:
    path.rename(path.with_name("aside"))
    path.mkdir()
    assert (await store.scan()).pool.health == "UNAVAIL"
    with pytest.raises(PoolUnavailable, match="another directory"):
        await volume(store)
    assert not list(path.iterdir())


# Copies


@pytest.fixture
def without_reflinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on ext4, whatever file system this machine's temporary directory is on."""
    monkeypatch.setattr("mvirt_zfs_dbus.store.files.making.reflink", lambda source, target: False)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflink, "CHUNK", 4096)


async def test_a_copy_cancelled_halfway_leaves_nothing(
    store: DirectoryStore, path: Path, small_chunks: None
) -> None:
    made = await volume(store)
    write(made.device, b"x" * MIB)
    taken = await snapshot(store, made)
    before = {file.name for file in path.iterdir()}
    told: list[int] = []

    def cancel(done: int, _total: int) -> None:
        told.append(done)
        copying.cancel()

    asked = NewClone(an_id(2), "copy")
    copying = asyncio.ensure_future(store.copy_to_template(taken.id, asked, cancel))
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert told
    assert {file.name for file in path.iterdir()} == before


async def test_a_copy_cancelled_after_its_end_leaves_nothing(
    store: DirectoryStore, path: Path
) -> None:
    """The thread is done and the task does not know yet: the last moment there is."""
    made = await volume(store)
    taken = await snapshot(store, made)
    before = {file.name for file in path.iterdir()}
    publish = store._making.copy_to_template

    def publish_then_cancel(*arguments: object) -> object:
        template = publish(*arguments)  # type: ignore[arg-type]
        loop.call_soon_threadsafe(copying.cancel)
        return template

    loop = asyncio.get_running_loop()
    store._making.copy_to_template = publish_then_cancel  # type: ignore[assignment,method-assign]
    asked = NewClone(an_id(2), "copy")
    copying = asyncio.ensure_future(store.copy_to_template(taken.id, asked, lambda *_: None))
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert {file.name for file in path.iterdir()} == before


async def test_a_copy_that_waits_for_a_thread_is_cancelled_at_once(
    store: DirectoryStore, path: Path
) -> None:
    made = await volume(store)
    taken = await snapshot(store, made)
    template = await store.template_from_snapshot(taken.id, NewClone(an_id(2), "golden"))
    before = {file.name for file in path.iterdir()}
    busy = asyncio.Event()
    release = threading.Event()
    loop = asyncio.get_running_loop()

    def block() -> None:
        loop.call_soon_threadsafe(busy.set)
        release.wait()

    blocked = [store._copying.submit(block) for _ in range(store._copying._max_workers)]
    await busy.wait()
    cloning = asyncio.ensure_future(store.clone(template.id, NewClone(an_id(3), "clone")))
    await asyncio.sleep(0)
    cloning.cancel()
    try:
        await asyncio.wait([cloning], timeout=30)
        assert cloning.cancelled()
    finally:
        release.set()
    for job in blocked:
        job.result()
    assert {file.name for file in path.iterdir()} == before


async def test_a_copy_cancelled_again_and_again_still_waits_for_its_end(
    store: DirectoryStore, path: Path, small_chunks: None
) -> None:
    made = await volume(store)
    write(made.device, b"x" * MIB)
    taken = await snapshot(store, made)
    before = {file.name for file in path.iterdir()}
    asked = NewClone(an_id(2), "copy")
    copying = asyncio.ensure_future(store.copy_to_template(taken.id, asked, lambda *_: None))
    while not copying.done():
        await asyncio.sleep(0)
        copying.cancel()
    assert copying.cancelled()
    assert {file.name for file in path.iterdir()} == before


async def test_without_reflinks_a_volume_in_use_is_not_snapshotted(
    store: DirectoryStore, path: Path, without_reflinks: None
) -> None:
    made = await volume(store)
    before = {file.name for file in path.iterdir()}
    code = "import sys; f = open(sys.argv[1], 'r+b'); print(flush=True); input()"
    guest = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, made.device),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert guest.stdout is not None
    await guest.stdout.readline()
    with pytest.raises(DeviceBusy, match=str(guest.pid)):
        await snapshot(store, made)
    await guest.communicate(b"\n")
    assert {file.name for file in path.iterdir()} == before
    await snapshot(store, made)


async def test_without_reflinks_a_volume_written_while_it_is_copied_has_no_snapshot(
    store: DirectoryStore, path: Path, without_reflinks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await volume(store)
    os.utime(made.device, (0, 0))
    before = {file.name for file in path.iterdir()}
    copy = reflink.copy_sparse

    def copy_and_write(*arguments: object) -> None:
        copy(*arguments)  # type: ignore[arg-type]
        write(made.device, b"mixed")

    monkeypatch.setattr("mvirt_zfs_dbus.store.files.making.copy_sparse", copy_and_write)
    with pytest.raises(DeviceBusy, match="written to"):
        await snapshot(store, made)
    assert {file.name for file in path.iterdir()} == before


async def test_what_happens_to_one_volume_happens_in_turns(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await volume(store)
    other = await volume(store, 2)
    first = await snapshot(store, made)
    begun, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(source: int, target: int) -> bool:
        loop.call_soon_threadsafe(begun.set)
        release.wait()
        return reflink.reflink(source, target)

    monkeypatch.setattr("mvirt_zfs_dbus.store.files.making.reflink", slow)
    taking = asyncio.ensure_future(snapshot(store, made, 51))
    await begun.wait()
    waiting = [
        asyncio.ensure_future(operation)
        for operation in (
            store.resize(made.id, 2 * MIB),
            store.rollback(first.id, destroy_newer=True),
            store.destroy_snapshot(first.id, defer=True),
            store.destroy_volume(made.id, snapshots=True, defer=True),
        )
    ]
    try:
        await store.resize(other.id, 2 * MIB)
        for _ in range(4):
            await store.scan()
        assert not any(operation.done() for operation in waiting)
    finally:
        release.set()
    assert (await taking).size == MIB
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(answer, NotFound | Volume | None) for answer in answers)
    assert set((await store.scan()).volumes) == {other.id}


# Who holds a disk


@pytest.mark.skipif(os.geteuid() != 0, reason="a loop device takes root")
async def test_a_loop_device_on_a_volume_holds_it(store: DirectoryStore) -> None:
    made = await volume(store)
    attached = subprocess.run(
        ["losetup", "--find", "--show", made.device], capture_output=True, text=True, check=False
    )
    if attached.returncode != 0:
        pytest.skip(attached.stderr)
    device = attached.stdout.strip()
    try:
        assert [(user.pid, user.command) for user in await store.users(made.id)] == [
            (0, Path(device).name)
        ]
        with pytest.raises(DeviceBusy, match=Path(device).name):
            await store.destroy_volume(made.id, **GONE)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    loop = Path("/sys/block", Path(device).name, "loop")
    while loop.exists():  # noqa: ASYNC110 (nothing tells when udev has let go of it)
        await asyncio.sleep(0.01)
    await store.destroy_volume(made.id, **GONE)


async def test_this_service_does_not_hold_its_own_disks(store: DirectoryStore) -> None:
    made = await volume(store)
    with Path(made.device).open("rb"):
        assert await store.users(made.id) == []


# Space


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")
async def test_a_full_file_system_is_no_space_and_leaves_nothing(path: Path) -> None:
    options = ["-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(path)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(mounted.stderr)
    store = DirectoryStore(path)
    try:
        await store.start()
        made = await volume(store, size=6 * MIB)
        write(made.device, b"x" * 5 * MIB)
        before = await store.scan()
        names = {file.name for file in path.iterdir()}
        with pytest.raises(NoSpace):
            await snapshot(store, made)
        assert await store.scan() == before
        assert {file.name for file in path.iterdir()} == names
        with pytest.raises(NoSpace):
            await store.create_target(
                Kind.VOLUME, NewDataset(an_id(2), "thick", 6 * MIB, 4096, thin=False)
            )
        assert {file.name for file in path.iterdir()} == names
        assert not list((path / ".tmp").iterdir())
    finally:
        await store.close()
        subprocess.run(["umount", str(path)], check=True)


async def test_a_thick_volume_has_its_space(store: DirectoryStore) -> None:
    made = await store.create_volume(NewDataset(an_id(1), "thick", MIB, 4096, thin=False))
    assert Path(made.device).stat().st_blocks * 512 >= MIB
    await store.resize(made.id, 2 * MIB)
    assert Path(made.device).stat().st_blocks * 512 >= 2 * MIB


async def test_what_the_system_says_reaches_the_caller_as_one_of_our_errors(
    path: Path,
) -> None:
    def refuse(step: str) -> None:
        if "rename" in step and armed:
            raise PermissionError(1, "Operation not permitted")

    armed = False
    store = DirectoryStore(path, step=refuse)
    await store.start()
    made = await volume(store)
    armed = True
    with pytest.raises(Error, match="Operation not permitted"):
        await store.rename(made.id, "name")
    assert (await store.scan()).volumes == {made.id: made}
    assert not list((path / ".tmp").iterdir())
    await store.close()


# Threads


def test_what_fails_after_its_caller_was_cancelled_is_no_stray_exception(path: Path) -> None:
    stray: list[object] = []
    began, go_on = threading.Event(), threading.Event()

    def fail() -> None:
        began.set()
        go_on.wait(10)
        raise NotFound("gone")

    async def cancel() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: stray.append(context))
        store = DirectoryStore(path)
        await store.start()
        calling = asyncio.create_task(store._do(fail))
        assert await asyncio.to_thread(began.wait, 60)
        calling.cancel()
        await asyncio.sleep(0.1)
        assert not calling.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await store.close()

    asyncio.run(cancel())
    gc.collect()
    assert not stray
