"""What the catalog knows and what it tells."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mvirt_zfs_dbus.core.catalog import Catalog
from mvirt_zfs_dbus.core.events import Change, Event, Events, ObjectKind
from mvirt_zfs_dbus.errors import AlreadyExists, LimitsExceeded, NotFound
from mvirt_zfs_dbus.model import Kind, Pool, PoolUsage, Snapshot, Template, Usage, Volume
from mvirt_zfs_dbus.store.base import Inventory

POOL = Pool("tank", "ONLINE")


def volume(object_id: str, name: str = "", origin: str = "", size: int = 4096) -> Volume:
    return Volume(object_id, name or object_id, size, 512, 1, "/dev/null", origin_id=origin)


def template(object_id: str, origin: str = "", source: str = "") -> Template:
    return Template(
        object_id,
        object_id,
        4096,
        512,
        1,
        "/dev/null",
        origin_id=origin,
        source_volume_id=source,
        snapshot=f"tank/{object_id}@img",
    )


def snapshot(object_id: str, of: str, created_at: int = 1) -> Snapshot:
    return Snapshot(object_id, object_id, of, 4096, created_at)


class Heard:
    """A catalog and what it told."""

    def __init__(self) -> None:
        events = Events()
        self.all: list[Event] = []
        events.subscribe(self.all.append)
        self.catalog = Catalog(POOL, events, limit=100)

    def put(self, *things: Volume | Snapshot | Template) -> None:
        for thing in things:
            self.catalog.put(thing)

    def since(self) -> list[tuple[Change, str]]:
        heard = [(event.change, event.id) for event in self.all]
        self.all.clear()
        return heard


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_a_new_object_is_added_and_its_relatives_change(heard: Heard) -> None:
    heard.put(template("gold"))
    heard.since()
    heard.put(volume("web", origin="gold"))
    assert heard.since() == [
        (Change.ADDED, "web"),
        (Change.CHANGED, "gold"),
        (Change.CHANGED, "tank"),
    ]


def test_an_object_that_is_as_it_was_tells_nothing(heard: Heard) -> None:
    heard.put(volume("web"))
    heard.since()
    heard.put(replace(volume("web"), usage=Usage(used=9)))
    assert heard.since() == []
    assert heard.catalog.volume("web").usage.used == 9


def test_a_removed_template_changes_the_clones_that_named_it(heard: Heard) -> None:
    heard.put(template("gold"), volume("web", origin="gold"))
    heard.since()
    heard.catalog.remove("gold")
    assert heard.since()[:2] == [(Change.REMOVED, "gold"), (Change.CHANGED, "web")]


def test_a_removed_volume_takes_its_snapshots_and_changes_templates_made_of_it(
    heard: Heard,
) -> None:
    heard.put(volume("web"), snapshot("s1", "web"), template("gold", source="web", origin="s1"))
    heard.since()
    heard.catalog.remove("web")
    told = heard.since()
    assert told.index((Change.REMOVED, "s1")) < told.index((Change.REMOVED, "web"))
    assert (Change.CHANGED, "gold") in told
    with pytest.raises(NotFound):
        heard.catalog.snapshot("s1")


def test_removing_what_is_gone_tells_nothing(heard: Heard) -> None:
    heard.catalog.remove("nothing")
    assert heard.since() == []


def test_names_and_ids_find_and_an_id_wins(heard: Heard) -> None:
    heard.put(volume("id-1", name="web"), volume("id-2", name="id-1"))
    assert heard.catalog.find_volume("web").id == "id-1"
    assert heard.catalog.find_volume("id-1").id == "id-1"
    assert heard.catalog.find_volume("ID-2").id == "id-2"
    with pytest.raises(NotFound, match="'absent'"):
        heard.catalog.find_volume("absent")
    with pytest.raises(NotFound):
        heard.catalog.find_template("web")


def test_a_renamed_volume_is_found_by_its_new_name_alone(heard: Heard) -> None:
    heard.put(volume("v", name="old"))
    heard.put(volume("v", name="new"))
    assert heard.catalog.find_volume("new").id == "v"
    with pytest.raises(NotFound):
        heard.catalog.find_volume("old")


def test_snapshots_are_listed_oldest_first(heard: Heard) -> None:
    heard.put(volume("web"), snapshot("b", "web", 2), snapshot("a", "web", 3), snapshot("c", "web"))
    assert [found.id for found in heard.catalog.snapshots_of("web")] == ["c", "b", "a"]


def test_counts_and_provisioned_bytes_follow_every_change(heard: Heard) -> None:
    heard.put(volume("a", size=4096), volume("b", size=8192), template("gold"))
    heard.put(volume("a", size=16384))
    heard.catalog.remove("b")
    assert (heard.catalog.count(Volume), heard.catalog.count(Template)) == (1, 1)
    assert heard.catalog.provisioned == 16384


def test_a_reserved_name_or_id_is_taken_until_it_is_let_go(heard: Heard) -> None:
    with heard.catalog.reserve(Kind.VOLUME, "web", "id-1"):
        with (
            pytest.raises(AlreadyExists, match="'web'"),
            heard.catalog.reserve("volume", "web", "x"),
        ):
            pass
        with (
            pytest.raises(AlreadyExists, match="id-1"),
            heard.catalog.reserve("volume", "y", "id-1"),
        ):
            pass
        with heard.catalog.reserve(Kind.TEMPLATE, "web", "id-2"):
            pass  # names are unique in their scope only
    with heard.catalog.reserve(Kind.VOLUME, "web", "id-1"):
        pass


def test_a_reservation_that_fails_for_its_name_does_not_keep_its_id(heard: Heard) -> None:
    heard.put(volume("v", name="web"))
    with pytest.raises(AlreadyExists), heard.catalog.reserve(Kind.VOLUME, "web", "id-1"):
        pass
    with heard.catalog.reserve(Kind.VOLUME, "other", "id-1"):
        pass


def test_a_scan_brings_what_others_changed_and_counts_it(heard: Heard) -> None:
    heard.put(volume("stays"), volume("goes"), snapshot("s", "goes"), volume("renamed"))
    heard.since()
    found = Inventory(
        pool=Pool("tank", "DEGRADED"),
        volumes={
            "stays": volume("stays"),
            "new": volume("new"),
            "renamed": volume("renamed", name="better"),
        },
    )
    with heard.catalog.scanning() as touched:
        assert heard.catalog.merge(found, touched) == 5
    told = heard.since()
    assert (Change.REMOVED, "goes") in told
    assert (Change.REMOVED, "s") in told
    assert (Change.ADDED, "new") in told
    assert (Change.CHANGED, "renamed") in told
    assert (Change.CHANGED, "stays") not in told
    assert heard.catalog.pool.health == "DEGRADED"
    with heard.catalog.scanning() as touched:
        assert heard.catalog.merge(found, touched) == 0


def test_what_a_scan_did_not_read_again_does_not_bring_its_old_usage_back(heard: Heard) -> None:
    found = Inventory(POOL, {"web": volume("web")})
    for _ in range(2):
        with heard.catalog.scanning() as touched:
            heard.catalog.merge(found, touched)
        heard.catalog.put_usage("web", Usage(used=9))
    with heard.catalog.scanning() as touched:
        assert heard.catalog.merge(found, touched) == 0
    assert heard.catalog.volume("web").usage.used == 9
    with heard.catalog.scanning() as touched:
        newer = replace(volume("web"), usage=Usage(used=10))
        assert heard.catalog.merge(Inventory(POOL, {"web": newer}), touched) == 0
    assert heard.catalog.volume("web").usage.used == 10


def test_a_scan_that_finds_what_it_found_before_corrects_what_differs(heard: Heard) -> None:
    found = Inventory(POOL, {"web": volume("web")})
    with heard.catalog.scanning() as touched:
        heard.catalog.merge(found, touched)
    heard.catalog.put(volume("web", name="mistaken"))
    with heard.catalog.scanning() as touched:
        assert heard.catalog.merge(found, touched) == 1
    assert heard.catalog.volume("web").name == "web"


def test_what_an_operation_changed_during_a_scan_is_newer_than_the_scan(heard: Heard) -> None:
    heard.put(volume("kept"), volume("deleted"))
    before = Inventory(POOL, {name: volume(name) for name in ("kept", "deleted")})
    with heard.catalog.scanning() as touched:
        heard.catalog.remove("deleted")
        heard.catalog.put(volume("created"))
        heard.catalog.put(volume("kept", name="renamed"))
        assert heard.catalog.merge(before, touched) == 0
    assert [found.id for found in heard.catalog.all(Volume)] == ["created", "kept"]
    assert heard.catalog.volume("kept").name == "renamed"


def test_a_pool_that_grew_is_told_of_and_one_that_filled_is_not(heard: Heard) -> None:
    heard.catalog.put_pool(replace(POOL, usage=PoolUsage(size=0, allocated=5)))
    assert heard.since() == []
    heard.catalog.put_pool(replace(POOL, usage=PoolUsage(size=100)))
    assert heard.since() == [(Change.CHANGED, "tank")]


def test_every_event_says_what_kind_it_is_of(heard: Heard) -> None:
    heard.put(volume("v"), snapshot("s", "v"), template("t"))
    kinds = {event.id: event.kind for event in heard.all if event.change is Change.ADDED}
    assert kinds == {
        "v": ObjectKind.VOLUME,
        "s": ObjectKind.SNAPSHOT,
        "t": ObjectKind.TEMPLATE,
    }


def test_no_more_is_made_than_there_may_be(heard: Heard) -> None:
    heard.catalog._limit = 3
    heard.put(volume("a"), volume("b"))
    with heard.catalog.reserve(Kind.VOLUME, "c", "c"):
        with (
            pytest.raises(LimitsExceeded, match="max-objects"),
            heard.catalog.reserve("b", "s", "s"),
        ):
            pass
        with heard.catalog.reserve_name(Kind.VOLUME, "new"):
            pass
    heard.put(volume("c"), volume("found-by-a-scan"))
    assert heard.catalog.count(Volume) == 4
