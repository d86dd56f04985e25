"""Our side of an import: a job of the real service, and the engine without service and bus."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from mvirt_zfs_dbus.client import Client
from mvirt_zfs_dbus.image import FdSource, Source, UrlSource, Workers

from . import proc
from .samples import Sample
from .service import Service


async def job(running: Service, source: Path | str) -> Sample:
    """From the call of ImportVolume to the job's end; the volume is deleted again."""
    user, system = proc.cpu(running.pid)
    began = time.monotonic()
    path = await (await running.client.manager.import_image("bench", str(source))).wait()
    seconds = time.monotonic() - began
    user_after, system_after = proc.cpu(running.pid)
    await delete(running.client, path)
    return Sample(seconds, user_after - user, system_after - system)


async def delete(client: Client, path: str) -> None:
    volume = (await client.inventory()).by_path[path]
    await volume.call("Delete", "a{sv}", {})


class Engine:
    """The workers, as the service has them. New ones are forked for each import."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self.spools = 0
        """Temporary files that were asked for."""

    async def run(self, source: Path | str, target: Path) -> Sample:
        """Into a fresh sparse file, synced to the disk as the service wants it."""
        await asyncio.to_thread(target.unlink, missing_ok=True)
        with target.open("w+b") as file:
            if isinstance(source, str):
                return await self._measured(UrlSource(source), file.fileno())
            with source.open("rb") as image:
                return await self._measured(FdSource(image.fileno()), file.fileno())

    async def _measured(self, source: Source, target_fd: int) -> Sample:
        user, system = proc.cpu(os.getpid())
        began = time.monotonic()
        await self._import(source, target_fd)
        seconds = time.monotonic() - began
        user_after, system_after = proc.cpu(os.getpid())
        return Sample(seconds, user_after - user, system_after - system)

    async def _import(self, source: Source, target_fd: int) -> None:
        async def resize(size: int) -> None:
            os.truncate(target_fd, size)

        async with self._workers.convert(
            source,
            image_format="auto",
            checksum_algorithm=None,
            open_spool=self._open_spool,
            progress=lambda _progress: None,
        ) as conversion:
            info = await conversion.probe()
            size = info.virtual_size or 0
            os.truncate(target_fd, size)
            await conversion.write(target_fd, target_size=size, target_is_zero=True, resize=resize)

    async def _open_spool(self) -> int:
        self.spools += 1
        return await asyncio.to_thread(os.open, ".", os.O_RDWR | os.O_TMPFILE, 0o600)
