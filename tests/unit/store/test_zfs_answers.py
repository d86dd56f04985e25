"""Answers of the channel programs, with values as OpenZFS 2.1.11 gives them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mvirt_zfs_dbus.model import Pool, PoolUsage, Usage
from mvirt_zfs_dbus.store.base import Inventory
from mvirt_zfs_dbus.store.openzfs import programs, rows

from .scan_answers import packed

VOLUME = "11111111-1111-4111-8111-111111111111"
SNAPSHOT = "22222222-2222-4222-8222-222222222222"
TEMPLATE = "33333333-3333-4333-8333-333333333333"
CLONE = "44444444-4444-4444-8444-444444444444"
EMPTY = Inventory(Pool("tank/vm", "ONLINE"))


def volume_row(**changed: object) -> dict[bytes, Any]:
    row: dict[bytes, Any] = {
        b"kind": b"volume",
        b"name": b"web",
        b"created": b"1790000000000000",
        b"creation": 1795412878,
        b"labels": '{"größe":"klein"}'.encode(),
        b"volsize": 67108864,
        b"volblocksize": 16384,
        b"used": 12288,
        b"referenced": 8192,
        b"compressratio": 150,
        b"refreservation": 0,
        b"snapshots": {},
    }
    return row | {key.encode(): value for key, value in changed.items()}


def template_row(**changed: object) -> dict[bytes, Any]:
    image = {f"tank/vm/{TEMPLATE}@img".encode(): {b"kind": b"image"}}
    return volume_row(**{"kind": b"template", "name": b"debian", "snapshots": image, **changed})


def snapshot_row(name: str, txg: int, **changed: object) -> dict[bytes, Any]:
    row: dict[bytes, Any] = {
        b"kind": b"snapshot",
        b"name": name.encode(),
        b"created": b"5",
        b"creation": 1795412879,
        b"createtxg": txg,
        b"defer_destroy": b"off",
        b"volsize": 33554432,
        b"used": 0,
        b"referenced": 12288,
        b"compressratio": 100,
    }
    return row | {key.encode(): value for key, value in changed.items()}


def scanned(**datasets: dict[bytes, Any]) -> Inventory:
    named = {f"tank/vm/{name}".encode(): packed(row) for name, row in datasets.items()}
    found = rows.read_datasets({b"datasets": named})
    return rows.inventory(EMPTY.pool, (thing for row in found for thing in rows.things(row)))


def test_a_text_may_hold_whatever_a_property_may() -> None:
    values = {b"name": b"4:kind6:", b"labels": "größe\n\t:".encode(), b"": b"", b"7:": b"\xff"}
    assert rows.fields(packed(values)) == values
    assert rows.fields(b"") == {}


def test_a_volume_is_read_whole() -> None:
    (found,) = scanned(**{VOLUME: volume_row(source=b"/a.qcow2")}).volumes.values()
    assert (found.id, found.name, found.size, found.block_size) == (VOLUME, "web", 1 << 26, 16384)
    assert (found.created_at, found.labels) == (1_790_000_000_000_000, {"größe": "klein"})
    assert (found.device, found.source) == (f"/dev/zvol/tank/vm/{VOLUME}", "/a.qcow2")
    assert (found.thin, found.origin_id) == (True, "")
    assert found.usage == Usage(12288, 8192, 1.5)


def test_a_reservation_makes_a_volume_thick() -> None:
    (found,) = scanned(**{VOLUME: volume_row(refreservation=1 << 26)}).volumes.values()
    assert not found.thin


def test_a_clone_names_its_template_and_a_template_its_snapshot() -> None:
    found = scanned(
        **{
            CLONE: volume_row(origin=f"tank/vm/{TEMPLATE}@img".encode()),
            TEMPLATE: template_row(
                origin=f"tank/vm/{VOLUME}@{SNAPSHOT}".encode(),
                **{"source-volume": VOLUME.encode()},
            ),
        }
    )
    assert found.volumes[CLONE].origin_id == TEMPLATE
    template = found.templates[TEMPLATE]
    assert (template.origin_id, template.source_volume_id) == (SNAPSHOT, VOLUME)
    assert template.snapshot == f"tank/vm/{TEMPLATE}@img"


@pytest.mark.parametrize("origin", [b"tank/other@img", b"tank/other@yesterday"])
def test_an_origin_that_is_not_ours_is_none(origin: bytes) -> None:
    found = scanned(**{CLONE: volume_row(origin=origin), TEMPLATE: template_row(origin=origin)})
    assert found.volumes[CLONE].origin_id == found.templates[TEMPLATE].origin_id == ""


def test_snapshots_are_in_the_order_of_their_transaction_groups() -> None:
    names = [f"{n}2222222-2222-4222-8222-222222222222" for n in (3, 1, 2)]
    below = {
        f"tank/vm/{VOLUME}@{name}".encode(): snapshot_row(name, txg)
        for name, txg in zip(names, (30, 10, 20), strict=True)
    }
    found = scanned(**{VOLUME: volume_row(snapshots=below)})
    assert list(found.snapshots) == [names[1], names[2], names[0]]
    assert found.snapshots[names[0]].size == 1 << 25
    assert found.snapshots[names[0]].volume_id == VOLUME


def test_snapshots_that_are_deferred_or_of_others_do_not_exist() -> None:
    below = {
        f"tank/vm/{VOLUME}@{SNAPSHOT}".encode(): snapshot_row("gone", 1, defer_destroy=b"on"),
        f"tank/vm/{VOLUME}@autosnap_2026".encode(): {},
    }
    assert not scanned(**{VOLUME: volume_row(snapshots=below)}).snapshots


def test_what_is_deleted_or_renamed_by_hand_or_half_received_does_not_exist() -> None:
    found = scanned(
        **{
            VOLUME: volume_row(state=b"deleted"),
            "by-hand": volume_row(),
            CLONE: volume_row(volsize=0),
        }
    )
    assert found == EMPTY


def test_a_template_without_its_image_does_not_exist(caplog: pytest.LogCaptureFixture) -> None:
    assert not scanned(**{TEMPLATE: template_row(snapshots={})}).templates
    assert TEMPLATE in caplog.text


def test_a_missing_creation_time_is_taken_from_zfs() -> None:
    row = volume_row()
    del row[b"created"]
    assert scanned(**{VOLUME: row}).volumes[VOLUME].created_at == 1795412878 * 1_000_000


def test_the_pools_space_is_of_the_pool_and_what_is_available_of_the_dataset() -> None:
    root = {b"available": 16122649600, b"compressratio": 123}
    usage = rows.pool_usage(root, 17179869184, 221184, 17179648000)
    assert usage == PoolUsage(17179869184, 221184, 17179648000, 16122649600, 1.23)


def test_a_refusal_names_what_is_in_the_way_in_the_programs_order() -> None:
    listed = {b"%d" % n: b"tank/vm/%d" % n for n in (10, 2, 1)}
    answer = programs.outcome({b"refused": b"clones", b"names": listed})
    assert answer.refused == "clones"
    assert answer.names == ("tank/vm/1", "tank/vm/2", "tank/vm/10")
    assert programs.outcome({b"done": b"set"}) == replace(answer, refused="", names=(), done="set")
    assert programs.outcome({b"errno": 28}).errno == 28
