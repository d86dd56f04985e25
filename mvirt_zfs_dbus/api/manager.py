"""org.mvirt.Zfs1.Manager: what makes objects and finds them."""

from __future__ import annotations

from typing import Any

from .. import __version__, names, rules
from ..bus.interface import Call, Interface, method, prop, query
from ..core.imports import ImportOptions
from ..core.service import Service
from ..model import Kind, Template, Volume
from ..names import Action
from . import details

CREATE_OPTIONS = {
    "id": "s",
    "block-size": "u",
    "thin": "b",
    "compression": "s",
    "labels": "a{ss}",
}
IMPORT_OPTIONS = {
    "id": "s",
    "size": "t",
    "format": "s",
    "checksum": "s",
    "block-size": "u",
    "thin": "b",
    "labels": "a{ss}",
}


def import_action(interface: Interface, call: Call, key: str) -> Action:
    """A path is read with root's rights, a URL with the host's network: two kinds of harm."""
    return Action.IMPORT_URL if rules.is_url(call.args[1]) else Action.IMPORT_PATH


class ManagerInterface(Interface):
    name = names.Interface.MANAGER

    def __init__(self, service: Service) -> None:
        self._service = service

    def details(self, call: Call, key: str) -> dict[str, str]:
        told = {"pool": self._service.catalog.pool.name}
        match call.args[1:]:
            case [str(source)]:
                told |= details.of_source(source)
            case [size] if call.member == "CreateVolume":
                told["size"] = str(size)
        return told | details.of_new(call)

    @method(
        "CreateVolume", "name:s size:t", "volume:o", options=CREATE_OPTIONS, action=Action.CREATE
    )
    async def create_volume(self, call: Call, key: str, name: str, size: int) -> str:
        options = call.options
        volume = await self._service.volumes.create(
            name,
            size,
            volume_id=options.get("id"),
            block_size=options.get("block-size", rules.DEFAULT_BLOCK_SIZE),
            thin=options.get("thin", True),
            compression=options.get("compression"),
            labels=options.get("labels", {}),
        )
        return names.volume_path(volume.id)

    @method(
        "ImportVolume", "name:s source:s", "job:o", options=IMPORT_OPTIONS, action=import_action
    )
    async def import_volume(self, call: Call, key: str, name: str, source: str) -> str:
        return await self._import(Kind.VOLUME, call, name, source)

    @method(
        "ImportTemplate", "name:s source:s", "job:o", options=IMPORT_OPTIONS, action=import_action
    )
    async def import_template(self, call: Call, key: str, name: str, source: str) -> str:
        return await self._import(Kind.TEMPLATE, call, name, source)

    @method(
        "ImportVolumeFromFd", "name:s fd:h", "job:o", options=IMPORT_OPTIONS, action=Action.IMPORT
    )
    async def import_volume_from_fd(self, call: Call, key: str, name: str, fd: int) -> str:
        return await self._import_fd(Kind.VOLUME, call, name, fd)

    @method(
        "ImportTemplateFromFd", "name:s fd:h", "job:o", options=IMPORT_OPTIONS, action=Action.IMPORT
    )
    async def import_template_from_fd(self, call: Call, key: str, name: str, fd: int) -> str:
        return await self._import_fd(Kind.TEMPLATE, call, name, fd)

    @query("GetVolume", "name_or_id:s", "volume:o")
    async def get_volume(self, call: Call, key: str, name_or_id: str) -> str:
        return names.volume_path(self._service.catalog.find_volume(name_or_id).id)

    @query("GetTemplate", "name_or_id:s", "template:o")
    async def get_template(self, call: Call, key: str, name_or_id: str) -> str:
        return names.template_path(self._service.catalog.find_template(name_or_id).id)

    @query("GetJob", "id:s", "job:o")
    async def get_job(self, call: Call, key: str, job_id: str) -> str:
        return names.job_path(self._service.jobs.get(job_id).id)

    @query("ListVolumes", "", "volumes:ao", options={})
    async def list_volumes(self, call: Call, key: str) -> list[str]:
        return [names.volume_path(volume.id) for volume in self._service.catalog.all(Volume)]

    @query("ListTemplates", "", "templates:ao", options={})
    async def list_templates(self, call: Call, key: str) -> list[str]:
        return [names.template_path(found.id) for found in self._service.catalog.all(Template)]

    @query("ListJobs", "", "jobs:ao", options={"finished": "b"})
    async def list_jobs(self, call: Call, key: str) -> list[str]:
        jobs = self._service.jobs.all(finished=call.options.get("finished", True))
        return [names.job_path(job.id) for job in jobs]

    @query("Refresh", "", "changed:u", options={})
    async def refresh_pool(self, call: Call, key: str) -> int:
        return await self._service.refresh()

    @prop("Version", "s", emits="const")
    def version(self, key: str) -> str:
        return __version__

    @prop("Pools", "ao", emits="true")
    def pools(self, key: str) -> list[str]:
        return [names.pool_path(self._service.catalog.pool.name)]

    @prop("Jobs", "ao", emits="true")
    def jobs(self, key: str) -> list[str]:
        return [names.job_path(job.id) for job in self._service.jobs.all(finished=False)]

    async def _import(self, kind: Kind, call: Call, name: str, source: str) -> str:
        job_id = await self._service.imports.from_source(
            kind, name, source, _import_options(call.options), call.uid
        )
        return names.job_path(job_id)

    async def _import_fd(self, kind: Kind, call: Call, name: str, fd: int) -> str:
        job_id = await self._service.imports.from_fd(
            kind, name, call.take_fd(fd), _import_options(call.options), call.uid
        )
        return names.job_path(job_id)


def _import_options(options: dict[str, Any]) -> ImportOptions:
    return ImportOptions(**{name.replace("-", "_"): value for name, value in options.items()})
