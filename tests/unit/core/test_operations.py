"""What the operations leave in the catalog, with nobody following the store to put it right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mvirt_zfs_dbus.core import snapshots
from mvirt_zfs_dbus.core.imports import ImportPolicy
from mvirt_zfs_dbus.core.service import Service, Settings
from mvirt_zfs_dbus.errors import (
    AlreadyExists,
    DeviceBusy,
    Error,
    HasClones,
    HasSnapshots,
    InvalidSize,
    LimitsExceeded,
    NotFound,
)
from mvirt_zfs_dbus.model import JobState, Snapshot, Template, Volume
from mvirt_zfs_dbus.store.base import Inventory, NewClone
from mvirt_zfs_dbus.store.directory import DirectoryStore

MIB = 2**20


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """The service without its import workers, which are not needed here."""
    settings = Settings(tmp_path / "state", 4, ImportPolicy(None, 2**40))
    (tmp_path / "disks").mkdir(mode=0o700)
    made = Service(DirectoryStore(tmp_path / "disks"), settings)
    await made.store.start()
    await made.refresh()
    await made.jobs.start(made.catalog.exists)
    yield made
    await made.jobs.close()
    await made.store.close()


async def test_a_deleted_volume_and_its_snapshots_are_gone_when_delete_returns(
    service: Service,
) -> None:
    volume = await service.volumes.create("web", MIB)
    await service.snapshots.create(volume.id, "before")
    await service.volumes.delete(volume.id, snapshots=True, defer=False)
    assert service.catalog.all(Volume) == []
    assert service.catalog.all(Snapshot) == []
    await service.volumes.create("web", MIB)


async def test_a_volume_has_so_many_snapshots_and_no_more(service: Service) -> None:
    service.snapshots._limit = 2
    volume = await service.volumes.create("web", MIB)
    first = await service.snapshots.create(volume.id, "a")
    await service.snapshots.create(volume.id, "b")
    with pytest.raises(LimitsExceeded, match="max-snapshots"):
        await service.snapshots.create(volume.id, "c")
    await service.snapshots.delete(first.id, defer=False)
    await service.snapshots.create(volume.id, "c")


async def test_a_refused_delete_leaves_everything_in_the_catalog(service: Service) -> None:
    volume = await service.volumes.create("web", MIB)
    snapshot = await service.snapshots.create(volume.id, "before")
    with pytest.raises(HasSnapshots):
        await service.volumes.delete(volume.id, snapshots=False, defer=False)
    template = await service.templates.create(snapshot.id, "gold")
    with pytest.raises(HasClones):
        await service.snapshots.delete(snapshot.id, defer=False)
    assert service.catalog.exists(volume.id)
    assert service.catalog.clones_of(snapshot.id) == [template.id]


async def test_a_rollback_takes_the_newer_snapshots_out_of_the_catalog(service: Service) -> None:
    volume = await service.volumes.create("web", MIB)
    taken = [await service.snapshots.create(volume.id, f"s{n}") for n in range(4)]
    await service.volumes.resize(volume.id, 2 * MIB)
    await service.snapshots.rollback(taken[1].id, destroy_newer=True)
    assert service.catalog.snapshots_of(volume.id) == taken[:2]
    assert service.catalog.volume(volume.id).size == MIB


async def test_a_clock_that_is_set_back_does_not_change_the_order_of_snapshots(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = await service.volumes.create("web", MIB)
    times = iter([2_000, 1_000, 1_000])
    monkeypatch.setattr(snapshots, "now", lambda: next(times))
    taken = [await service.snapshots.create(volume.id, f"s{n}") for n in range(3)]
    assert service.catalog.snapshots_of(volume.id) == taken
    assert [found.created_at for found in taken] == [2_000, 2_001, 2_002]


async def test_a_deleted_snapshot_and_template_are_gone_when_delete_returns(
    service: Service,
) -> None:
    volume = await service.volumes.create("web", MIB)
    snapshot = await service.snapshots.create(volume.id, "before")
    template = await service.templates.create(snapshot.id, "gold")
    await service.templates.delete(template.id, defer=False)
    assert service.catalog.all(Template) == []
    await service.snapshots.delete(snapshot.id, defer=False)
    assert service.catalog.snapshots_of(volume.id) == []


async def test_two_renames_to_one_name_at_once_give_it_to_one(service: Service) -> None:
    ids = [(await service.volumes.create(f"v{n}", MIB)).id for n in range(2)]
    answers = await asyncio.gather(
        *(service.volumes.rename(volume_id, "web") for volume_id in ids), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [type(None), AlreadyExists]
    assert sorted(found.name for found in service.catalog.all(Volume)) == ["v1", "web"]


async def test_renaming_to_the_same_name_is_no_error(service: Service) -> None:
    volume = await service.volumes.create("web", MIB)
    await service.volumes.rename(volume.id, "web")


async def test_two_creates_of_one_name_at_once_make_one(service: Service) -> None:
    answers = await asyncio.gather(
        *(service.volumes.create("web", MIB) for _ in range(5)), return_exceptions=True
    )
    assert [type(answer) for answer in answers].count(Volume) == 1
    assert len(service.catalog.all(Volume)) == 1


async def test_a_smaller_clone_is_refused_before_anything_is_made(service: Service) -> None:
    volume = await service.volumes.create("web", MIB)
    snapshot = await service.snapshots.create(volume.id, "before")
    template = await service.templates.create(snapshot.id, "gold")
    with pytest.raises(InvalidSize, match=str(MIB)):
        await service.templates.clone(template.id, "small", size=MIB // 2)
    assert len(service.catalog.all(Volume)) == 1


async def test_operations_on_what_is_gone_are_not_found(service: Service) -> None:
    volume = await service.volumes.create("web", MIB)
    snapshot = await service.snapshots.create(volume.id, "before")
    await service.volumes.delete(volume.id, snapshots=True, defer=False)
    for operation in (
        service.volumes.resize(volume.id, 2 * MIB),
        service.volumes.rename(volume.id, "x"),
        service.volumes.set_labels(volume.id, {}),
        service.volumes.delete(volume.id, snapshots=False, defer=False),
        service.snapshots.create(volume.id, "x"),
        service.snapshots.rollback(snapshot.id, destroy_newer=False),
        service.snapshots.delete(snapshot.id, defer=False),
        service.templates.create(snapshot.id, "x"),
        service.templates.copy(snapshot.id, "x", 0),
    ):
        with pytest.raises(NotFound):
            await operation


async def test_a_copy_cancelled_when_it_was_just_done_is_undone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store answers a cancelled call either done or undone; here it is always done."""
    volume = await service.volumes.create("web", MIB)
    snapshot = await service.snapshots.create(volume.id, "before")
    copied = asyncio.Event()
    copy = service.store.copy_to_template

    async def too_late(
        snapshot_id: str, new: NewClone, progress: Callable[[int, int], None]
    ) -> Template:
        await copy(snapshot_id, new, progress)
        copied.set()
        await asyncio.Event().wait()
        raise AssertionError("only cancelling ends this")

    monkeypatch.setattr(service.store, "copy_to_template", too_late)
    job_id = await service.templates.copy(snapshot.id, "gold", 0)
    await copied.wait()
    await service.jobs.cancel(job_id)
    assert service.jobs.get(job_id).state is JobState.CANCELLED
    assert (await service.store.scan()).templates == {}
    assert service.catalog.all(Template) == []


