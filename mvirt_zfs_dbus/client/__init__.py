"""A typed asyncio client of the service, for programs that manage virtual machines.

    async with Client.connect("system") as client:
        job = await client.manager.import_image("debian-12", "https://…", template=True)
        async for progress in job:
            print(progress.phase, progress.fraction)
        job.raise_failure()
        template = await client.manager.template("debian-12")
        volume = await template.clone("web-1", size=20 << 30)

What the service refuses arrives as the exceptions of :mod:`mvirt_zfs_dbus.errors`; a service that
is not there, or goes away, as ServiceUnreachable.
"""

from .client import Client
from .inventory import Inventory
from .job import Job, Progress
from .manager import Manager
from .objects import Pool, Snapshot, Template, Volume
from .remote import RemoteObject
from .signals import ServiceUnreachable
from .watch import Event, Happened, Watch

__all__ = [
    "Client",
    "Event",
    "Happened",
    "Inventory",
    "Job",
    "Manager",
    "Pool",
    "Progress",
    "RemoteObject",
    "ServiceUnreachable",
    "Snapshot",
    "Template",
    "Volume",
    "Watch",
]
