"""The service dies after any step of any operation; the next one finds everything whole or gone.

The double here is the death: from a chosen step on no change reaches the directory any more, which
is what a killed process leaves. One test kills a real one.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mvirt_zfs_dbus.errors import Error, NoSpace
from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.base import Inventory, NewClone, NewDataset
from mvirt_zfs_dbus.store.directory import DirectoryStore

SIZE = 64 * 1024


def an_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


VOLUME, SNAPSHOT, SECOND, TEMPLATE, CLONE, OTHER = (an_id(n) for n in range(1, 7))
CLONE_SNAPSHOT, SILVER = an_id(7), an_id(8)
NEW = an_id(99)


class Killed(BaseException):
    """The process ended here."""


@dataclass
class Death:
    """Stands between the steps of a store and lets the first ``after`` of them happen."""

    after: int | None = None
    steps: list[str] = field(default_factory=list)

    def __call__(self, what: str) -> None:
        if self.after is not None and len(self.steps) >= self.after:
            raise Killed(what)
        self.steps.append(what)


FRESH = NewDataset(NEW, "new", SIZE, 4096, labels={"k": "v"})


async def furnish(store: DirectoryStore) -> None:
    """volume with two snapshots → template → clone with a snapshot → template; and a volume."""

    def dataset(id: str, name: str) -> NewDataset:
        return NewDataset(id, name, SIZE, 4096)

    device = Path((await store.create_volume(dataset(VOLUME, "volume"))).device)
    write(device, b"first")
    await store.create_snapshot(VOLUME, SNAPSHOT, "snapshot", 1)
    write(device, b"later")
    await store.create_snapshot(VOLUME, SECOND, "second", 1)
    write(device, b"third")
    await store.template_from_snapshot(SNAPSHOT, NewClone(TEMPLATE, "template"))
    await store.clone(TEMPLATE, NewClone(CLONE, "clone"))
    await store.create_snapshot(CLONE, CLONE_SNAPSHOT, "of-clone", 1)
    await store.template_from_snapshot(CLONE_SNAPSHOT, NewClone(SILVER, "silver"))
    await store.create_volume(dataset(OTHER, "other"))


def write(device: Path, data: bytes) -> None:
    with device.open("r+b") as file:
        file.write(data)


Operation = Callable[[DirectoryStore], Awaitable[object]]


async def import_target(store: DirectoryStore, kind: Kind) -> None:
    await store.create_target(kind, replace(FRESH, thin=False))
    await store.resize_target(NEW, 2 * SIZE)
    fd = await store.open_target(NEW)
    os.pwrite(fd, b"image", 0)
    os.close(fd)
    await store.publish(NEW)


async def abandoned_import(store: DirectoryStore) -> None:
    await store.create_target(Kind.VOLUME, FRESH)
    await store.abandon(NEW)


async def all_deferred(store: DirectoryStore) -> None:
    """A chain goes with its last link; a crash at any step of any of it."""
    await store.destroy_volume(VOLUME, snapshots=True, defer=True)
    await store.destroy_template(TEMPLATE, defer=True)
    await store.destroy_volume(CLONE, snapshots=True, defer=True)
    await store.destroy_template(SILVER, defer=False)


async def rollback_of_grown(store: DirectoryStore) -> None:
    await store.resize(VOLUME, 2 * SIZE)
    await store.rollback(SNAPSHOT, destroy_newer=True)


OPERATIONS: dict[str, Operation] = {
    "create": lambda store: store.create_volume(FRESH),
    "create-thick": lambda store: store.create_volume(replace(FRESH, thin=False)),
    "import-volume": lambda store: import_target(store, Kind.VOLUME),
    "import-template": lambda store: import_target(store, Kind.TEMPLATE),
    "abandon": abandoned_import,
    "clone": lambda store: store.clone(TEMPLATE, NewClone(NEW, "new", 2 * SIZE)),
    "template": lambda store: store.template_from_snapshot(SNAPSHOT, NewClone(NEW, "new")),
    "copy": lambda store: store.copy_to_template(
        SNAPSHOT, NewClone(NEW, "new"), lambda done, total: None
    ),
    "snapshot": lambda store: store.create_snapshot(VOLUME, NEW, "new", 1),
    "rollback": lambda store: store.rollback(SECOND, destroy_newer=False),
    "rollback-destroying": rollback_of_grown,
    "resize": lambda store: store.resize(VOLUME, 2 * SIZE),
    "rename": lambda store: store.rename(VOLUME, "renamed"),
    "labels": lambda store: store.set_labels(VOLUME, {"k": "v"}),
    "destroy": lambda store: store.destroy_volume(OTHER, snapshots=False, defer=False),
    "destroy-deferred": lambda store: store.destroy_volume(VOLUME, snapshots=True, defer=True),
    "destroy-snapshot": lambda store: store.destroy_snapshot(SECOND, defer=False),
    "destroy-snapshot-deferred": lambda store: store.destroy_snapshot(SNAPSHOT, defer=True),
    "destroy-template": lambda store: store.destroy_template(SILVER, defer=False),
    "destroy-template-deferred": lambda store: store.destroy_template(TEMPLATE, defer=True),
    "chain": all_deferred,
}


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as :func:`furnish` leaves it, to be copied."""

    async def make(path: Path) -> None:
        store = DirectoryStore(path)
        await store.start()
        await furnish(store)
        await store.close()

    path = tmp_path_factory.mktemp("furnished")
    asyncio.run(make(path))
    return path


