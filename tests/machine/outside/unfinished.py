"""Runs in the guest: has an import, a template's import and a copy under way at a time, prints
their ids, and keeps the imports from ending."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

from mvirt_zfs_dbus.client import Client, Job, Snapshot

MIB = 1 << 20


async def importing(client: Client, template: bool) -> Job:
    """From a pipe into which the disk comes slowly, so that it is written when the power goes."""
    reading, writing = os.pipe()
    manager = client.manager
    size = 1024 * MIB
    threading.Thread(target=feed, args=(writing, size - MIB), daemon=True).start()
    name = "cut-template" if template else "cut"
    job = await manager.import_image(name, reading, template=template, size=size, format="raw")
    async for progress in job:
        if progress.bytes_done:
            break
    return job


def feed(pipe: int, amount: int) -> None:
    for _ in range(0, amount, MIB):
        data = os.urandom(MIB)
        while data:
            data = data[os.write(pipe, data) :]
        time.sleep(0.2)


async def filled(client: Client) -> Snapshot:
    """Of a volume with much in it."""
    volume = await client.manager.create_volume("big", 256 * MIB)
    with Path(volume.device).open("r+b", buffering=0) as device:
        for _ in range(128):
            device.write(os.urandom(MIB))
        os.fsync(device.fileno())
    return await volume.create_snapshot("source")


async def copying(snapshot: Snapshot) -> Job:
    job = await snapshot.copy_to_template("cut-copy")
    async for progress in job:
        if progress.bytes_done:
            break
    return job


async def main() -> None:
    async with Client.connect("system") as client:
        snapshot = await filled(client)
        jobs = [await importing(client, template) for template in (False, True)]
        jobs.append(await copying(snapshot))  # last, as it would end
        print(*(job.id for job in jobs), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
