"""org.mvirt.Zfs1.Template: a disk that volumes are cloned from."""

from __future__ import annotations

from .. import names
from ..bus.interface import Call, Interface, method, prop
from ..core.service import Service
from ..model import Template
from ..names import Action
from . import details
from .paths import path_of

CLONE_OPTIONS = {"id": "s", "size": "t", "labels": "a{ss}"}


class TemplateInterface(Interface):
    name = names.Interface.TEMPLATE

    def __init__(self, service: Service) -> None:
        self._service = service
        self._catalog = service.catalog

    def details(self, call: Call, key: str) -> dict[str, str]:
        """A rule and a prompt are about what would come to be: of a clone, its own name."""
        template = self._template(key)
        told = {"pool": self._catalog.pool.name, "size": str(template.size)}
        if call.member == "Clone":
            return told | {"source": template.name} | details.of_new(call)
        told |= {"id": template.id, "name": template.name, "source": template.source}
        return told | details.of_rename(call)

    async def refresh(self, key: str) -> None:
        await self._service.usage.dataset(key)

    @method("Clone", "name:s", "volume:o", options=CLONE_OPTIONS, action=Action.CREATE)
    async def clone(self, call: Call, key: str, name: str) -> str:
        volume = await self._service.templates.clone(
            key,
            name,
            volume_id=call.options.get("id"),
            size=call.options.get("size"),
            labels=call.options.get("labels", {}),
        )
        return names.volume_path(volume.id)

    @method("Rename", "name:s", options={}, action=Action.TEMPLATE)
    async def rename(self, call: Call, key: str, name: str) -> None:
        await self._service.templates.rename(key, name)

    @method("SetLabels", "labels:a{ss}", options={}, action=Action.MODIFY)
    async def set_labels(self, call: Call, key: str, labels: dict[str, str]) -> None:
        await self._service.templates.set_labels(key, labels)

    @method("Delete", options={"defer": "b"}, action=Action.DELETE)
    async def delete(self, call: Call, key: str) -> None:
        await self._service.templates.delete(key, defer=call.options.get("defer", False))

    @prop("Id", "s", emits="const")
    def id(self, key: str) -> str:
        return key

    @prop("Name", "s", emits="true")
    def template_name(self, key: str) -> str:
        return self._template(key).name

    @prop("SizeBytes", "t", emits="const")
    def size_bytes(self, key: str) -> int:
        return self._template(key).size

    @prop("UsedBytes", "t", emits="false")
    def used_bytes(self, key: str) -> int:
        return self._template(key).usage.used

    @prop("ReferencedBytes", "t", emits="false")
    def referenced_bytes(self, key: str) -> int:
        return self._template(key).usage.referenced

    @prop("Snapshot", "s", emits="const")
    def snapshot(self, key: str) -> str:
        return self._template(key).snapshot

    @prop("CreatedAt", "t", emits="const")
    def created_at(self, key: str) -> int:
        return self._template(key).created_at

    @prop("Clones", "ao", emits="true")
    def clones(self, key: str) -> list[str]:
        return [names.volume_path(found) for found in self._catalog.clones_of(key)]

    @prop("CloneCount", "u", emits="true")
    def clone_count(self, key: str) -> int:
        return len(self._catalog.clones_of(key))

    @prop("SourceVolume", "o", emits="true")
    def source_volume(self, key: str) -> str:
        return path_of(self._catalog, self._template(key).source_volume_id)

    @prop("Source", "s", emits="const")
    def source(self, key: str) -> str:
        return self._template(key).source

    @prop("Checksum", "s", emits="const")
    def checksum(self, key: str) -> str:
        return self._template(key).checksum

    @prop("Labels", "a{ss}", emits="true")
    def labels(self, key: str) -> dict[str, str]:
        return dict(self._template(key).labels)

    def _template(self, key: str) -> Template:
        return self._catalog.template(key)
