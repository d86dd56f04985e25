"""The service is killed again and again, at random moments of a mixed load.

``tests/machine/guest/test_kills.py`` does the same on real ZFS.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import pytest
from mixed_load.images import make_images
from mixed_load.load import Load, check_templates
from mixed_load.world import World

from mvirt_zfs_dbus.client import Client as TypedClient
from mvirt_zfs_dbus.client import Inventory

from .process import Client, ServiceProcess

KILLS = int(os.environ.get("MVIRT_TEST_KILLS", "20"))
SEED = int(os.environ.get("MVIRT_TEST_SEED", "0")) or time.time_ns() % 1_000_000
LONGEST = 6.0
"""How long the load lasts before a kill, at most, in times that one import takes here."""


def keys(directory: Path) -> set[str]:
    """What the directory has disks or records of."""
    return {file.stem for file in directory.iterdir() if not file.name.startswith(".")}


def shown(inventory: Inventory) -> set[str]:
    ids = {volume.path: volume.id for volume in inventory.volumes}
    snapshots = {f"{ids[found.volume_path]}@{found.id}" for found in inventory.snapshots}
    return {*ids.values(), *snapshots, *(template.id for template in inventory.templates)}


async def alive(service: ServiceProcess, load: Load, seconds: float) -> None:
    """One life: the load for some seconds, and then the kill."""
    async with (
        TypedClient.connect(service.address, interactive=False) as client,
        asyncio.TaskGroup() as tasks,
    ):
        working = tasks.create_task(load.run(client))
        await asyncio.sleep(seconds)  # the random moment
        assert not working.done()
        assert await service.stop(signal.SIGKILL) == -signal.SIGKILL


async def test_no_kill_loses_a_disk_or_leaves_half_of_one(
    service: ServiceProcess,
    connected: Client,
    directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chance, world = random.Random(SEED), World()
    load = Load(world, make_images(tmp_path, chance), chance)
    began = time.monotonic()
    async with TypedClient.connect(service.address) as client:
        await load.import_image(client)
    longest = LONGEST * (time.monotonic() - began)
    for number in range(1, KILLS + 1):
        await alive(service, load, chance.uniform(0, longest))
        await service.start(connected.connection)
        async with TypedClient.connect(service.address) as client:
            inventory = await client.inventory()
            unfinished = [job for job in inventory.jobs if not job.state.finished]
            assert not unfinished, f"seed {SEED}, kill {number}: {unfinished}"
            world.check(inventory, all_bytes=number == KILLS)
            assert keys(directory) == shown(inventory), f"seed {SEED}, kill {number}"
            assert not list((directory / ".tmp").iterdir())
    async with TypedClient.connect(service.address) as client:
        await check_templates(client, world)
    with capsys.disabled():
        refused = ", ".join(f"{name} {count}" for name, count in load.refused.items())
        print(
            f"\n{KILLS} SIGKILLs in {time.monotonic() - began:.0f} s (seed {SEED}),"
            f" up to {longest:.1f} s of load before each: {world.done} operations done,"
            f" {world.cut_off} cut off, {load.refused.total()} refused ({refused});"
            f" {len(world.disks)} disks at the end"
        )
