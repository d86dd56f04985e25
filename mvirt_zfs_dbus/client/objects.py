"""Pools, volumes, snapshots and templates as a client sees them.

Each holds the properties it had when it was read; ``await volume.refresh()`` reads them again.
Sizes are bytes, times are microseconds since the epoch.
"""

from __future__ import annotations

from ..names import Interface
from .job import Job
from .remote import Property, RemoteObject, options


class Pool(RemoteObject):
    interface = Interface.POOL

    name = Property[str]("Name")
    health = Property[str]("Health")
    size_bytes = Property[int]("SizeBytes")
    allocated_bytes = Property[int]("AllocatedBytes")
    free_bytes = Property[int]("FreeBytes")
    available_bytes = Property[int]("AvailableBytes")
    provisioned_bytes = Property[int]("ProvisionedBytes")
    compression_ratio = Property[float]("CompressionRatio")
    volume_count = Property[int]("VolumeCount")
    template_count = Property[int]("TemplateCount")


class Disk(RemoteObject):
    """What volumes and templates have in common."""

    id = Property[str]("Id")
    name = Property[str]("Name")
    size_bytes = Property[int]("SizeBytes")
    used_bytes = Property[int]("UsedBytes")
    referenced_bytes = Property[int]("ReferencedBytes")
    created_at = Property[int]("CreatedAt")
    labels = Property[dict[str, str]]("Labels")
    source = Property[str]("Source")
    checksum = Property[str]("Checksum")

    async def rename(self, name: str) -> None:
        await self.call("Rename", "sa{sv}", name, options())

    async def set_labels(self, labels: dict[str, str]) -> None:
        """Replace all labels."""
        await self.call("SetLabels", "a{ss}a{sv}", labels, options())


class Volume(Disk):
    interface = Interface.VOLUME

    pool_path = Property[str]("Pool")
    device = Property[str]("Device")
    block_size = Property[int]("BlockSize")
    compression_ratio = Property[float]("CompressionRatio")
    thin = Property[bool]("Thin")
    origin_path = Property[str]("Origin")
    snapshot_paths = Property[list[str]]("Snapshots")

    async def resize(self, size: int) -> None:
        """Grow to ``size`` bytes, rounded up to the block size. WouldShrink."""
        await self.call("Resize", "ta{sv}", size, options())

    async def delete(self, *, snapshots: bool = False, defer: bool = False) -> None:
        """HasSnapshots without ``snapshots``, HasClones without ``defer``; DeviceBusy."""
        await self.call("Delete", "a{sv}", options(snapshots=snapshots, defer=defer))

    async def create_snapshot(self, name: str) -> Snapshot:
        path = await self.call("CreateSnapshot", "sa{sv}", name, options())
        return await Snapshot(self.remote, path).refresh()

    async def snapshots(self) -> list[Snapshot]:
        """Oldest first, as this volume's property had them."""
        return [await Snapshot(self.remote, path).refresh() for path in self.snapshot_paths]

    async def users(self) -> list[dict[str, object]]:
        """Who holds the device open: ``pid`` and ``command`` of each."""
        found: list[dict[str, object]] = await self.call("GetUsers", "a{sv}", options())
        return found


class Snapshot(RemoteObject):
    interface = Interface.SNAPSHOT

    id = Property[str]("Id")
    name = Property[str]("Name")
    volume_path = Property[str]("Volume")
    size_bytes = Property[int]("SizeBytes")
    used_bytes = Property[int]("UsedBytes")
    referenced_bytes = Property[int]("ReferencedBytes")
    created_at = Property[int]("CreatedAt")
    clone_paths = Property[list[str]]("Clones")

    async def rollback(self, *, destroy_newer: bool = False) -> None:
        """Turn the volume back to this. NewerSnapshots without ``destroy_newer``; HasClones."""
        await self.call("Rollback", "a{sv}", options(destroy_newer=destroy_newer))

    async def delete(self, *, defer: bool = False) -> None:
        await self.call("Delete", "a{sv}", options(defer=defer))

    async def create_template(self, name: str) -> Template:
        """At once, copy-on-write: the snapshot cannot go before the template."""
        path = await self.call("CreateTemplate", "sa{sv}", name, options())
        return await Template(self.remote, path).refresh()

    async def copy_to_template(self, name: str) -> Job:
        """An independent full copy."""
        path = await self.call("CopyToTemplate", "sa{sv}", name, options())
        return await Job(self.remote, path).refresh()


class Template(Disk):
    interface = Interface.TEMPLATE

    snapshot = Property[str]("Snapshot")
    clone_paths = Property[list[str]]("Clones")
    clone_count = Property[int]("CloneCount")
    source_volume_path = Property[str]("SourceVolume")

    async def clone(
        self,
        name: str,
        *,
        id: str | None = None,
        size: int | None = None,
        labels: dict[str, str] | None = None,
    ) -> Volume:
        """A volume that shares the template's blocks; ``size`` is at least the template's."""
        chosen = options(id=id, size=size, labels=labels)
        path = await self.call("Clone", "sa{sv}", name, chosen)
        return await Volume(self.remote, path).refresh()

    async def delete(self, *, defer: bool = False) -> None:
        """HasClones, unless ``defer``: then its space goes with the last clone."""
        await self.call("Delete", "a{sv}", options(defer=defer))
