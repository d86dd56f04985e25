"""The benchmarks of scale: a store made by hand, the client that only counts, what it comes to."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from bench import callers, disks, machine, proc, scale_tables, service
from bench.raw import CallFailed, RawClient
from mvirt_zfs_dbus.names import ROOT, Interface
from mvirt_zfs_dbus.store.directory import DirectoryStore

MIB = 1 << 20
CHECKOUT = Path(__file__).parents[3]
needs_bus = pytest.mark.skipif(
    not shutil.which("dbus-daemon"), reason="dbus-daemon is not installed"
)


async def test_a_store_made_by_hand_is_one_the_store_reads_and_can_grow(tmp_path):
    disks.fill(tmp_path / "disks", 3, 2)
    store = DirectoryStore(tmp_path / "disks")
    await store.start()
    try:
        found = await store.scan()
        assert sorted(each.name for each in found.volumes.values()) == [
            "vm-000000", "vm-000001", "vm-000002",
        ]  # fmt: skip
        assert len(found.snapshots) == 6
        assert {each.size for each in found.volumes.values()} == {disks.SIZE}
        disks.grow(tmp_path / "disks")
        after = await store.scan()
        assert all(each.size > disks.SIZE for each in after.volumes.values())
        assert {each.size for each in after.snapshots.values()} == {disks.SIZE}
    finally:
        await store.close()


@needs_bus
async def test_the_raw_client_tells_sizes_signals_and_errors(tmp_path):
    disks.fill(tmp_path / "disks", 2, 0)
    async with service.running(tmp_path) as running:
        with RawClient(running.bus) as client:
            manager = "org.freedesktop.DBus.ObjectManager"
            reply = await asyncio.to_thread(
                client.call, "GetManagedObjects", path=ROOT, interface=manager
            )
            assert 1000 < reply.size < 10_000
            assert reply.seconds > 0
            client.listen("type='signal',member='PropertiesChanged'")
            disks.grow(tmp_path / "disks")
            refresh = ("Refresh", "a{sv}", {})
            reply = await asyncio.to_thread(
                client.call, *refresh, path=ROOT, interface=str(Interface.MANAGER)
            )
            assert reply.signals == 3, "two volumes, and the pool they are counted in"
            with pytest.raises(CallFailed, match="NotFound"):
                client.call("GetVolume", "s", "x", path=ROOT, interface=str(Interface.MANAGER))


@needs_bus
async def test_every_operation_of_the_contest_is_one_the_service_knows(tmp_path, monkeypatch):
    volume, clone, template = (str(uuid.uuid4()) for _ in range(3))
    async with service.running(tmp_path) as running:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", running.bus)
        caller = callers.Service()
        for work in (
            lambda: caller.create(volume),
            lambda: caller.snapshot(volume),
            lambda: caller.make_template(volume, template),
            lambda: caller.clone(clone, template),
            lambda: caller.resize(volume),
            caller.list_all,
        ):
            await asyncio.to_thread(work)
        sizes = {each.name: each.size_bytes for each in await running.client.volumes()}
        assert sizes == {f"bench-{volume}": 128 * MIB, f"bench-{clone}": 64 * MIB}
        await asyncio.to_thread(caller.delete, clone)
        (found,) = await running.client.templates()
        await found.delete()
        await asyncio.to_thread(caller.delete_snapshot, volume)
        await asyncio.to_thread(caller.delete, volume)
        assert not await running.client.volumes()
        caller.close()


def test_a_command_that_fails_ends_the_contest():
    assert callers.seconds_of("true") > 0
    with pytest.raises(SystemExit, match="false: 1"):
        callers.seconds_of("false")


def test_processor_time_and_wake_ups_of_a_process_are_counted():
    steps = ("[x for x in range(1_000_000)]", "[time.sleep(0.001) for x in range(20)]")
    told = (f"{step}; print(flush=True); sys.stdin.read(1)" for step in ("pass", *steps))
    command = [sys.executable, "-c", f"import sys, time; {'; '.join(told)}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0) as process:
        assert process.stdin
        assert process.stdout
        found = []
        for _ in range(3):
            process.stdout.readline()
            found.append((proc.on_cpu(process.pid), proc.wakeups(process.pid)))
            process.stdin.write(b"x")
    (idle, _), (worked, awake), (_, slept) = found
    assert worked - idle > 0.005
    assert slept - awake >= 20


def measured(volumes: int, snapshots: int, cost: float = 1.0) -> scale_tables.Measured:
    """What a service costs that is linear, times ``cost``."""
    objects = (volumes + snapshots) * cost
    return scale_tables.Measured(
        volumes=volumes,
        snapshots=snapshots,
        start=1.0,
        start_cpu=0.5 + objects / 1000,
        start_cold=2.0,
        memory=30 * MIB + int(objects * 4096),
        memory_all=50 * MIB,
        memory_after=0,
        managed=0.1,
        managed_cpu=objects / 100_000,
        managed_bytes=0,
        find=0.001,
        create=0.01,
        create_cpu=0.001,
        unchanged_cpu=0.1,
        changed=0.2,
        changed_cpu=0.1 + objects / 50_000,
        signals=volumes + 1,
        tree=objects / 1000,
        rest=60.0,
        rest_cpu=0.0,
        wakeups=0,
    )


STORES = [measured(0, 0), measured(1000, 0), measured(250, 1000), measured(500, 2000),
          measured(1000, 4000)]  # fmt: skip


def test_what_costs_the_same_an_object_at_any_size_is_linear():
    rows = scale_tables.linearity(STORES).splitlines()[2:]
    assert all([cell.strip() for cell in row.split("|")[2:4]] == ["1.00"] * 2 for row in rows)
    worse = scale_tables.linearity([*STORES[:-1], measured(1000, 4000, cost=2.0)])
    assert worse.count("2.00") == 5


def test_the_figures_of_scale_are_per_object_and_without_the_reading_of_the_store():
    found = {each.text: each for each in scale_tables.targets(STORES)}
    assert found["memory for a further volume"].measured == pytest.approx(4)
    assert found["memory for a further snapshot"].measured == pytest.approx(4)
    assert found["memory at rest, nothing in the pool"].measured == 30
    assert found["1001 PropertiesChanged"].measured == pytest.approx(20)
    assert found["GetManagedObjects with 1000 volumes, in the service"].measured == 10
    assert all(each.met for each in found.values())
    busy = [*STORES[:-1], replace(STORES[-1], rest_cpu=0.01, wakeups=3)]
    missed = [each.text for each in scale_tables.targets(busy) if not each.met]
    assert missed == ["CPU in 60 s of rest", "wake-ups in 60 s of rest"]


def test_ours_and_theirs_are_compared_round_by_round():
    seconds = {"D-Bus": [1.0, 2.0, 8.0], "zfs": [2.0, 4.0, 1.0], "zfs, then its device": [3.0] * 3}
    found = {
        "one": {"create": seconds}, "ten": {"create": seconds},
        "listing": {"volumes": 10, "snapshots": 20,
                    "seconds": {"D-Bus": [0.1], "zfs": [6.0], "UDisks2": [0.3]}},
        "udisks": {"disks": 12},
        "start": {"seconds": 1.0, "cpu": 0.5, "memory": 50 * MIB},
    }  # fmt: skip
    one, ten, listed = machine.operation_targets(found)
    assert one.measured == ten.measured == 0.5
    assert one.met
    assert listed.measured == pytest.approx(60)
    tables = machine.operation_tables(found)
    assert [cell.strip() for cell in tables[0].splitlines()[2].split("|")[1:-1]] == [
        "create", "2000.0", "2000.0", "3000.0", "0.50",
    ]  # fmt: skip
    assert "UDisks2, 12 of the disks, ms" in tables[2]
    assert " 300.0 |" in tables[2]


@needs_bus
def test_the_smallest_benchmark_of_scale_runs_from_end_to_end(tmp_path):
    command = [sys.executable, "-m", "bench", "scale", "--volumes", "8", "--rounds", "1"]
    folders = ["--directory", tmp_path, "--results", tmp_path / "out", "--rest", "0.1"]
    done = subprocess.run(
        [*command, *folders], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "scale.json").read_text())
    assert [(each["volumes"], each["snapshots"]) for each in result["stores"]] == [
        (0, 0), (8, 0), (2, 8), (4, 16), (8, 32),
    ]  # fmt: skip
    assert all(each["start"] > 0 and each["managed_cpu"] > 0 for each in result["stores"])
    assert result["stores"][-1]["signals"] == 29, "8 volumes, 20 made, and the pool"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
