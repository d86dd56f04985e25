"""The service dies before any step of any operation; the next one finds everything whole or gone.

The death is a double: from a chosen step on no change reaches the pool any more, which is what a
killed process leaves, since the kernel ends a call that it has begun. One test kills a real one.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import host
import pytest
import stores
from stores import opened, restarted

from mvirt_zfs_dbus.errors import NotFound
from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.base import Inventory, NewDataset
from mvirt_zfs_dbus.store.zfs import ZfsStore

ROOT = f"{host.POOL}/crashes-{os.environ.get('PYTEST_XDIST_WORKER', 'all')}"
SIZE = host.MIB


class Killed(BaseException):
    """The process ended here."""


@dataclass
class Death:
    """Stands before each step of a store and lets the first ``after`` of them happen."""

    after: int | None = None
    steps: list[str] = field(default_factory=list)
    died_before: str = ""

    def __call__(self, what: str) -> None:
        if self.after is not None and len(self.steps) >= self.after:
            self.died_before = self.died_before or what.partition(" ")[0]
            raise Killed(what)
        self.steps.append(what)


def new(*, thin: bool = True) -> NewDataset:
    return replace(stores.new("new", SIZE, thin=thin), labels={"k": "v"})


@dataclass(frozen=True)
class Pool:
    """A volume with two snapshots, a template of the first, and a clone of that."""

    volume: str
    snapshot: str
    newer: str
    template: str
    clone: str


async def furnish(store: ZfsStore) -> Pool:
    made = await store.create_volume(new())
    host.write(made.device, b"first")
    first = await store.create_snapshot(made.id, str(uuid.uuid4()), "first", 1)
    host.write(made.device, b"later")
    newer = await store.create_snapshot(made.id, str(uuid.uuid4()), "newer", 1)
    template = await store.template_from_snapshot(first.id, stores.clone())
    cloned = await store.clone(template.id, stores.clone())
    return Pool(made.id, first.id, newer.id, template.id, cloned.id)


Operation = Callable[[ZfsStore, Pool], Awaitable[object]]


async def import_target(store: ZfsStore, kind: Kind) -> None:
    asked = new(thin=False)
    await store.create_target(kind, asked)
    await store.resize_target(asked.id, 2 * SIZE)
    fd = await store.open_target(asked.id)
    os.pwrite(fd, b"image", 0)
    os.fsync(fd)
    os.close(fd)
    await store.publish(asked.id)


async def rollback_of_grown(store: ZfsStore, pool: Pool) -> None:
    await store.resize(pool.volume, 2 * SIZE)
    await store.rollback(pool.snapshot, destroy_newer=True)


async def all_deferred(store: ZfsStore, pool: Pool) -> None:
    """A chain goes with its last link; a crash at any step of any of it."""
    with suppress(NotFound):  # it was destroyed before the last crash
        await store.destroy_volume(pool.volume, snapshots=True, defer=True)
    with suppress(NotFound):
        await store.destroy_template(pool.template, defer=True)
    with suppress(NotFound):
        await store.destroy_volume(pool.clone, snapshots=False, defer=False)


OPERATIONS: dict[str, Operation] = {
    "create": lambda store, _: store.create_volume(new()),
    "create-thick": lambda store, _: store.create_volume(new(thin=False)),
    "import-volume": lambda store, _: import_target(store, Kind.VOLUME),
    "import-template": lambda store, _: import_target(store, Kind.TEMPLATE),
    "clone": lambda store, pool: store.clone(pool.template, stores.clone()),
    "clone-larger": lambda store, pool: store.clone(pool.template, stores.clone(size=2 * SIZE)),
    "template": lambda store, pool: store.template_from_snapshot(pool.snapshot, stores.clone()),
    "copy": lambda store, pool: store.copy_to_template(
        pool.snapshot, stores.clone(), lambda *_: None
    ),
    "snapshot": lambda store, pool: store.create_snapshot(pool.volume, str(uuid.uuid4()), "new", 1),
    "labels": lambda store, pool: store.set_labels(pool.volume, {"k": "x" * 9000}),
    "rollback": rollback_of_grown,
    "chain": all_deferred,
}
"""In an order in which each finds what it needs of what those before it left."""


@pytest.fixture(scope="module")
def root() -> Iterator[str]:
    host.run("zfs", "create", "-o", "mountpoint=none", ROOT)
    yield ROOT
    host.destroy(ROOT)


@pytest.fixture(scope="module")
def pool(root: str, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    async def furnished() -> Pool:
        async with opened(root, tmp_path_factory.mktemp("run")) as store:
            return await furnish(store)

    return asyncio.run(furnished())


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_crash_at_any_step_leaves_everything_whole_or_gone(
    name: str, root: str, pool: Pool, tmp_path: Path
) -> None:
    operation = OPERATIONS[name]
    ends: list[str] = []
    before: Inventory | None = None
    for after in itertools.count():
        death = Death()
        async with opened(root, tmp_path, death) as store:
            found = await store.scan()
            check_whole(root, before or found, found)
            if "end" in ends:
                break
            death.steps.clear()
            death.after = after
            with suppress(Killed):
                await operation(store, pool)
            ends.append(death.died_before or "end")
        before = found
    print(f"{name}: died before {', '.join(ends[:-1])}")
    assert len(ends) > 1, "it was killed at least once"


def check_whole(root: str, before: Inventory, found: Inventory) -> None:
    """Nothing in the pool that the service does not know, or keeps for a clone's sake."""
    there = host.datasets(root)
    assert not {name for name in there if name.startswith(".tmp")}
    ids = {name for name in there if "@" not in name}
    known = {*found.volumes, *found.templates}
    assert known <= ids
    for hidden in ids - known:
        state = host.get("org.mvirt:state", f"{root}/{hidden}")
        assert state == "deleted"
        held = host.run(
            "zfs", "list", "-H", "-o", "clones", "-t", "snapshot", "-r", f"{root}/{hidden}"
        )
        assert held.strip("-\n"), f"{hidden} is kept for no clone"
    new_ones = known - {*before.volumes, *before.templates}
    assert len(new_ones) <= 1
    for volume in found.volumes.values():
        assert Path(volume.device).is_block_device()
        assert volume.size in (SIZE, 2 * SIZE)
    for template in found.templates.values():
        assert template.snapshot.removeprefix(f"{root}/") in there


