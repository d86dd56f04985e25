"""What is read again, and what a scan does about a dataset that cannot be read.

The kernel is a double: a channel program's answers by dataset, and what it was asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast
from unittest.mock import ANY

import pytest

from mvirt_zfs_dbus.errors import NotFound, PoolUnavailable
from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.openzfs import device, programs, zpool
from mvirt_zfs_dbus.store.openzfs.events import ANYTHING
from mvirt_zfs_dbus.store.openzfs.kernel import Kernel, ProgramFailed, TooMuch
from mvirt_zfs_dbus.store.openzfs.reading import Reading

from .scan_answers import packed

ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"

SNAPSHOT = "33333333-3333-4333-8333-333333333333"
SNAPSHOT_ROW: dict[bytes, Any] = {b"kind": b"snapshot", b"name": b"taken", b"volsize": 1 << 20}
BOTH = [f"tank/vm/{ONE}", f"tank/vm/{TWO}"]


class KernelDouble:
    def __init__(self) -> None:
        self.root, self.pool = "tank/vm", "tank"
        self.rows = {f"tank/vm/{name}": volume() for name in (ONE, TWO)}
        self.damaged: set[str] = set()
        self.too_much: set[str] = set()
        self.deleted: list[str] = []
        self.state: Mapping[bytes, Any] = {}
        self.asked: list[list[str]] = []
        self.waited_for: list[set[str]] = []

    async def exists(self, dataset: str) -> bool:
        return dataset in self.rows

    async def wait_for_devices(
        self, datasets: set[str], still_there: Callable[[str], Awaitable[bool]]
    ) -> set[str]:
        self.waited_for.append(datasets)
        return {dataset for dataset in datasets if not await still_there(dataset)}

    async def run(self, work: Callable[..., Any], *arguments: object) -> Any:
        return work(*arguments)

    async def read(self, program: str, **arguments: Any) -> Mapping[bytes, Any]:
        if program == programs.DELETED:
            return {b"names": {b"%d" % n: name.encode() for n, name in enumerate(self.deleted, 1)}}
        if program == programs.CHILDREN:
            if b"missing" in self.state:
                raise ProgramFailed("reading", "dataset 'tank/vm' does not exist")
            return {b"names": {b"%d" % n: name.encode() for n, name in enumerate(self.rows, 1)}}
        if program == programs.ROOT:
            return self.state
        if program in (programs.LOOK, programs.SNAPSHOT):
            row = self.rows.get(arguments["dataset"], {})
            if program == programs.SNAPSHOT and row:
                return {b"kind": row[b"kind"], b"snapshot": packed(SNAPSHOT_ROW)}
            return row
        assert program == programs.SCAN
        names, skip = arguments["names"], arguments["skip"]
        self.asked.append(names)
        wanted = [n for n in self.rows if n in names and n not in skip]
        if self.too_much.intersection(wanted):
            raise TooMuch("reading", "Channel program exhausted the memory limit")
        for name in wanted:
            if name in self.damaged:
                raise ProgramFailed("reading", f"I/O error while retrieving on dataset '{name}'")
        found = {name.encode(): packed(self.rows[name]) for name in wanted}
        return {b"datasets": found}


def volume(name: bytes = b"name") -> dict[bytes, Any]:
    return {b"kind": b"volume", b"name": name, b"volsize": 1 << 20}


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelDouble:
    (tmp_path / "tank").mkdir()
    (tmp_path / "tank" / "state").write_text("ONLINE\n")
    monkeypatch.setattr(zpool, "_KSTAT", tmp_path)

    async def space(_pool: str) -> tuple[int, int, int]:
        return 3, 2, 1

    monkeypatch.setattr(zpool, "space", space)
    double = KernelDouble()
    monkeypatch.setattr(device, "wait_for_devices", double.wait_for_devices)
    return double


@pytest.fixture
def live() -> set[str]:
    """Ids of what is being made."""
    return set()


@pytest.fixture
def reading(kernel: KernelDouble, live: set[str]) -> Reading:
    return Reading(cast(Kernel, kernel), live.__contains__)


async def names(reading: Reading, *, again: bool = True) -> dict[str, str]:
    found, _ = await (reading.rescan() if again else reading.scan())
    return {volume.id: volume.name for volume in found.volumes.values()}


async def test_only_what_was_touched_is_read_again(kernel: KernelDouble, reading: Reading) -> None:
    assert await names(reading) == {ONE: "name", TWO: "name"}
    kernel.rows[f"tank/vm/{ONE}"] = volume(b"new")
    assert await names(reading) == {ONE: "name", TWO: "name"}
    reading.touch(f"tank/vm/{ONE}@snapshot")
    assert await names(reading) == {ONE: "new", TWO: "name"}
    assert kernel.asked == [BOTH, [f"tank/vm/{ONE}"]]


@pytest.mark.parametrize("again", [False, True])
async def test_what_is_being_made_is_neither_shown_nor_waited_for_until_it_is_made(
    kernel: KernelDouble, reading: Reading, live: set[str], again: bool
) -> None:
    live.add(TWO)
    assert await names(reading, again=again) == {ONE: "name"}
    assert kernel.asked == [[f"tank/vm/{ONE}"]]
    live.clear()
    assert await names(reading) == {ONE: "name", TWO: "name"}
    live.add(ONE)  # somebody tries to make one of that id
    assert await names(reading, again=again) == {ONE: "name", TWO: "name"}


async def test_what_stayed_is_the_very_same_object_in_the_next_inventory(
    kernel: KernelDouble, reading: Reading
) -> None:
    before, _ = await reading.rescan()
    reading.touch(f"tank/vm/{ONE}")
    after, _ = await reading.rescan()
    assert after.volumes[TWO] is before.volumes[TWO]
    assert after.volumes[ONE] is not before.volumes[ONE]


async def test_what_is_gone_is_gone_after_a_rescan(kernel: KernelDouble, reading: Reading) -> None:
    await names(reading)
    del kernel.rows[f"tank/vm/{ONE}"]
    reading.touch(f"tank/vm/{ONE}")
    assert await names(reading) == {TWO: "name"}


async def test_what_was_deleted_and_somebody_renamed_is_not_collected(
    kernel: KernelDouble, reading: Reading
) -> None:
    deleted = volume() | {b"state": b"deleted"}
    kernel.rows = {f"tank/vm/{ONE}": deleted, "tank/vm/rescued": deleted}
    assert await reading.scan() == (ANY, {f"tank/vm/{ONE}"})
    kernel.deleted = sorted(kernel.rows)
    assert await reading.deleted() == {f"tank/vm/{ONE}"}


@pytest.mark.parametrize("again", [False, True])
async def test_a_scan_and_what_may_be_anything_read_everything(
    kernel: KernelDouble, reading: Reading, again: bool
) -> None:
    await names(reading)
    kernel.rows = {f"tank/vm/{ONE}": volume(b"other")}
    if again:
        reading.touch(ANYTHING)
    assert await names(reading, again=again) == {ONE: "other"}


async def test_what_others_do_elsewhere_is_not_asked_for(
    kernel: KernelDouble, reading: Reading
) -> None:
    await names(reading)
    reading.touch("tank/other")
    reading.touch("tank/vm2/x")
    await names(reading)
    assert kernel.asked == [BOTH]


async def test_a_pool_is_read_in_pages_and_what_changes_meanwhile_is_read_again(
    kernel: KernelDouble, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvirt_zfs_dbus.store.openzfs.reading._PAGE", 1)
    read = kernel.read

    async def changed_behind(program: str, **arguments: Any) -> Mapping[bytes, Any]:
        answer = await read(program, **arguments)
        if arguments.get("names") == [f"tank/vm/{TWO}"]:  # ONE has been read by then
            kernel.rows[f"tank/vm/{ONE}"] = volume(b"new")
            reading.touch(f"tank/vm/{ONE}")
        return answer

    monkeypatch.setattr(kernel, "read", changed_behind)
    assert await names(reading) == {ONE: "name", TWO: "name"}
    assert await names(reading) == {ONE: "new", TWO: "name"}
    assert kernel.asked == [*([name] for name in BOTH), [f"tank/vm/{ONE}"]]


async def test_a_rescan_that_failed_is_made_up_for(kernel: KernelDouble, reading: Reading) -> None:
    await names(reading)
    kernel.rows[f"tank/vm/{ONE}"] = volume(b"new")
    reading.touch(f"tank/vm/{ONE}")
    for state, message in (({b"locked": True}, "load-key"), ({b"missing": True}, "any more")):
        kernel.state = state
        with pytest.raises(PoolUnavailable, match=message):
            await names(reading)
    kernel.state = {}
    assert await names(reading) == {ONE: "new", TWO: "name"}


async def test_a_pool_that_was_lost_is_read_whole_when_it_is_back(
    kernel: KernelDouble, reading: Reading, tmp_path: Path
) -> None:
    await names(reading)
    state = tmp_path / "tank" / "state"
    state.write_text("SUSPENDED\n")
    assert await names(reading) == {}
    state.write_text("ONLINE\n")
    kernel.rows[f"tank/vm/{ONE}"] = volume(b"other")
    assert await names(reading) == {ONE: "other", TWO: "name"}


async def test_a_dataset_that_cannot_be_read_does_not_hide_the_others(
    kernel: KernelDouble, reading: Reading, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.damaged.add(f"tank/vm/{ONE}")
    for _ in range(2):
        assert await names(reading) == {TWO: "name"}
    assert caplog.text.count(f"tank/vm/{ONE} cannot be read") == 1
    kernel.damaged.clear()
    assert await names(reading) == {ONE: "name", TWO: "name"}


async def test_a_dataset_too_large_to_be_read_does_not_hide_the_others(
    kernel: KernelDouble, reading: Reading, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.too_much.add(f"tank/vm/{ONE}")
    assert await names(reading) == {TWO: "name"}
    assert f"tank/vm/{ONE} cannot be read" in caplog.text
    assert kernel.asked == [BOTH, *([name] for name in BOTH)]


async def test_a_failure_that_names_no_dataset_is_told(
    kernel: KernelDouble, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = kernel.read

    async def failing(program: str, **arguments: Any) -> Mapping[bytes, Any]:
        if program == programs.SCAN:
            raise ProgramFailed("reading", "attempt to index a nil value")
        return await read(program, **arguments)

    monkeypatch.setattr(kernel, "read", failing)
    with pytest.raises(ProgramFailed, match="nil value"):
        await names(reading)


@pytest.mark.parametrize(
    ("state", "message"), [({b"locked": True}, "load-key"), ({b"missing": True}, "any more")]
)
async def test_a_pool_that_goes_while_it_is_read_is_not_an_empty_one(
    kernel: KernelDouble,
    reading: Reading,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    state: Mapping[bytes, Any],
    message: str,
) -> None:
    monkeypatch.setattr("mvirt_zfs_dbus.store.openzfs.reading._PAGE", 1)
    read = kernel.read

    async def going(program: str, **arguments: Any) -> Mapping[bytes, Any]:
        answer = await read(program, **arguments)
        if arguments.get("names") == [f"tank/vm/{ONE}"]:
            kernel.state = state
            if b"locked" in state:
                kernel.damaged = {f"tank/vm/{TWO}"}
            else:
                del kernel.rows[f"tank/vm/{TWO}"]
        return answer

    monkeypatch.setattr(kernel, "read", going)
    with pytest.raises(PoolUnavailable, match=message):
        await names(reading)
    assert "left out" not in caplog.text
    kernel.state, kernel.damaged, kernel.rows = {}, set(), {name: volume() for name in BOTH}
    monkeypatch.setattr(kernel, "read", read)
    assert await names(reading) == {ONE: "name", TWO: "name"}


async def test_what_is_no_volume_of_ours_has_no_size_and_no_snapshot(
    kernel: KernelDouble, reading: Reading
) -> None:
    assert await reading.size(Kind.VOLUME, ONE) == 1 << 20
    taken = await reading.snapshot(SNAPSHOT, ONE)
    assert (taken.name, taken.volume_id, taken.size) == ("taken", ONE, 1 << 20)
    kernel.rows = {
        f"tank/vm/{ONE}": {b"kind": b"template", b"volsize": 1 << 20},
        f"tank/vm/{TWO}": {b"kind": b"volume"},  # half received, or not to be opened
        "tank/vm/rescued": volume(),
    }
    for wanted in (ONE, TWO, "rescued", SNAPSHOT):
        with pytest.raises(NotFound, match=wanted):
            await reading.size(Kind.VOLUME, wanted)
    for home in (ONE, "rescued", SNAPSHOT):
        with pytest.raises(NotFound, match=SNAPSHOT):
            await reading.snapshot(SNAPSHOT, home)
    kernel.state = {b"missing": True}
    with pytest.raises(PoolUnavailable, match="any more"):
        await reading.size(Kind.VOLUME, SNAPSHOT)


async def test_a_volume_that_is_new_is_told_of_when_its_device_is_there(
    kernel: KernelDouble, reading: Reading, tmp_path: Path
) -> None:
    one, two = f"tank/vm/{ONE}", f"tank/vm/{TWO}"
    await names(reading)
    await names(reading, again=False)
    assert kernel.waited_for == [{one, two}]
    kernel.rows[two] = kernel.rows[one] = volume() | {b"kind": b"template"}
    await names(reading, again=False)
    kernel.rows[two] = volume()
    await names(reading, again=False)
    assert kernel.waited_for[1:] == [{two}]
    (tmp_path / "tank" / "state").write_text("SUSPENDED\n")
    await names(reading)
    (tmp_path / "tank" / "state").write_text("ONLINE\n")
    await names(reading)
    assert kernel.waited_for[2:] == [{two}]
