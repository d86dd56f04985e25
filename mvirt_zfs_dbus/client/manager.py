"""The service's root object: making, importing and finding."""

from __future__ import annotations

from ..names import Interface
from .job import Job
from .objects import Template, Volume
from .remote import Property, RemoteObject, options


class Manager(RemoteObject):
    """Where a name is wanted, a name or an id does; an id wins."""

    interface = Interface.MANAGER

    version = Property[str]("Version")
    pool_paths = Property[list[str]]("Pools")
    job_paths = Property[list[str]]("Jobs")

    async def create_volume(
        self,
        name: str,
        size: int,
        *,
        id: str | None = None,
        block_size: int | None = None,
        thin: bool | None = None,
        compression: str | None = None,
        labels: dict[str, str] | None = None,
    ) -> Volume:
        chosen = options(
            id=id, block_size=block_size, thin=thin, compression=compression, labels=labels
        )
        path = await self.call("CreateVolume", "sta{sv}", name, size, chosen)
        return await Volume(self.remote, path).refresh()

    async def import_image(
        self,
        name: str,
        source: str | int,
        *,
        template: bool = False,
        id: str | None = None,
        size: int | None = None,
        format: str | None = None,
        checksum: str | None = None,
        block_size: int | None = None,
        thin: bool | None = None,
        labels: dict[str, str] | None = None,
    ) -> Job:
        """Start to import an image into a volume, or into a template.

        ``source`` is an absolute path that the service reads, an http(s) URL, or a file
        descriptor of the caller's, which stays the caller's to close.
        """
        chosen = options(
            id=id,
            size=size,
            format=format,
            checksum=checksum,
            block_size=block_size,
            thin=thin,
            labels=labels,
        )
        method = "ImportTemplate" if template else "ImportVolume"
        if isinstance(source, int):
            path = await self.call(f"{method}FromFd", "sha{sv}", name, 0, chosen, fds=[source])
        else:
            path = await self.call(method, "ssa{sv}", name, source, chosen)
        return await Job(self.remote, path).refresh()

    async def volume(self, name_or_id: str) -> Volume:
        path = await self.call("GetVolume", "s", name_or_id)
        return await Volume(self.remote, path).refresh()

    async def template(self, name_or_id: str) -> Template:
        path = await self.call("GetTemplate", "s", name_or_id)
        return await Template(self.remote, path).refresh()

    async def job(self, id: str) -> Job:
        return await Job(self.remote, await self.call("GetJob", "s", id)).refresh()

    async def rescan(self) -> int:
        """Let the service read its pool again; how many objects had drifted."""
        drifted: int = await self.call("Refresh", "a{sv}", options())
        return drifted
