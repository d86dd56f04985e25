"""Runs in the guest: has a job under way, prints its id, and keeps it from ending."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

from mvirt_zfs_dbus.client import Client, Job

MIB = 1 << 20


async def importing(client: Client, template: bool) -> Job:
    """From a pipe into which a part of the disk comes, and then nothing."""
    reading, writing = os.pipe()
    threading.Thread(target=feed, args=(writing, 8 * MIB), daemon=True).start()
    manager = client.manager
    size = 64 * MIB
    job = await manager.import_image("cut", reading, template=template, size=size, format="raw")
    async for progress in job:
        if progress.bytes_done:
            break
    return job


def feed(pipe: int, amount: int) -> None:
    for _ in range(0, amount, MIB):
        data = os.urandom(MIB)
        while data:
            data = data[os.write(pipe, data) :]


async def copying(client: Client) -> Job:
    """Of a volume with much in it."""
    volume = await client.manager.create_volume("big", 256 * MIB)
    with Path(volume.device).open("r+b", buffering=0) as device:
        for _ in range(128):
            device.write(os.urandom(MIB))
        os.fsync(device.fileno())
    job = await (await volume.create_snapshot("source")).copy_to_template("cut")
    async for progress in job:
        if progress.bytes_done:
            break
    return job


async def main(work: str) -> None:
    async with Client.connect("system") as client:
        if work == "copy-template":
            job = await copying(client)
        else:
            job = await importing(client, template=work == "import-template")
        print(job.id, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
