"""org.mvirt.Zfs1.Snapshot: a volume as it was."""

from __future__ import annotations

from .. import names
from ..bus.interface import Call, Interface, method, prop
from ..core.service import Service
from ..model import Snapshot
from ..names import Action
from . import details

TEMPLATE_OPTIONS = {"id": "s", "labels": "a{ss}"}


class SnapshotInterface(Interface):
    name = names.Interface.SNAPSHOT

    def __init__(self, service: Service) -> None:
        self._service = service
        self._catalog = service.catalog

    def details(self, call: Call, key: str) -> dict[str, str]:
        """A rule and a prompt are about what would come to be: of a new template, its name."""
        snapshot = self._snapshot(key)
        volume = self._catalog.volume(snapshot.volume_id)
        told = {"pool": self._catalog.pool.name, "size": str(snapshot.size)}
        if call.member in ("CreateTemplate", "CopyToTemplate"):
            return told | {"source": f"{volume.name}@{snapshot.name}"} | details.of_new(call)
        return told | {"id": snapshot.id, "name": snapshot.name, "source": volume.name}

    async def refresh(self, key: str) -> None:
        await self._service.usage.snapshot(key)

    @method("Rollback", options={"destroy-newer": "b"}, action=Action.ROLLBACK)
    async def rollback(self, call: Call, key: str) -> None:
        await self._service.snapshots.rollback(
            key, destroy_newer=call.options.get("destroy-newer", False)
        )

    @method("Delete", options={"defer": "b"}, action=Action.SNAPSHOT)
    async def delete(self, call: Call, key: str) -> None:
        await self._service.snapshots.delete(key, defer=call.options.get("defer", False))

    @method(
        "CreateTemplate", "name:s", "template:o", options=TEMPLATE_OPTIONS, action=Action.TEMPLATE
    )
    async def create_template(self, call: Call, key: str, name: str) -> str:
        template = await self._service.templates.create(
            key,
            name,
            template_id=call.options.get("id"),
            labels=call.options.get("labels", {}),
        )
        return names.template_path(template.id)

    @method("CopyToTemplate", "name:s", "job:o", options=TEMPLATE_OPTIONS, action=Action.TEMPLATE)
    async def copy_to_template(self, call: Call, key: str, name: str) -> str:
        job_id = await self._service.templates.copy(
            key,
            name,
            call.uid,
            template_id=call.options.get("id"),
            labels=call.options.get("labels", {}),
        )
        return names.job_path(job_id)

    @prop("Id", "s", emits="const")
    def id(self, key: str) -> str:
        return key

    @prop("Name", "s", emits="const")
    def snapshot_name(self, key: str) -> str:
        return self._snapshot(key).name

    @prop("Volume", "o", emits="const")
    def volume(self, key: str) -> str:
        return names.volume_path(self._snapshot(key).volume_id)

    @prop("UsedBytes", "t", emits="false")
    def used_bytes(self, key: str) -> int:
        return self._snapshot(key).usage.used

    @prop("ReferencedBytes", "t", emits="false")
    def referenced_bytes(self, key: str) -> int:
        return self._snapshot(key).usage.referenced

    @prop("SizeBytes", "t", emits="const")
    def size_bytes(self, key: str) -> int:
        return self._snapshot(key).size

    @prop("CreatedAt", "t", emits="const")
    def created_at(self, key: str) -> int:
        return self._snapshot(key).created_at

    @prop("Clones", "ao", emits="true")
    def clones(self, key: str) -> list[str]:
        return [names.template_path(found) for found in self._catalog.clones_of(key)]

    def _snapshot(self, key: str) -> Snapshot:
        return self._catalog.snapshot(key)
