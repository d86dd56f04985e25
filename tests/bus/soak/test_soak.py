"""After a long mixed load the service holds no more than after a short one.

``SOAK_SECONDS`` says how long; ``make soak`` takes an hour. Every few seconds all rest, what the
service holds is sampled, and every disk is held against what its users know of it. ``flat.py`` has
the rule for what counts as flat.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from mixed_load.images import Image, make_images
from mixed_load.load import check_templates
from service.held import MIB, Held, held, no_worker
from service.process import ServiceProcess
from service.web import files_of, serving

from mvirt_zfs_dbus.client import Client

from .flat import grown
from .load import SoakLoad

SECONDS = float(os.environ.get("SOAK_SECONDS", "24"))
SEED = int(os.environ.get("SOAK_SEED", "0")) or time.time_ns() % 1_000_000
SAMPLES = min(max(int(SECONDS / 3), 8), 60)
CLIENTS = 3
ROWS = 12
"""Of the table, at most."""


@asynccontextmanager
async def monitor(address: str) -> AsyncIterator[None]:
    """Follows every change, and in the end shows what there is."""
    async with Client.connect(address) as client, client.watch() as watch:
        changed = asyncio.Event()

        async def follow() -> None:
            async for _ in watch:
                changed.set()

        following = asyncio.create_task(follow())
        try:
            yield
            there = set((await client.inventory()).by_path)
            async with asyncio.timeout(60):
                while set(watch.inventory.by_path) != there:
                    changed.clear()
                    await changed.wait()
        finally:
            following.cancel()
            await asyncio.wait([following])


async def one_round(service: ServiceProcess, load: SoakLoad, seconds: float) -> Held:
    """Work for so long, and then, at rest, check the disks and tell what is held."""
    end = time.monotonic() + seconds

    def over() -> bool:
        return time.monotonic() >= end

    async with monitor(service.address), asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(load.client(service.address, over))
        tasks.create_task(load.visitor(service.address, over))
    await no_worker(service)
    async with Client.connect(service.address) as client:
        load.world.check(await client.inventory())
    return await held(service)


def table(seconds: float, samples: list[tuple[float, int, Held]]) -> str:
    lines = ["      s  operations  tasks  threads  files     MiB   fork server: files  MiB"]
    step = max(len(samples) // ROWS, 1)
    for at, done, found in [*samples[:-1:step], samples[-1]]:
        lines.append(
            f"{at:7.0f} {done:11} {found.tasks:6} {found.threads:8} {found.files:6}"
            f" {found.memory / MIB:7.1f} {found.fork_server_files:20}"
            f" {found.fork_server_memory / MIB:4.1f}"
        )
    return "\n".join(lines)


async def delete_all(client: Client) -> None:
    inventory = await client.inventory()
    for volume in inventory.volumes:
        await volume.delete(snapshots=True, defer=True)
    for template in inventory.templates:
        await template.delete(defer=True)


async def test_what_the_service_holds_does_not_grow(
    service: ServiceProcess,
    images: dict[str, Path],
    directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chance = random.Random(SEED)
    folder = tmp_path / "images"
    folder.mkdir()
    made: list[Image] = make_images(folder, chance)
    samples: list[tuple[float, int, Held]] = []
    began = time.monotonic()
    async with serving(files_of(folder)) as url:
        load = SoakLoad(made, images, url, chance)
        for _ in range(SAMPLES):
            found = await one_round(service, load, SECONDS / SAMPLES)
            samples.append((time.monotonic() - began, load.world.done, found))
    with capsys.disabled():
        did = ", ".join(f"{count} {what}" for what, count in load.did.items())
        refused = ", ".join(f"{name} {count}" for name, count in load.refused.items())
        print(f"\nsoak of {SECONDS:.0f} s, seed {SEED}\n{table(SECONDS, samples)}")
        print(f"{did}; refused: {load.refused.total()} ({refused})")
    assert not grown([found for _, _, found in samples])
    assert service.process and service.process.returncode is None
    log = service.log.read_text(errors="replace")
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]
    async with Client.connect(service.address) as client:
        load.world.check(await client.inventory(), all_bytes=True)
        await check_templates(client, load.world)
        await delete_all(client)
    assert [file.name for file in directory.iterdir() if not file.name.startswith(".")] == []
    assert not list((directory / ".tmp").iterdir())


QUIET = Held(10, 4, 20, 40 * MIB, 8, 30 * MIB)


def test_noise_is_flat() -> None:
    chance = random.Random(3)
    samples = [
        replace(QUIET, tasks=10 + chance.randrange(3), memory=40 * MIB + chance.randrange(8 * MIB))
        for _ in range(16)
    ]
    assert grown(samples) == []


@pytest.mark.parametrize(
    ("name", "step"),
    [("tasks", 1), ("threads", 2), ("files", 1), ("memory", MIB), ("fork_server_memory", MIB)],
)
def test_what_grows_a_little_with_each_round_is_told(name: str, step: int) -> None:
    samples = [replace(QUIET, **{name: getattr(QUIET, name) + n * step}) for n in range(16)]
    (told,) = grown(samples)
    assert told.startswith(name)
