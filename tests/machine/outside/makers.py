"""Runs in the guest: makes volumes and clones without an end, and prints the id of each."""

from __future__ import annotations

import asyncio
import uuid

from mvirt_zfs_dbus.client import Client

MIB = 1 << 20
AT_ONCE = 8


async def make(client: Client, template: str) -> None:
    """A volume and a clone in turns."""
    while True:
        made = await client.manager.create_volume(str(uuid.uuid4()), 16 * MIB)
        print(made.id, flush=True)
        found = await client.manager.template(template)
        print((await found.clone(str(uuid.uuid4()))).id, flush=True)


async def main() -> None:
    async with Client.connect("system") as client:
        name = str(uuid.uuid4())
        volume = await client.manager.create_volume(name, 16 * MIB)
        await (await volume.create_snapshot("source")).create_template(name)
        async with asyncio.TaskGroup() as makers:
            for _ in range(AT_ONCE):
                makers.create_task(make(client, name))


if __name__ == "__main__":
    asyncio.run(main())
