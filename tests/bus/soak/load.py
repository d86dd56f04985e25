"""The load of the soak: every way to import, good, damaged and cancelled images, and clients that
come, look and go."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from mixed_load.images import Image
from mixed_load.load import Load
from mixed_load.world import Disk, World

from mvirt_zfs_dbus.client import Client
from mvirt_zfs_dbus.errors import (
    ChecksumMismatch,
    CorruptImage,
    DownloadFailed,
    Error,
    Truncated,
    UnsafeImage,
    UnsupportedImage,
)

OPERATIONS_OF_A_CLIENT = 20


class SoakLoad(Load):
    def __init__(
        self, images: list[Image], damaged: Mapping[str, Path], url: str, chance: random.Random
    ) -> None:
        super().__init__(World(), images, chance)
        self.did: Counter[str] = Counter()
        self._url = url
        self._damaged = self._all_damaged(damaged, images[0])
        self._anew += [self._from_fd, self._from_pipe, self._from_url, self._damage, self._cancel]

    def _all_damaged(
        self, files: Mapping[str, Path], whole: Image
    ) -> list[tuple[type[Error], str, str]]:
        """What an import from a source, with a checksum or without, has to fail with."""
        return [
            (Truncated, str(files["truncated"]), ""),
            (CorruptImage, str(files["corrupt"]), ""),
            (UnsafeImage, str(files["backing"]), ""),
            (UnsupportedImage, str(files["qed"]), ""),
            (ChecksumMismatch, str(whole.file), f"sha256:{'0' * 64}"),
            (DownloadFailed, f"{self._url}/there-is-none", ""),
        ]

    # Clients

    async def client(self, address: str, until: Callable[[], bool]) -> None:
        """One that comes, does some things and goes, again and again."""
        while not until():
            async with Client.connect(address, interactive=False) as client:
                self.did["clients"] += 1
                for _ in range(OPERATIONS_OF_A_CLIENT):
                    if until():
                        return
                    await self.step(client)

    async def visitor(self, address: str, until: Callable[[], bool]) -> None:
        """One that asks for everything and goes before it is told."""
        while not until():
            async with Client.connect(address, interactive=False) as client:
                self.did["visitors"] += 1
                asked = [asyncio.create_task(client.inventory()) for _ in range(10)]
                await asked[0]
                for task in asked:
                    task.cancel()
                await asyncio.gather(*asked, return_exceptions=True)

    # Imports

    async def import_image(self, client: Client) -> None:
        await super().import_image(client)
        self.did["imports from a path"] += 1

    async def _from_fd(self, client: Client) -> None:
        image = self._chance.choice(self._images)
        with image.file.open("rb") as file:
            await self._whole(client, image, file.fileno())
        self.did["from a descriptor"] += 1

    async def _from_pipe(self, client: Client) -> None:
        image = self._chance.choice(self._images)
        reader, writer = os.pipe()
        feeding = asyncio.create_task(asyncio.to_thread(_feed, writer, image.file.read_bytes()))
        try:
            await self._whole(client, image, reader)
        finally:
            os.close(reader)
            await feeding
        self.did["from a pipe"] += 1

    async def _from_url(self, client: Client) -> None:
        image = self._chance.choice(self._images)
        await self._whole(client, image, f"{self._url}/{image.file.name}")
        self.did["from a URL"] += 1

    async def _whole(self, client: Client, image: Image, source: str | int) -> None:
        name = self._new_name("volume")
        with self.world.operation(name, Disk("volume", image.state)):
            await (await client.manager.import_image(name, source)).wait()

    async def _damage(self, client: Client) -> None:
        expected, source, checksum = self._chance.choice(self._damaged)
        name = self._new_name("damaged")
        with pytest.raises(expected), self.world.operation(name, None):
            job = await client.manager.import_image(name, source, checksum=checksum or None)
            await job.wait()
        self.did["damaged"] += 1

    async def _cancel(self, client: Client) -> None:
        """An import that would never end."""
        name, (reader, writer) = self._new_name("cancelled"), os.pipe()
        try:
            os.write(writer, b"\xeb" * 4096)
            with self.world.operation(name, None):
                job = await client.manager.import_image(name, reader)
                await job.cancel()
        finally:
            os.close(reader)
            os.close(writer)
        self.did["cancelled"] += 1


def _feed(pipe: int, data: bytes) -> None:
    view = memoryview(data)
    with suppress(BrokenPipeError):
        while view:
            view = view[os.write(pipe, view) :]
    os.close(pipe)
