"""What an administrator does on a shell reaches the bus within a second."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import host
import pytest
from host import MIB, POOL

from mvirt_zfs_dbus.bus import wire
from mvirt_zfs_dbus.client import Client, Pool
from mvirt_zfs_dbus.errors import NotFound, PoolUnavailable
from mvirt_zfs_dbus.names import BUS_NAME, ROOT, snapshot_path, volume_path

PATIENCE = 30
"""Seconds until a signal that does not come is a failure."""


class Signals:
    """The service's signals as they arrive, each with the time it did."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[tuple[float, wire.Message]] = asyncio.Queue()

    def take(self, message: wire.Message) -> None:
        self._arrived.put_nowait((time.monotonic(), message))

    async def next(self, member: str, fits: Callable[[list[Any]], bool]) -> float:
        """Waits for a signal whose body fits; when it arrived."""
        async with asyncio.timeout(PATIENCE):
            while True:
                arrived, message = await self._arrived.get()
                if message.member == member and fits(wire.unpacked(message.body)):
                    return arrived


@asynccontextmanager
async def signals() -> AsyncIterator[Signals]:
    connection = await wire.connect("system")
    try:
        owner = await connection.name_owner(BUS_NAME)
        assert owner
        received = Signals()
        rule = wire.MatchRule(owner, path_namespace=ROOT)
        await connection.subscribe(rule, received.take)
        yield received
    finally:
        await connection.close()


async def shell(*command: str) -> float:
    """Runs a command once udev and the service look at no device; when it was done."""
    async with asyncio.timeout(PATIENCE):
        while True:
            host.run("udevadm", "settle")
            process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
            assert process.stderr is not None
            status, ended = await process.wait(), time.monotonic()
            said = (await process.stderr.read()).decode()
            if status == 0:
                return ended
            assert "busy" in said, said