IMPORTER = """
import asyncio, os, sys
from pathlib import Path
from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.base import NewDataset
from mvirt_zfs_dbus.store.zfs import ZfsStore

async def main(root, runtime, made):
    store = ZfsStore(root, runtime_directory=Path(runtime))
    await store.start()
    await store.create_target(Kind.VOLUME, NewDataset(made, "half", 1 << 26, 16384))
    fd = await store.open_target(made)
    os.write(fd, b"half an image")
    spool = await store.open_spool()
    os.write(spool, bytes(1 << 20))
    print("writing", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_killed_import_is_gone_with_its_temporary_files(root: str, tmp_path: Path) -> None:
    made = str(uuid.uuid4())
    command = [sys.executable, "-c", IMPORTER, root, str(tmp_path), made]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as importer:
        assert importer.stdout is not None
        assert importer.stdout.readline() == "writing\n"
        assert host.run("zfs", "list", f"{root}/.tmp/{made}")
        host.kill(importer)
    before = await restarted(root, tmp_path)
    check_whole(root, before, before)
    assert made not in before.volumes
    assert int(host.get("used", f"{root}/.tmp")) < host.MIB


WORKS = """
import asyncio, sys
from pathlib import Path
from mvirt_zfs_dbus.store.zfs import ZfsStore

async def main(root, runtime, work, thing):
    def tell(step):
        print(step, flush=True)

    store = ZfsStore(root, runtime_directory=Path(runtime), step=tell)
    await store.start()
    if work == "destroy":
        await store.destroy_volume(thing, snapshots=True, defer=False)
    else:
        await store.rollback(thing, destroy_newer=True)
    print("done", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""
NEWER = 16
"""Snapshots that go with the volume, or with the turning back."""


@pytest.mark.parametrize("work", ["destroy", "rollback"])
async def test_a_kill_in_the_middle_of_a_change_leaves_all_or_nothing_of_it(
    work: str, root: str, tmp_path: Path
) -> None:
    """ZFS breaks the channel program of a killed process off, between two of its steps."""
    taken, cut_off = 0.0, 0
    parts = [0.0, 0.4, 0.5, 0.6]
    for part in parts:
        async with opened(root, tmp_path) as store:
            made = await store.create_volume(new())
            first = await store.create_snapshot(made.id, str(uuid.uuid4()), "first", 1)
            for number in range(NEWER):
                await store.create_snapshot(made.id, str(uuid.uuid4()), f"newer-{number}", 1)
        host.run("udevadm", "settle")
        thing = made.id if work == "destroy" else first.id
        command = [sys.executable, "-c", WORKS, root, str(tmp_path), work, thing]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            while not process.stdout.readline().startswith(("destroy tank", "roll back")):
                assert process.poll() is None
            began = time.monotonic()
            if part:
                await asyncio.sleep(part * taken)  # it is in the middle of its program by now
                host.kill(process)
            done = any(line == "done\n" for line in process.stdout)
            taken = taken or time.monotonic() - began
            cut_off += not done
        if part == parts[-1] and part > 0.05 and not cut_off:  # the first one took too long
            parts.append(part / 2)
        async with opened(root, tmp_path) as store:
            found = await store.scan()
            there = {name for name in host.datasets(root) if name.startswith(made.id)}
            assert (made.id in found.volumes) == bool(there)
            kept = 1 if work == "rollback" else 0
            snapshots = [each for each in found.snapshots.values() if each.volume_id == made.id]
            assert len(snapshots) in (NEWER + 1, kept), part
            assert len(there) in (NEWER + 2, 2 * kept)
            if there:
                await store.destroy_volume(made.id, snapshots=True, defer=False)
    assert cut_off, "it was never killed before it was done"
