"""Records and raw files as what the layers above know: volumes, snapshots, templates."""

from __future__ import annotations

import os

from ...errors import NotFound
from ...model import Pool, PoolUsage, Snapshot, Template, Usage, Volume
from .folder import SECTOR, Folder
from .records import DatasetRecord, Record, SnapshotRecord, image_key

ONLINE = "ONLINE"
UNAVAIL = "UNAVAIL"


class Views:
    def __init__(self, folder: Folder, pool_name: str) -> None:
        self._folder = folder
        self._pool_name = pool_name

    def pool(self) -> Pool:
        space = self._folder.space()
        unit = space.f_frsize
        found = PoolUsage(
            size=space.f_blocks * unit,
            allocated=(space.f_blocks - space.f_bfree) * unit,
            free=space.f_bfree * unit,
            available=space.f_bavail * unit,
        )
        return Pool(self._pool_name, ONLINE, found)

    def lost_pool(self) -> Pool:
        return Pool(self._pool_name, UNAVAIL)

    def raw(self, record: Record) -> os.stat_result:
        """The present status of a raw file."""
        if raw := self._folder.raw_status(record.key):
            return raw
        raise NotFound(
            f"the raw file of {record.name!r} is gone: {self._folder.device(record.key)}"
        )

    def volume(self, record: DatasetRecord, raw: os.stat_result) -> Volume:
        return Volume(
            id=record.id,
            name=record.name,
            size=raw.st_size,
            block_size=record.block_size,
            created_at=record.created_at,
            device=self._folder.device(record.key),
            labels=record.labels,
            source=record.source,
            checksum=record.checksum,
            thin=record.thin,
            usage=usage(raw),
            origin_id=_template_id(record.origin),
        )

    def template(self, record: DatasetRecord, raw: os.stat_result) -> Template:
        return Template(
            id=record.id,
            name=record.name,
            size=raw.st_size,
            block_size=record.block_size,
            created_at=record.created_at,
            device=self._folder.device(record.key),
            labels=record.labels,
            source=record.source,
            checksum=record.checksum,
            thin=record.thin,
            usage=usage(raw),
            origin_id=_snapshot_id(record.origin),
            source_volume_id=record.source_volume_id,
            snapshot=f"{self._pool_name}/{image_key(record.id)}",
        )

    def snapshot(self, record: SnapshotRecord, raw: os.stat_result) -> Snapshot:
        return Snapshot(
            id=record.id,
            name=record.name,
            volume_id=record.volume_id,
            size=raw.st_size,
            created_at=record.created_at,
            usage=usage(raw),
        )


def usage(raw: os.stat_result) -> Usage:
    """Extents shared by reflinks count for each file that has them: no file system tells cheaply
    which they are."""
    occupied = raw.st_blocks * SECTOR
    return Usage(used=occupied, referenced=occupied)


def _template_id(origin: str) -> str:
    return origin.partition("@")[0]


def _snapshot_id(origin: str) -> str:
    return origin.partition("@")[2]