async def test_usage_is_read_once_a_second_at_most(service: Service) -> None:
    volume = await service.volumes.create("web", MIB)
    reads = 0
    usage = service.store.usage

    async def counted(dataset_id: str, snapshot_id: str = "") -> object:
        nonlocal reads
        reads += 1
        return await usage(dataset_id, snapshot_id)

    service.store.usage = counted  # type: ignore[method-assign, assignment]
    moment = 100.0
    service.usage._clock = lambda: moment
    for _ in range(3):
        await service.usage.dataset(volume.id)
    assert reads == 1
    moment += 1.0
    await service.usage.dataset(volume.id)
    assert reads == 2


async def test_usage_is_as_fresh_after_others_changed_something(service: Service) -> None:
    web = await service.volumes.create("web", MIB)
    service.usage._clock = lambda: 100.0
    await service._read(service.store.rescan)
    with Path(web.device).open("r+b", buffering=0) as guest:  # which does not close it
        guest.write(b"x" * MIB)
        await service.usage.dataset(web.id)
        used = service.catalog.volume(web.id).usage.used
        assert used >= MIB
        await service.volumes.create("other", MIB)
        await service._read(service.store.rescan)
        await service.usage.dataset(web.id)
        assert service.catalog.volume(web.id).usage.used == used