@pytest.mark.parametrize("name", OPERATIONS)
async def test_after_a_crash_at_any_step_everything_is_whole_or_gone(
    name: str, tmp_path: Path, furnished: Path
) -> None:
    for step in itertools.count():
        path = tmp_path / str(step)
        shutil.copytree(furnished, path)
        death = Death()
        store = DirectoryStore(path, step=death)
        await store.start()
        before = await contents(store)
        death.steps.clear()
        death.after = step
        try:
            await OPERATIONS[name](store)
        except Killed:
            await store.close()
            await check_whole(path, before, died_at=death.steps)
        else:
            await store.close()
            await check_whole(path, before, died_at=death.steps)
            assert step == len(death.steps) > 0, "no step is left to die at"
            break


KILLED_AFTER_COPYING = """
import asyncio, os, signal, sys
from pathlib import Path
from mvirt_zfs_dbus.store.base import NewClone
from mvirt_zfs_dbus.store.directory import DirectoryStore

def kill_before_publishing(step):
    if "immutable" in step:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    store = DirectoryStore(Path(sys.argv[1]), step=kill_before_publishing)
    await store.start()
    await store.template_from_snapshot(sys.argv[2], NewClone(sys.argv[3], "template"))

asyncio.run(main())
"""


def test_a_process_killed_before_it_publishes_leaves_nothing(
    tmp_path: Path, furnished: Path
) -> None:
    async def check() -> None:
        store = DirectoryStore(path)
        await store.start()
        before = await contents(store)
        await store.close()
        await check_whole(path, before, died_at=["killed"])
        assert NEW not in before

    path = tmp_path / "pool"
    shutil.copytree(furnished, path)
    died = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER_COPYING, str(path), SNAPSHOT, NEW], check=False
    )
    assert died.returncode == -signal.SIGKILL
    assert (path / f"{NEW}.raw").exists(), "it was killed on its way"
    asyncio.run(check())


@dataclass
class Fault:
    """Has the file system refuse one step, the one after the first ``after``."""

    after: int = sys.maxsize
    taken: int = 0

    def __call__(self, what: str) -> None:
        self.taken += 1
        if self.taken - 1 == self.after:
            raise OSError(errno.ENOSPC, f"no space to {what}")


IN_ONE_CALL = [
    name
    for name in OPERATIONS
    if name not in ("import-volume", "import-template", "abandon", "rollback-destroying", "chain")
]


