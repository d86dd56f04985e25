"""The connection to the service, and everything it has at one moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

from ..names import NO_OBJECT, ROOT
from .job import Job
from .manager import Manager
from .objects import Pool, Snapshot, Template, Volume
from .remote import Remote, RemoteObject

_KINDS: tuple[type[RemoteObject], ...] = (Pool, Volume, Snapshot, Template, Job)

Kind = TypeVar("Kind", bound=RemoteObject)


class Client:
    """Reading takes one call whatever there is; changes are methods of the objects."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.manager = Manager(remote, ROOT)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, bus: str = "system", *, interactive: bool = True
    ) -> AsyncIterator[Client]:
        """The client on ``system``, ``session`` or a bus address, until the block is left.

        ``interactive``: polkit may ask the person at the screen for a password.
        ServiceUnreachable when there is no such bus.
        """
        async with Remote.connect(bus, interactive=interactive) as remote:
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
            kind(self.remote, path, interfaces[kind.interface])
            for path, interfaces in managed.items()
            for kind in _KINDS
            if kind.interface in interfaces
        ]

    async def volumes(self) -> list[Volume]:
        return (await self.inventory()).volumes

    async def snapshots(self) -> list[Snapshot]:
        return (await self.inventory()).snapshots

    async def templates(self) -> list[Template]:
        return (await self.inventory()).templates

    async def jobs(self) -> list[Job]:
        return (await self.inventory()).jobs


class Inventory:
    """What existed when it was read: by name, snapshots and jobs in the order they came."""

    def __init__(self, objects: Iterable[RemoteObject]) -> None:
        self.by_path = {each.path: each for each in objects}
        self.pools = sorted(self._of(Pool), key=lambda pool: pool.name)
        self.volumes = sorted(self._of(Volume), key=lambda volume: volume.name)
        self.templates = sorted(self._of(Template), key=lambda template: template.name)
        self.snapshots = sorted(
            self._of(Snapshot), key=lambda snapshot: (snapshot.created_at, snapshot.name)
        )
        # A pending job has not started yet, so it comes after all that have.
        self.jobs = sorted(self._of(Job), key=lambda job: (not job.started_at, job.started_at))

    def _of(self, kind: type[Kind]) -> list[Kind]:
        return [each for each in self.by_path.values() if isinstance(each, kind)]

    def name_of(self, path: str) -> str:
        """The name of the object at ``path``; empty for none, the path where it is unknown."""
        if path == NO_OBJECT:
            return ""
        found = self.by_path.get(path)
        return path if found is None else str(found["Name"])
