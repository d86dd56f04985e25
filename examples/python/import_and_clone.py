"""Import an image as a template, show the progress, and clone a volume of it.

    python3 import_and_clone.py IMAGE TEMPLATE VOLUME

IMAGE is a file or an http(s) URL. The bus is the system bus, or $MVIRT_ZFS_BUS.
"""

from __future__ import annotations

import asyncio
import os
import sys

from mvirt_zfs_dbus.client import Client, Job, Template
from mvirt_zfs_dbus.errors import Error, HasClones


async def main(image: str, template_name: str, volume_name: str) -> None:
    async with Client.connect(os.environ.get("MVIRT_ZFS_BUS", "system")) as client:
        job = await start_import(client, image, template_name)
        async for progress in job:
            done = "" if progress.fraction is None else f" {progress.fraction:.0%}"
            print(f"{progress.state} {progress.phase}{done}")
        job.raise_failure()  # what the import failed with, as an exception

        template = await client.manager.template(template_name)
        volume = await template.clone(volume_name, labels={"made-by": "example"})
        print(f"{volume.name} is {volume.size_bytes} bytes at {volume.device}")
        await clones_keep_their_template(template)


async def start_import(client: Client, image: str, name: str) -> Job:
    if image.startswith(("http://", "https://")):
        return await client.manager.import_image(name, image, template=True)
    # A file is opened here, so that the service reads nothing that this user may not.
    opened = os.open(image, os.O_RDONLY)
    try:
        return await client.manager.import_image(name, opened, template=True)
    finally:
        os.close(opened)


async def clones_keep_their_template(template: Template) -> None:
    """Errors are classes: a program branches on them, never on messages."""
    try:
        await template.delete()
    except HasClones as error:
        print(f"kept: {error.message}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except Error as error:
        sys.exit(f"{type(error).__name__}: {error.message}")
