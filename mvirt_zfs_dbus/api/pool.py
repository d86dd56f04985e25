"""org.mvirt.Zfs1.Pool: space and health."""

from __future__ import annotations

from .. import names
from ..bus.interface import Interface, prop
from ..core.service import Service
from ..model import Template, Volume


class PoolInterface(Interface):
    name = names.Interface.POOL

    def __init__(self, service: Service) -> None:
        self._usage = service.usage
        self._catalog = service.catalog

    async def refresh(self, key: str) -> None:
        await self._usage.pool()

    @prop("Name", "s", emits="const")
    def pool_name(self, key: str) -> str:
        return self._catalog.pool.name

    @prop("Health", "s", emits="true")
    def health(self, key: str) -> str:
        return self._catalog.pool.health

    @prop("SizeBytes", "t", emits="true")
    def size_bytes(self, key: str) -> int:
        return self._catalog.pool.usage.size

    @prop("AllocatedBytes", "t", emits="false")
    def allocated_bytes(self, key: str) -> int:
        return self._catalog.pool.usage.allocated

    @prop("FreeBytes", "t", emits="false")
    def free_bytes(self, key: str) -> int:
        return self._catalog.pool.usage.free

    @prop("AvailableBytes", "t", emits="false")
    def available_bytes(self, key: str) -> int:
        return self._catalog.pool.usage.available

    @prop("ProvisionedBytes", "t", emits="true")
    def provisioned_bytes(self, key: str) -> int:
        return self._catalog.provisioned

    @prop("CompressionRatio", "d", emits="false")
    def compression_ratio(self, key: str) -> float:
        return self._catalog.pool.usage.compression_ratio

    @prop("VolumeCount", "u", emits="true")
    def volume_count(self, key: str) -> int:
        return self._catalog.count(Volume)

    @prop("TemplateCount", "u", emits="true")
    def template_count(self, key: str) -> int:
        return self._catalog.count(Template)
