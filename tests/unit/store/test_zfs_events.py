"""Events as ``zpool events -H -v -f`` of OpenZFS 2.1.11 prints them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvirt_zfs_dbus.store.openzfs import events, zpool
from mvirt_zfs_dbus.store.openzfs.events import ANYTHING, THE_POOL, Event, Follower, Reader

RECORDED = b"""\
Nov 23 2026 05:50:17.728000000\tsysevent.fs.zfs.history_event
        version = 0x0
        class = "sysevent.fs.zfs.history_event"
        pool = "tank"
        pool_guid = 0x9d645a02d574eada
        pool_state = 0x0
        pool_context = 0x0
        history_hostname = "machine"
        history_dsname = "tank/tt"
        history_internal_str = " "
        history_internal_name = "create"
        history_dsid = 0x87
        history_txg = 0xc
        history_time = 0x6b03d419
        time = 0x6b03d419 0x2b646600 
        eid = 0x28

Nov 23 2026 05:50:22.168000000\tsysevent.fs.zfs.pool_export
        version = 0x0
        class = "sysevent.fs.zfs.pool_export"
        pool = "tank"
        pool_guid = 0x9d645a02d574eada
        pool_state = 0x1
        pool_context = 0x0
        time = 0x6b03d41e 0xa037a00 
        eid = 0x2c

Nov 23 2026 05:50:26.924000000\tsysevent.fs.zfs.pool_import
        version = 0x0
        class = "sysevent.fs.zfs.pool_import"
        pool = "tank"
        time = 0x6b03d422 0x37131f00 
        eid = 0x30

"""  # noqa: W291 (zpool ends its times with a blank)

HISTORY = "sysevent.fs.zfs.history_event"


def test_events_are_read_with_the_dataset_they_are_about() -> None:
    assert Reader().feed(RECORDED) == [
        Event(HISTORY, "tank/tt", "create", " "),
        Event("sysevent.fs.zfs.pool_export"),
        Event("sysevent.fs.zfs.pool_import"),
    ]


@given(st.lists(st.integers(0, len(RECORDED)), max_size=20).map(sorted))
def test_it_does_not_matter_in_what_pieces_the_output_comes(cuts: list[int]) -> None:
    reader = Reader()
    edges = [0, *cuts, len(RECORDED)]
    found = [event for begin, end in pairwise(edges) for event in reader.feed(RECORDED[begin:end])]
    assert found == Reader().feed(RECORDED)


def test_an_event_that_is_still_being_printed_is_waited_for() -> None:
    reader = Reader()
    assert reader.feed(RECORDED[:300]) == []
    assert reader.feed(RECORDED[300:])[0].dataset == "tank/tt"


def test_export_and_import_are_recognised() -> None:
    created, exported, imported = Reader().feed(RECORDED)
    assert (created.ended, exported.ended, imported.ended) == (False, True, False)
    assert (created.imported, exported.imported, imported.imported) == (False, False, True)


@pytest.mark.parametrize(
    "dataset", ["tank/vm", "tank/vm/1", "tank/vm/1@snapshot", "tank", "tank/vm@snapshot"]
)
def test_changes_of_our_datasets_and_of_those_above_concern_us(dataset: str) -> None:
    assert Event(HISTORY, dataset).concerns("tank/vm")


@pytest.mark.parametrize(
    "dataset", ["tank/other", "tank/vm2", "tank/vm/.tmp", "tank/vm/.tmp/1", "tank/vm/.tmp/1@img"]
)
def test_changes_of_others_and_of_what_is_unfinished_do_not(dataset: str) -> None:
    assert not Event(HISTORY, dataset).concerns("tank/vm")


def test_changes_of_the_pool_always_concern_us() -> None:
    assert Event("resource.fs.zfs.statechange").concerns("tank/vm")
    assert Event(HISTORY).concerns("tank/vm")


def renamed(old: str, new: str) -> Event:
    return Event(HISTORY, old, "rename", f"-> {new}")


def test_a_rename_concerns_us_from_both_sides_but_not_out_of_what_is_unfinished() -> None:
    assert renamed("tank/vm/1", "tank/other").concerns("tank/vm")
    assert renamed("tank/other", "tank/vm/1").concerns("tank/vm")
    assert not renamed("tank/other", "tank/elsewhere").concerns("tank/vm")
    assert not renamed("tank/vm/.tmp/1", "tank/vm/1").concerns("tank/vm"), "that is our publishing"


@pytest.mark.parametrize("action", ["set", "inherit", "create"])
def test_what_happens_to_the_root_or_above_it_may_change_what_is_inherited(action: str) -> None:
    for dataset in ("tank", "tank/vm"):
        assert Event(HISTORY, dataset, action).is_inherited_by("tank/vm")
    for dataset in ("tank/vm/1", "tank/vm/.tmp", "tank/v", "tank/other", "tank/vm@snapshot"):
        assert not Event(HISTORY, dataset, action).is_inherited_by("tank/vm")
    assert not Event("resource.fs.zfs.statechange").is_inherited_by("tank/vm")
    assert renamed("tank/other", "tank/vm").is_inherited_by("tank/vm")
    assert Event("dropped 7 events").is_inherited_by("tank/vm")


@pytest.mark.parametrize("action", ["create", "destroy", "snapshot", "set", "clone swap"])
def test_most_events_change_the_dataset_they_name_alone(action: str) -> None:
    assert Event(HISTORY, "tank/vm/1@s", action).changed("tank/vm") == "tank/vm/1@s"
    assert Event(HISTORY, "tank", action).changed("tank/vm") is None


@pytest.mark.parametrize(
    "event",
    [
        renamed("tank/vm/1", "tank/vm/2"),
        Event(HISTORY, "tank/vm/1", "promote"),
        Event(HISTORY, "tank/vm/1", "of a later version"),
        Event("sysevent.fs.zfs.pool_import"),
        Event("dropped 7 events"),
    ],
    ids=lambda event: event.action or event.kind,
)
def test_what_may_have_changed_more_makes_everything_be_read_again(event: Event) -> None:
    assert event.changed("tank/vm") == ANYTHING


def test_a_disk_that_comes_or_goes_changes_no_dataset() -> None:
    assert Event("resource.fs.zfs.statechange").changed("tank/vm") == THE_POOL
    assert Event("sysevent.fs.zfs.config_sync").changed("tank/vm") == THE_POOL


def test_lost_events_are_noticed() -> None:
    (event, *others) = Reader().feed(b"dropped 7 events\n" + RECORDED)
    assert event.changed("tank/vm") == ANYTHING
    assert others == Reader().feed(RECORDED)


class Pool:
    """A double of ``zpool events`` and of the pool's health, and a store that follows it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.health = "ONLINE"
        self.touched: asyncio.Queue[str] = asyncio.Queue()
        self.told = asyncio.Event()
        self._printed = folder / "events"
        self._printed.touch()
        program = folder / "zpool"
        program.write_text(f"#!/bin/sh\nexec tail -n +1 -f {self._printed}\n")
        program.chmod(0o755)
        monkeypatch.setattr(zpool, "executable", lambda name: str(program))
        monkeypatch.setattr(zpool, "health", lambda pool: self.health)
        self.follower = Follower("tank", self._changed, self._imported, lambda: None)

    def _changed(self, what: str) -> None:
        self.touched.put_nowait(what)

    async def _imported(self) -> None:
        self.touched.put_nowait("imported")

    async def count(self) -> None:
        async for _ in self.follower.watchers.add():
            self.told.set()

    def happens(self, *kinds: str) -> None:
        """And then something to the dataset tank/1, by which it is known that they were read."""
        with self._printed.open("a") as printed:
            for kind in kinds:
                printed.write(f"Nov 23 2026 05:50:22.168000000\tsysevent.fs.zfs.{kind}\n\n")
            printed.write(
                f"Nov 23 2026 05:50:22.168000000\t{HISTORY}\n"
                '        history_dsname = "tank/1"\n        history_internal_name = "set"\n'
                "        eid = 0x28\n\n"
            )

    async def touch(self) -> str:
        """What is touched next."""
        async with asyncio.timeout(60):
            return await self.touched.get()

    async def read(self) -> list[str]:
        """What was touched up to that."""
        found = []
        while (touched := await self.touch()) != "tank/1":
            found.append(touched)
        return found

    async def tells(self) -> None:
        async with asyncio.timeout(60):
            await self.told.wait()
        self.told.clear()


