"""org.mvirt.Zfs1.Volume: a disk for a virtual machine."""

from __future__ import annotations

from .. import names
from ..bus.interface import Call, Interface, method, prop, query
from ..bus.values import variant
from ..bus.wire import Variant
from ..core.service import Service
from ..model import Volume
from ..names import Action
from . import details
from .paths import path_of


class VolumeInterface(Interface):
    name = names.Interface.VOLUME

    def __init__(self, service: Service) -> None:
        self._service = service
        self._catalog = service.catalog

    def details(self, call: Call, key: str) -> dict[str, str]:
        """A rule and a prompt are about what would come to be: of a new snapshot, its name."""
        volume = self._volume(key)
        size = call.args[0] if call.member == "Resize" else volume.size
        told = {"pool": self._catalog.pool.name, "size": str(size)}
        if call.member == "CreateSnapshot":
            return told | {"source": volume.name} | details.of_new(call)
        told |= {"id": volume.id, "name": volume.name, "source": volume.source}
        return told | details.of_rename(call)

    async def refresh(self, key: str) -> None:
        await self._service.usage.dataset(key)

    @method("Resize", "size:t", options={}, action=Action.MODIFY)
    async def resize(self, call: Call, key: str, size: int) -> None:
        await self._service.volumes.resize(key, size)

    @method("Rename", "name:s", options={}, action=Action.MODIFY)
    async def rename(self, call: Call, key: str, name: str) -> None:
        await self._service.volumes.rename(key, name)

    @method("SetLabels", "labels:a{ss}", options={}, action=Action.MODIFY)
    async def set_labels(self, call: Call, key: str, labels: dict[str, str]) -> None:
        await self._service.volumes.set_labels(key, labels)

    @method("Delete", options={"snapshots": "b", "defer": "b"}, action=Action.DELETE)
    async def delete(self, call: Call, key: str) -> None:
        await self._service.volumes.delete(
            key,
            snapshots=call.options.get("snapshots", False),
            defer=call.options.get("defer", False),
        )

    @method("CreateSnapshot", "name:s", "snapshot:o", options={"id": "s"}, action=Action.SNAPSHOT)
    async def create_snapshot(self, call: Call, key: str, name: str) -> str:
        snapshot = await self._service.snapshots.create(
            key, name, snapshot_id=call.options.get("id")
        )
        return names.snapshot_path(snapshot.id)

    @query("GetUsers", "", "users:aa{sv}", options={})
    async def get_users(self, call: Call, key: str) -> list[dict[str, Variant]]:
        users = await self._service.volumes.users(key)
        return [
            {"pid": variant("u", user.pid), "command": variant("s", user.command)} for user in users
        ]

    @prop("Id", "s", emits="const")
    def id(self, key: str) -> str:
        return key

    @prop("Name", "s", emits="true")
    def volume_name(self, key: str) -> str:
        return self._volume(key).name

    @prop("Pool", "o", emits="const")
    def pool(self, key: str) -> str:
        return names.pool_path(self._catalog.pool.name)

    @prop("Device", "s", emits="const")
    def device(self, key: str) -> str:
        return self._volume(key).device

    @prop("SizeBytes", "t", emits="true")
    def size_bytes(self, key: str) -> int:
        return self._volume(key).size

    @prop("BlockSize", "u", emits="const")
    def block_size(self, key: str) -> int:
        return self._volume(key).block_size

    @prop("UsedBytes", "t", emits="false")
    def used_bytes(self, key: str) -> int:
        return self._volume(key).usage.used

    @prop("ReferencedBytes", "t", emits="false")
    def referenced_bytes(self, key: str) -> int:
        return self._volume(key).usage.referenced

    @prop("CompressionRatio", "d", emits="false")
    def compression_ratio(self, key: str) -> float:
        return self._volume(key).usage.compression_ratio

    @prop("Thin", "b", emits="true")
    def thin(self, key: str) -> bool:
        return self._volume(key).thin

    @prop("Origin", "o", emits="true")
    def origin(self, key: str) -> str:
        return path_of(self._catalog, self._volume(key).origin_id)

    @prop("Snapshots", "ao", emits="true")
    def snapshots(self, key: str) -> list[str]:
        return [names.snapshot_path(found.id) for found in self._catalog.snapshots_of(key)]

    @prop("CreatedAt", "t", emits="const")
    def created_at(self, key: str) -> int:
        return self._volume(key).created_at

    @prop("Labels", "a{ss}", emits="true")
    def labels(self, key: str) -> dict[str, str]:
        return dict(self._volume(key).labels)

    @prop("Source", "s", emits="const")
    def source(self, key: str) -> str:
        return self._volume(key).source

    @prop("Checksum", "s", emits="const")
    def checksum(self, key: str) -> str:
        return self._volume(key).checksum

    def _volume(self, key: str) -> Volume:
        return self._catalog.volume(key)