@pytest.mark.parametrize("name", IN_ONE_CALL)
async def test_an_operation_that_fails_at_any_step_has_changed_nothing(
    name: str, tmp_path: Path, furnished: Path
) -> None:
    for step in itertools.count():
        path = tmp_path / str(step)
        shutil.copytree(furnished, path)
        fault = Fault()
        store = DirectoryStore(path, step=fault)
        await store.start()
        before = await state(store)
        fault.taken, fault.after = 0, step
        try:
            await OPERATIONS[name](store)
        except NoSpace:
            assert await state(store) == before
            assert files_of(path) == files_of(furnished)
        except Error as error:
            raise AssertionError(f"refused at step {step}") from error
        else:
            assert await state(store) != before
        steps = fault.taken
        await store.collect()
        raws, records = files_of(path)
        assert raws == records, "what could not be removed at once is removed later"
        assert not list((path / ".tmp").iterdir())
        await store.close()
        if steps <= step:
            break


async def test_a_rollback_whose_newer_snapshots_cannot_be_removed_is_done(
    tmp_path: Path, furnished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(what: str) -> None:
        if what.startswith("write") and SECOND in what:
            raise OSError(errno.ENOSPC, "no space")

    path = tmp_path / "pool"
    shutil.copytree(furnished, path)
    store = DirectoryStore(path, step=refuse)
    await store.start()
    await store.rollback(SNAPSHOT, destroy_newer=True)
    found = await contents(store)
    assert (found[VOLUME], found[SECOND]) == (b"first", b"later")
    assert "are still there" in caplog.text
    await store.close()


async def state(store: DirectoryStore) -> tuple[Inventory, dict[str, bytes]]:
    return await store.scan(), await contents(store)


def files_of(path: Path) -> tuple[set[str], set[str]]:
    """The keys of the raw files and of the records in a directory."""
    raws, records = ({f.stem for f in path.glob(pattern)} for pattern in ("*.raw", "*.json"))
    return raws, records


async def check_whole(path: Path, before: dict[str, bytes], died_at: list[str]) -> None:
    """What the next service finds: no object that is neither as before nor as it was to be, no
    file that belongs to none, and nothing in the way of doing the same again."""
    store = DirectoryStore(path)
    await store.start()
    try:
        found = await contents(store)
        for object_id in found.keys() & before.keys() - {VOLUME}:
            assert found[object_id] == before[object_id], died_at
        assert found.keys() - before.keys() <= {NEW}, died_at
        if VOLUME in found:
            assert found[VOLUME] in (b"first", b"later", b"third"), died_at
        if NEW in found:
            assert found[NEW] in (bytes(5), b"first", b"third", b"image"), died_at
        inventory = await store.scan()
        for disk in (*inventory.volumes.values(), *inventory.templates.values()):
            assert disk.size in (SIZE, 2 * SIZE), died_at
        assert not list((path / ".tmp").iterdir()), died_at
        raws, records = files_of(path)
        assert raws == records, died_at
        await destroy_all(store, inventory)
        assert {file.name for file in path.iterdir()} == {".tmp"}, died_at
    finally:
        await store.close()


async def destroy_all(store: DirectoryStore, found: Inventory) -> None:
    for volume_id in found.volumes:
        await store.destroy_volume(volume_id, snapshots=True, defer=True)
    for template_id in found.templates:
        await store.destroy_template(template_id, defer=True)


async def contents(store: DirectoryStore) -> dict[str, bytes]:
    """The first bytes of each object that exists."""
    found = await store.scan()
    datasets = [*found.volumes.values(), *found.templates.values()]
    first = {dataset.id: start_of(Path(dataset.device)) for dataset in datasets}
    for snapshot in found.snapshots.values():
        folder = Path(found.volumes[snapshot.volume_id].device).parent
        first[snapshot.id] = start_of(folder / f"{snapshot.volume_id}@{snapshot.id}.raw")
    return first


def start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(5)