@pytest.fixture
def within_a_second(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Prints from when to when each took, in seconds: less than 0 where the signal was first."""

    def check(what: str, *delays: float) -> None:
        with capsys.disabled():
            shown = ", ".join(f"{delay * 1000:.0f}" for delay in delays)
            print(f"\nfrom the end of `{what}` to its signal: {shown} ms")
        assert statistics.median(delays) < 1
        assert max(delays) < 3  # a host that is busy for a moment

    return check


async def test_a_destroyed_dataset_leaves_the_bus_within_a_second(
    client: Client, within_a_second: Callable[..., None]
) -> None:
    delays = []
    for number in range(5):
        volume = await client.manager.create_volume(f"doomed-{number}", MIB)
        async with signals() as received:
            destroyed = await shell("zfs", "destroy", f"{POOL}/{volume.id}")
            path = volume.path
            removed = await received.next("InterfacesRemoved", lambda body: body[0] == path)  # noqa: B023
        delays.append(removed - destroyed)
        with pytest.raises(NotFound):
            await client.manager.volume(volume.name)
    within_a_second("zfs destroy", *delays)


def ours(kind: str, name: str) -> list[str]:
    """What makes a dataset or a snapshot one of the service's: docs/design.md."""
    return ["-o", f"org.mvirt:kind={kind}", "-o", f"org.mvirt:name={name}"]


async def test_a_volume_made_on_a_shell_comes(
    client: Client, within_a_second: Callable[..., None]
) -> None:
    delays = []
    for name in ("one", "two", "three"):  # each waits for udev too
        made = str(uuid.uuid4())
        create = ("zfs", "create", "-s", "-V", "1M", *ours("volume", name), f"{POOL}/{made}")
        async with signals() as received:
            done = await shell(*create)
            path = volume_path(made)
            added = await received.next("InterfacesAdded", lambda body: body[0] == path)  # noqa: B023
        delays.append(added - done)
        assert (await client.manager.volume(name)).id == made
    within_a_second("zfs create", *delays)


async def test_snapshots_made_and_destroyed_on_a_shell_come_and_go(
    client: Client, within_a_second: Callable[..., None]
) -> None:
    volume = await client.manager.create_volume("watched", MIB)
    coming, going = [], []
    async with signals() as received:
        for _ in range(3):
            name = f"{POOL}/{volume.id}@{(made := str(uuid.uuid4()))}"
            path = snapshot_path(made)
            done = await shell("zfs", "snapshot", *ours("snapshot", "by-hand"), name)
            added = await received.next("InterfacesAdded", lambda body: body[0] == path)  # noqa: B023
            coming.append(added - done)
            assert (await volume.refresh()).snapshot_paths == [path]
            done = await shell("zfs", "destroy", name)
            removed = await received.next("InterfacesRemoved", lambda body: body[0] == path)  # noqa: B023
            going.append(removed - done)
            assert (await volume.refresh()).snapshot_paths == []
    within_a_second("zfs snapshot", *coming)
    within_a_second("zfs destroy", *going)


async def test_a_property_set_on_a_shell_changes_on_the_bus(
    client: Client, within_a_second: Callable[..., None]
) -> None:
    volume = await client.manager.create_volume("before", MIB)
    delays = []
    async with signals() as received:
        for name in ("one", "two", "three"):
            done = await shell("zfs", "set", f"org.mvirt:name={name}", f"{POOL}/{volume.id}")
            changed = await received.next(
                "PropertiesChanged",
                lambda body: body[1].get("Name") == name,  # noqa: B023
            )
            delays.append(changed - done)
            assert (await client.manager.volume(name)).path == volume.path
    within_a_second("zfs set", *delays)


async def test_a_rollback_on_a_shell_takes_newer_snapshots_off_the_bus(
    client: Client, within_a_second: Callable[..., None]
) -> None:
    volume = await client.manager.create_volume("rolled", MIB)
    old = await volume.create_snapshot("old")
    delays = []
    async with signals() as received:
        for _ in range(3):
            path = (await volume.create_snapshot("new")).path
            done = await shell("zfs", "rollback", "-r", f"{POOL}/{volume.id}@{old.id}")
            removed = await received.next("InterfacesRemoved", lambda body: body[0] == path)  # noqa: B023
            delays.append(removed - done)
            assert (await volume.refresh()).snapshot_paths == [old.path]
    within_a_second("zfs rollback", *delays)


async def test_a_dataset_that_is_renamed_away_and_back_goes_and_comes(
    client: Client, within_a_second: Callable[..., None]
) -> None:
    volume = await client.manager.create_volume("moved", MIB)
    going, coming = [], []
    async with signals() as received:
        for _ in range(3):
            away = await shell("zfs", "rename", f"{POOL}/{volume.id}", f"{POOL}/elsewhere")
            removed = await received.next("InterfacesRemoved", lambda body: body[0] == volume.path)
            going.append(removed - away)
            back = await shell("zfs", "rename", f"{POOL}/elsewhere", f"{POOL}/{volume.id}")
            added = await received.next("InterfacesAdded", lambda body: body[0] == volume.path)
            coming.append(added - back)
    within_a_second("zfs rename, away", *going)
    within_a_second("zfs rename, back", *coming)


async def test_what_carries_no_property_of_ours_is_never_shown(client: Client) -> None:
    await shell("zfs", "create", "-V", "1M", f"{POOL}/foreign")
    await shell("zfs", "snapshot", f"{POOL}/foreign@mine")
    volume = await client.manager.create_volume("ours", MIB)
    await shell("zfs", "snapshot", f"{POOL}/{volume.id}@foreign")
    await client.manager.rescan()
    inventory = await client.inventory()
    assert [found.path for found in inventory.volumes] == [volume.path]
    assert inventory.snapshots == []
    assert {"foreign", "foreign@mine"} <= host.datasets()


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[list[str]]:
    """The service serves a mirror of two files, and the machine's own pool again afterwards."""
    halves = [tmp_path / "half-0", tmp_path / "half-1"]
    for half in halves:
        with half.open("wb") as file:
            file.truncate(256 * MIB)
    paths = [str(half) for half in halves]
    host.run("zpool", "create", "-O", "mountpoint=none", "twins", "mirror", *paths)
    host.run("zpool", "export", "twins")  # the kernel remembers that, and tells the service
    host.run("zpool", "import", "-d", tmp_path, "twins")
    with host.serving("twins"):
        yield paths
    subprocess.run(["zpool", "import", "-d", str(tmp_path), "twins"], check=False)
    host.run("udevadm", "settle")
    host.run("zpool", "destroy", "twins")


async def pool_of(client: Client) -> Pool:
    [pool] = (await client.inventory()).pools
    return pool


async def test_a_disk_taken_offline_shows_in_the_pools_health(
    mirror: list[str], within_a_second: Callable[..., None]
) -> None:
    async with Client.connect("system") as client, signals() as received:
        assert (await pool_of(client)).health == "ONLINE"
        delays: dict[str, list[float]] = {"offline": [], "online": []}
        for verb, health in 3 * [("offline", "DEGRADED"), ("online", "ONLINE")]:
            done = await shell("zpool", verb, "twins", mirror[0])
            changed = await received.next(
                "PropertiesChanged",
                lambda body: body[1].get("Health") == health,  # noqa: B023
            )
            delays[verb].append(changed - done)
    for verb, each in delays.items():
        within_a_second(f"zpool {verb}", *each)


async def test_an_exported_pool_is_unavailable_and_comes_back_without_a_restart(
    mirror: list[str],
) -> None:
    pid = host.unit("MainPID")
    async with Client.connect("system") as client, signals() as received:
        volume = await client.manager.create_volume("patient", MIB)
        host.write(volume.device, b"still here")
        await shell("zpool", "export", "twins")
        await received.next("InterfacesRemoved", lambda body: body[0] == volume.path)
        assert (await pool_of(client)).health not in ("ONLINE", "DEGRADED")
        with pytest.raises(PoolUnavailable):
            await client.manager.create_volume("impossible", MIB)
        await shell("zpool", "import", "-d", str(Path(mirror[0]).parent), "twins")
        await received.next("InterfacesAdded", lambda body: body[0] == volume.path)
        assert (await pool_of(client)).health == "ONLINE"
        assert host.read((await client.manager.volume("patient")).device, 10) == b"still here"
    assert host.unit("MainPID") == pid
