"""A mixed load on the service: clients that make, change and destroy disks at random."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

from mvirt_zfs_dbus.client import Client, ServiceUnreachable, Snapshot
from mvirt_zfs_dbus.errors import DeviceBusy, HasClones, HasSnapshots, NotFound, UnknownObject

from .images import MIB, Image
from .world import EMPTY, Disk, State, World, content

CROWD = 8
"""Disks of a kind from which on some are deleted."""
EXPECTED = (HasClones, HasSnapshots, NotFound, UnknownObject, DeviceBusy)
"""What the service may refuse when others work on a disk's relations, or udev looks at it."""


class Load:
    def __init__(self, world: World, images: list[Image], chance: random.Random) -> None:
        self.refused: Counter[str] = Counter()
        self.world = world
        self._images = images
        self._chance = chance
        self._count = 0
        self._anew: list[Callable[[Client], Awaitable[None]]] = [self._create, self.import_image]
        """What makes disks of nothing."""

    async def run(self, client: Client, workers: int = 3) -> None:
        """Returns when the service has died."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(workers):
                tasks.create_task(self._work(client))

    async def _work(self, client: Client) -> None:
        while True:
            try:
                await self.step(client)
            except ServiceUnreachable:
                return

    async def step(self, client: Client) -> None:
        """One operation; which one is left to chance."""
        try:
            await self._something(client)
        except EXPECTED as error:
            self.refused[type(error).__name__] += 1

    async def _something(self, client: Client) -> None:
        volumes, templates = self.world.idle("volume"), self.world.idle("template")
        if max(len(volumes), len(templates)) >= CROWD:
            # One of all: what was cloned from can go only after its clones.
            await self._delete(client, self._chance.choice(volumes + templates))
            return
        of_volume = [self._write, self._snapshot, self._rollback, self._grow, self._label]
        of_volume += [self._make_template, self._copy_template, self._delete]
        of_template = [self._clone, self._clone, self._label, self._delete]
        if not volumes or self._chance.random() < 0.3:
            await self._chance.choice(self._anew)(client)
        elif templates and self._chance.random() < 0.3:
            await self._chance.choice(of_template)(client, self._chance.choice(templates))
        else:
            await self._chance.choice(of_volume)(client, self._chance.choice(volumes))

    def _new_name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"

    # New ones

    async def _create(self, client: Client) -> None:
        name, size = self._new_name("volume"), self._chance.randrange(1, 4) * MIB
        disk = Disk("volume", State(size, EMPTY), {"made": "empty"})
        with self.world.operation(name, disk):
            await client.manager.create_volume(name, size, labels={"made": "empty"})
        await self._write(client, name)

    async def import_image(self, client: Client) -> None:
        kind, image = self._chance.choice(["volume", "template"]), self._chance.choice(self._images)
        name = self._new_name(kind)
        with self.world.operation(name, Disk(kind, image.state)):
            template = kind == "template"
            job = await client.manager.import_image(name, str(image.file), template=template)
            await job.wait()

    async def _clone(self, client: Client, template: str) -> None:
        name, state = self._new_name("clone"), self.world.disks[template].now
        with self.world.operation(name, Disk("volume", state)):
            await (await client.manager.template(template)).clone(name)

    async def _make_template(self, client: Client, volume: str) -> None:
        name = self._new_name("template")
        for snapshot, state in list(self.world.disks[volume].snapshots.items())[:1]:
            with self.world.operation(name, Disk("template", state)):
                await (await self._snapshot_of(client, volume, snapshot)).create_template(name)

    async def _copy_template(self, client: Client, volume: str) -> None:
        name = self._new_name("copy")
        for snapshot, state in list(self.world.disks[volume].snapshots.items())[:1]:
            with self.world.operation(name, Disk("template", state)):
                found = await self._snapshot_of(client, volume, snapshot)
                await (await found.copy_to_template(name)).wait()

    # Changes

    async def _write(self, client: Client, name: str) -> None:
        """As the volume's user does: through the device, without the service."""
        if name not in self.world.idle("volume"):
            return
        with self.world.operation(name, self.world.disks[name]):
            device = (await client.manager.volume(name)).device
            await asyncio.to_thread(_write, device, self._chance.randbytes(64 * 1024))
            self.world.written(name, device)

    async def _snapshot(self, client: Client, name: str) -> None:
        disk, snapshot = self.world.disks[name], self._new_name("snapshot")
        after = replace(disk, snapshots={**disk.snapshots, snapshot: disk.now})
        with self.world.operation(name, after):
            await (await client.manager.volume(name)).create_snapshot(snapshot)

    async def _rollback(self, client: Client, name: str) -> None:
        disk = self.world.disks[name]
        for snapshot, state in list(disk.snapshots.items())[-1:]:
            with self.world.operation(name, replace(disk, now=state)):
                await (await self._snapshot_of(client, name, snapshot)).rollback()

    async def _grow(self, client: Client, name: str) -> None:
        disk = self.world.disks[name]
        size = disk.now.size + MIB
        with self.world.operation(name, replace(disk, now=replace(disk.now, size=size))):
            await (await client.manager.volume(name)).resize(size)

    async def _label(self, client: Client, name: str) -> None:
        disk, labels = self.world.disks[name], {"count": str(self._count)}
        manager = client.manager
        with self.world.operation(name, replace(disk, labels=labels)):
            find = manager.template if disk.kind == "template" else manager.volume
            await (await find(name)).set_labels(labels)

    async def _delete(self, client: Client, name: str) -> None:
        with self.world.operation(name, None):
            if self.world.disks[name].kind == "template":
                await (await client.manager.template(name)).delete()
            else:
                await (await client.manager.volume(name)).delete(snapshots=True)

    async def _snapshot_of(self, client: Client, volume: str, name: str) -> Snapshot:
        snapshots = await (await client.manager.volume(volume)).snapshots()
        return next(snapshot for snapshot in snapshots if snapshot.name == name)


def _write(device: str, data: bytes) -> None:
    fd = os.open(device, os.O_WRONLY)
    try:
        os.pwrite(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)


async def check_templates(client: Client, world: World) -> None:
    """What a clone of each template reads is held against what was put in; on ZFS a template has no
    device of its own."""
    for name in world.idle("template"):
        disk = world.disks[name]
        clone = await (await client.manager.template(name)).clone(f"check-{name}")
        assert State(clone.size_bytes, content(clone.device)) == disk.now, name
        await clone.delete()
