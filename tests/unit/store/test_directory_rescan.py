"""A rescan of the directory store looks at what changed alone, and finds what a scan finds."""

from __future__ import annotations

import asyncio
import random
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from mvirt_zfs_dbus.errors import Error
from mvirt_zfs_dbus.model import Snapshot, Template, Volume
from mvirt_zfs_dbus.store.base import Inventory, NewClone, NewDataset
from mvirt_zfs_dbus.store.directory import DirectoryStore
from mvirt_zfs_dbus.store.files import ledger

MIB = 1 << 20


def new_id() -> str:
    return str(uuid.uuid4())


def new_clone() -> NewClone:
    return NewClone(new_id(), "clone")


async def volume(store: DirectoryStore, name: str = "disk") -> Volume:
    return await store.create_volume(NewDataset(new_id(), name, MIB, 4096))


async def snapshot(store: DirectoryStore, of: Volume) -> Snapshot:
    return await store.create_snapshot(of.id, new_id(), "snapshot", 1)


async def template(store: DirectoryStore, of: Volume) -> Template:
    return await store.template_from_snapshot((await snapshot(store, of)).id, new_clone())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DirectoryStore]:
    (tmp_path / "pool").mkdir()
    store = DirectoryStore(tmp_path / "pool")
    await store.start()
    await store.scan()
    yield store
    await store.close()


@pytest.fixture
def folder(store: DirectoryStore, tmp_path: Path) -> Path:
    return tmp_path / "pool"


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the records that were read."""
    keys: list[str] = []
    decode = ledger.decode

    def told(key: str, data: bytes) -> ledger.Record:
        keys.append(key)
        return decode(key, data)

    monkeypatch.setattr(ledger, "decode", told)
    return keys


def things(found: Inventory) -> dict[str, object]:
    """All but what the pool has free, which is the whole machine's."""
    return {**found.volumes, **found.snapshots, **found.templates, "pool": found.pool.health}


async def operate(store: DirectoryStore, numbers: random.Random) -> None:
    """One operation on something that is there; one that is refused changes nothing."""
    found = await store.rescan()
    volumes, snapshots = list(found.volumes.values()), list(found.snapshots.values())
    templates = list(found.templates.values())
    a_volume = numbers.choice(volumes or [await volume(store)])
    a_snapshot = numbers.choice(snapshots or [await snapshot(store, a_volume)])
    a_template = numbers.choice(templates or [await template(store, a_volume)])
    works: list[Callable[[], Awaitable[object]]] = [
        lambda: volume(store),
        lambda: snapshot(store, a_volume),
        lambda: store.clone(a_template.id, new_clone()),
        lambda: store.template_from_snapshot(a_snapshot.id, new_clone()),
        lambda: store.resize(a_volume.id, a_volume.size + MIB),
        lambda: store.rename(a_volume.id, f"renamed-{numbers.random()}"),
        lambda: store.rollback(a_snapshot.id, destroy_newer=True),
        lambda: store.destroy_volume(a_volume.id, snapshots=True, defer=numbers.random() < 0.5),
        lambda: store.destroy_snapshot(a_snapshot.id, defer=numbers.random() < 0.5),
        lambda: store.destroy_template(a_template.id, defer=numbers.random() < 0.5),
    ]
    with suppress(Error):
        await numbers.choice(works)()


def meddle(folder: Path, numbers: random.Random, aside: Path) -> None:
    """What a hand does to the files, as it may: some go, some come back, some are damaged."""
    files = sorted(folder.glob("*-*.*"))
    file = numbers.choice(files or [folder / "none"])
    match numbers.randrange(5):
        case 0 if files:
            shutil.move(file, aside / file.name)
        case 1:
            for gone in aside.iterdir():
                shutil.move(gone, folder / gone.name)
        case 2 if file.suffix == ".json":
            file.write_text("damaged")
        case 3 if file.suffix == ".raw" and file.stat().st_mode & 0o200:
            with file.open("r+b") as disk:
                disk.truncate(file.stat().st_size + MIB)
        case _:
            (folder / "not-ours.raw").write_text("")


@pytest.mark.parametrize("seed", range(4))
async def test_a_rescan_finds_what_a_scan_finds_whoever_changed_what(
    store: DirectoryStore, folder: Path, tmp_path: Path, seed: int
) -> None:
    numbers = random.Random(seed)
    aside = tmp_path / "aside"
    aside.mkdir()
    await template(store, await volume(store))
    for _ in range(25):
        if numbers.random() < 0.6:
            await operate(store, numbers)
        else:
            meddle(folder, numbers, aside)
        rescanned = things(await store.rescan())
        assert rescanned == things(await store.scan())


async def test_a_rescan_sees_this_stores_own_change_before_anybody_was_told(
    store: DirectoryStore,
) -> None:
    await store.rescan()
    made = await volume(store)
    assert made.id in (await store.rescan()).volumes


async def test_a_rescan_reads_the_records_that_changed_and_no_other(
    store: DirectoryStore, looked_at: list[str]
) -> None:
    one, *others = [await volume(store, f"disk-{n}") for n in range(5)]
    before = await store.rescan()
    looked_at.clear()
    await store.rename(one.id, "another")
    after = await store.rescan()
    assert looked_at == [one.id]
    assert after.volumes[one.id] == replace(one, name="another")
    assert all(after.volumes[each.id] is before.volumes[each.id] for each in others)


async def test_a_rescan_that_was_cut_off_is_made_up_for(
    store: DirectoryStore,
) -> None:
    await store.rescan()
    made = await volume(store)
    rescan = asyncio.create_task(store.rescan())
    await asyncio.sleep(0)
    rescan.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rescan
    assert made.id in (await store.rescan()).volumes


async def test_what_came_while_the_directory_was_away_is_found_when_it_is_back(
    store: DirectoryStore, folder: Path
) -> None:
    made = await volume(store)
    await store.rescan()
    folder.rename(folder.with_name("elsewhere"))
    assert not (await store.rescan()).volumes
    (folder.with_name("elsewhere") / f"{made.id}.json").unlink()
    assert not (await store.rescan()).volumes
    folder.with_name("elsewhere").rename(folder)
    found = await store.rescan()
    assert found.pool.health == "ONLINE"
    assert not found.volumes