@pytest.fixture
async def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    double = Pool(tmp_path, monkeypatch)
    counting = asyncio.create_task(double.count())
    double.follower.start()
    yield double
    await double.follower.close()
    await counting


async def test_ends_and_beginnings_of_long_ago_hold_up_nothing(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_UNTIL_GONE", 3600.0)
    pool.happens(*3 * ("pool_export", "pool_import", "pool_destroy", "pool_create"))
    assert await pool.read() == 3 * [THE_POOL, ANYTHING, "imported", THE_POOL, ANYTHING]
    await pool.tells()
    pool.happens("config_sync")
    assert await pool.read() == [THE_POOL]
    await pool.tells()


async def test_nobody_is_told_of_an_export_before_it_is_done(pool: Pool) -> None:
    pool.happens("pool_export", "config_sync")
    assert await pool.read() == [THE_POOL, THE_POOL]
    await asyncio.sleep(0.3)  # several looks at its health
    assert not pool.told.is_set()
    pool.health = zpool.UNAVAILABLE
    assert await pool.touch() == ANYTHING
    await pool.tells()
    assert await pool.touch() == ANYTHING
    pool.health = "ONLINE"
    pool.happens("pool_import")
    assert await pool.read() == [ANYTHING, "imported"]
    await pool.tells()


async def test_an_export_that_takes_long_is_told_again_at_its_end(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_UNTIL_GONE", 0.1)
    pool.happens("pool_export")
    assert await pool.read() == [THE_POOL]
    assert await pool.touch() == ANYTHING
    await pool.tells()
    pool.happens("config_sync")
    assert await pool.read() == [THE_POOL]
    await pool.tells()
    pool.health = zpool.UNAVAILABLE
    assert await pool.touch() == ANYTHING
    await pool.tells()


async def test_a_follower_that_waits_for_an_export_ends_at_once(pool: Pool) -> None:
    pool.happens("pool_export")
    assert await pool.read() == [THE_POOL]
    await pool.follower.close()
    assert [task for task in asyncio.all_tasks() if "Follower." in repr(task)] == []
