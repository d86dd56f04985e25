"""The service is killed again and again, at random moments of a mixed load on real ZFS."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import host
import pytest
from forked_daemon import ForkedDaemon, forked_daemon
from mixed_load.images import Image, make_images
from mixed_load.load import Load, check_templates
from mixed_load.world import World

from mvirt_zfs_dbus.client import Client, Inventory

KILLS = int(os.environ.get("MVIRT_TEST_KILLS", "6"))
SEED = int(os.environ.get("MVIRT_TEST_SEED", "0")) or time.time_ns() % 1_000_000
LONGEST = 2.0
"""How long the load lasts before a kill, at most, in times that one import takes here."""
ALL_BYTES_EVERY = 20


@pytest.fixture
def images(tmp_path: Path) -> list[Image]:
    return make_images(tmp_path, random.Random(SEED))


@pytest.fixture
def dataset() -> Iterator[str]:
    """One of the pool's own, while the installed service rests."""
    host.run("systemctl", "stop", host.UNIT)
    host.run("zfs", "create", "-o", "mountpoint=none", f"{host.POOL}/kills")
    yield f"{host.POOL}/kills"
    host.empty()


def orphans(dataset: str, inventory: Inventory) -> set[str]:
    """Datasets and snapshots that the service does not show, and none of which may be there."""
    names = {volume.path: volume.id for volume in inventory.volumes}
    shown = set(names.values())
    shown |= {f"{names[found.volume_path]}@{found.id}" for found in inventory.snapshots}
    for template in inventory.templates:
        shown |= {template.id, template.snapshot.removeprefix(f"{dataset}/")}
    return host.datasets(dataset) - shown


async def an_import(daemon: ForkedDaemon, load: Load) -> float:
    """The seconds an import takes when nothing else is done, from a client's coming to its leaving.

    That is the clock of this machine: under emulation they are many.
    """
    began = time.monotonic()
    async with Client.connect(daemon.address) as client:
        await load.import_image(client)
    return time.monotonic() - began


async def alive(daemon: ForkedDaemon, load: Load, seconds: float) -> None:
    """One life: the load for some seconds, and then the kill."""
    async with Client.connect(daemon.address) as client, asyncio.TaskGroup() as tasks:
        working = tasks.create_task(load.run(client))
        await asyncio.sleep(seconds)  # the random moment
        assert not working.done()
        await daemon.kill()


async def test_no_kill_loses_a_disk_or_leaves_half_of_one(
    dataset: str,
    images: list[Image],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chance = random.Random(SEED)
    world = World()
    load = Load(world, images, chance)
    arguments = ("--pool", dataset, "--state-directory", str(tmp_path / "state"))
    began = time.monotonic()
    async with forked_daemon(tmp_path, *arguments) as daemon:
        await daemon.start()
        longest = LONGEST * await an_import(daemon, load)
        for number in range(1, KILLS + 1):
            await alive(daemon, load, chance.uniform(0, longest))
            await daemon.start()
            async with Client.connect(daemon.address) as client:
                inventory = await client.inventory()
                unfinished = [job for job in inventory.jobs if not job.state.finished]
                assert not unfinished, f"seed {SEED}, kill {number}: {unfinished}"
                world.check(inventory, all_bytes=number % ALL_BYTES_EVERY == 0 or number == KILLS)
                left = orphans(dataset, inventory)
                assert not left, f"seed {SEED}, kill {number}: nobody's {left}"
        async with Client.connect(daemon.address) as client:
            await check_templates(client, world)
    with capsys.disabled():
        refused = ", ".join(f"{name} {count}" for name, count in load.refused.items())
        seconds = f"{time.monotonic() - began:.0f} s, up to {longest:.1f} s of load before each"
        print(
            f"\n{KILLS} SIGKILLs in {seconds} (seed {SEED}): {world.done} operations done, "
            f"{world.cut_off} cut off, {load.refused.total()} refused ({refused}); "
            f"{daemon.woken} woken {host.WOKEN_AFTER:.0f} s after the kill; "
            f"{len(world.disks)} disks at the end; "
            "no orphan, no lost disk, no disk with wrong bytes"
        )
