"""The connection to the service, and everything it has at one moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from ..names import ROOT
from .inventory import Inventory
from .job import Job
from .manager import Manager
from .objects import Pool, Snapshot, Template, Volume
from .remote import Remote, RemoteObject
from .watch import Watch

_KINDS: tuple[type[RemoteObject], ...] = (Pool, Volume, Snapshot, Template, Job)


class Client:
    """Reading takes one call whatever there is; changes are methods of the objects."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.manager = Manager(remote, ROOT)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, bus: str = "system", *, host: str | None = None, interactive: bool = True
    ) -> AsyncIterator[Client]:
        """The client on ``system``, ``session`` or a bus address, until the block is left.

        ``host``: ``[USER@]MACHINE[:PORT]``, whose system bus is reached over SSH instead.
        ``interactive``: polkit may ask the person at the screen for a password.
        ServiceUnreachable when there is no such bus.
        """
        async with Remote.connect(bus, host=host, interactive=interactive) as remote:
            yield cls(remote)

    async def inventory(self) -> Inventory:
        """Everything the service has, with all properties, as of one moment."""
        managed = await self.remote.call(
            ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"
        )
        return Inventory(self._objects(managed))

    def _objects(
        self, managed: Mapping[str, Mapping[str, dict[str, object]]]
    ) -> list[RemoteObject]:
        return [
            found
            for path, interfaces in managed.items()
            if (found := self._object(path, interfaces))
        ]

    def _object(
        self, path: str, interfaces: Mapping[str, dict[str, object]]
    ) -> RemoteObject | None:
        for kind in _KINDS:
            if kind.interface in interfaces:
                return kind(self.remote, path, interfaces[kind.interface])
        return None

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[Watch]:
        """What comes, changes and goes, with no gap to the inventory it begins with."""
        await self.manager.refresh()  # lets the bus start the service
        async with self.remote.signals(*Watch.MEMBERS, path_namespace=ROOT) as signals:
            yield Watch(await self.inventory(), signals, self._object)

    async def volumes(self) -> list[Volume]:
        return (await self.inventory()).volumes

    async def snapshots(self) -> list[Snapshot]:
        return (await self.inventory()).snapshots

    async def templates(self) -> list[Template]:
        return (await self.inventory()).templates

    async def jobs(self) -> list[Job]:
        return (await self.inventory()).jobs