async def test_what_others_did_before_the_store_was_followed_is_found(
    service: Service, tmp_path: Path
) -> None:
    web = await service.volumes.create("web", MIB)
    await service.refresh()
    earlier = service.store.watch()
    for file in (tmp_path / "disks").glob(f"{web.id}.*"):
        file.unlink()
    async with asyncio.timeout(30):
        await anext(earlier)
    gone = asyncio.Event()
    service.events.subscribe(lambda event: gone.set() if event.id == web.id else None)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(service.follow())
        await gone.wait()
        following.cancel()
    assert service.catalog.all(Volume) == []


async def test_usage_that_is_read_while_the_pool_is_scanned_is_read_again_afterwards(
    service: Service,
) -> None:
    web = await service.volumes.create("web", MIB)
    service.usage._clock = lambda: 100.0

    async def scan() -> Inventory:
        found = await service.store.scan()
        with Path(web.device).open("r+b") as guest:
            guest.write(b"x" * MIB)
        await service.usage.dataset(web.id)
        return found

    await service._read(scan)
    await service.usage.dataset(web.id)
    assert service.catalog.volume(web.id).usage.used >= MIB


async def test_a_volumes_id_is_one_the_store_is_prepared_for_unless_its_caller_chose(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"{n}1111111-1111-4111-8111-111111111111" for n in range(3)]
    prepared = iter(ids)
    monkeypatch.setattr(service.store, "new_id", lambda: next(prepared))
    volume = await service.volumes.create("web", MIB)
    snapshot = await service.snapshots.create(volume.id, "before")
    template = await service.templates.create(snapshot.id, "gold")
    clone = await service.templates.clone(template.id, "clone")
    assert [volume.id, clone.id] == ids[:2]
    chosen = await service.volumes.create("chosen", MIB, volume_id=ids[2])
    assert chosen.id == next(prepared), "none was taken for it"


@pytest.mark.parametrize("taken", [AlreadyExists, DeviceBusy])
async def test_what_another_host_was_first_at_is_refused_and_nothing_stays_reserved(
    service: Service, monkeypatch: pytest.MonkeyPatch, taken: type[Error]
) -> None:
    """A double of a store that several hosts share: it knows what no catalog can know."""
    volume = await service.volumes.create("web", MIB)

    async def refuse(*_: object, **__: object) -> None:
        raise taken("another host was first")

    for method in ("create_volume", "rename", "create_snapshot"):
        monkeypatch.setattr(service.store, method, refuse)
    with pytest.raises(taken):
        await service.volumes.create("new", MIB)
    with pytest.raises(taken):
        await service.volumes.rename(volume.id, "new")
    with pytest.raises(taken):
        await service.snapshots.create(volume.id, "new")
    monkeypatch.undo()
    assert service.catalog.all(Volume) == [volume]
    await service.snapshots.create(volume.id, "new")
    await service.volumes.rename(volume.id, "new")
