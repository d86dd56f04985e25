"""The answers of the programs that read, and the volumes, snapshots and templates it stands for."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ...model import Kind, Pool, PoolUsage, Snapshot, Template, Usage, Volume
from ..base import Inventory
from .device import device_path
from .properties import DELETED, IMAGE, SNAPSHOT, Metadata, decode

_log = logging.getLogger(__name__)

IMAGE_SNAPSHOT: Final = "img"
"""What volumes are cloned from: ``POOL/UUID@img``."""

_METADATA: Final = (
    "kind",
    "name",
    "created",
    "labels",
    "source",
    "checksum",
    "source-volume",
    "state",
)

Answer = Mapping[bytes, Any]
Thing = Volume | Snapshot | Template


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    name: str
    """After the ``@``."""
    metadata: Metadata
    size: int
    usage: Usage
    txg: int
    """The transaction group it was taken in: the order of a volume's snapshots."""
    deferred: bool
    """Destroyed for everybody, and gone with its last clone."""

    @property
    def exists(self) -> bool:
        """Whether it is there for others."""
        return self.metadata.kind == SNAPSHOT and not self.deferred and is_id(self.name)


@dataclass(frozen=True, slots=True)
class DatasetRow:
    dataset: str
    metadata: Metadata
    size: int
    block_size: int
    reserved: int
    """Bytes of its refreservation: none of a thin volume, more than its size of a thick one."""
    usage: Usage
    origin: str
    """The snapshot it is a clone of, as ZFS names it; empty when it is none."""
    snapshots: tuple[SnapshotRow, ...]

    @property
    def id(self) -> str:
        return self.dataset.rpartition("/")[2]

    @property
    def exists(self) -> bool:
        """Whether it is there for others."""
        return self.metadata.state != DELETED and self.size > 0 and is_id(self.id)

    @property
    def deleted(self) -> bool:
        """Whether it waits for its last clone. What somebody renamed, or made of one, does not."""
        return self.metadata.state == DELETED and is_id(self.id)

    @property
    def thick(self) -> bool:
        """Whether all of it is reserved. An administrator may have reserved a part."""
        return self.reserved >= self.size


def fields(text: bytes) -> dict[bytes, bytes]:
    """What a text of SCAN says: key, value, key, value …, each with its length before it, as in
    ``4:name5:disk1``."""
    values = _cut(text)
    return dict(zip(values, values, strict=True))


def _cut(text: bytes) -> Iterator[bytes]:
    end = 0
    while end < len(text):
        colon = text.index(b":", end)
        start, end = colon + 1, colon + 1 + int(text[end:colon])
        yield text[start:end]


def read_datasets(answer: Answer) -> list[DatasetRow]:
    found = answer.get(b"datasets", {})
    return [_dataset(name.decode(), fields(row)) for name, row in sorted(found.items())]


def read_snapshot(name: str, packed: bytes) -> SnapshotRow:
    return _snapshot(name, fields(packed))


def read_usage(row: Answer) -> Usage:
    return Usage(
        used=_number(row, b"used"),
        referenced=_number(row, b"referenced"),
        compression_ratio=_number(row, b"compressratio", 100) / 100,
    )


def is_id(name: str) -> bool:
    """Whether a dataset or snapshot has a name this service gives."""
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False


def _dataset(name: str, row: Answer) -> DatasetRow:
    below = ((key.decode(), value) for key, value in row.items() if b"@" in key)
    snapshots = [read_snapshot(found, packed) for found, packed in below]
    return DatasetRow(
        dataset=name,
        metadata=_metadata(row),
        size=_number(row, b"volsize"),
        block_size=_number(row, b"volblocksize"),
        reserved=_number(row, b"refreservation"),
        usage=read_usage(row),
        origin=row.get(b"origin", b"").decode(),
        snapshots=tuple(sorted(snapshots, key=lambda snapshot: snapshot.txg)),
    )


def _snapshot(name: str, row: Answer) -> SnapshotRow:
    return SnapshotRow(
        name=name.partition("@")[2],
        metadata=_metadata(row),
        size=_number(row, b"volsize"),
        usage=read_usage(row),
        txg=_number(row, b"createtxg"),
        deferred=row.get(b"defer_destroy") == b"on",
    )


def _metadata(row: Answer) -> Metadata:
    texts = {key: row[key.encode()] for key in _METADATA if key.encode() in row}
    if "created" not in texts and b"creation" in row:  # somebody cleared it: ZFS knows the second
        texts["created"] = b"%d" % (_number(row, b"creation") * 1_000_000)
    return decode(texts)


def _number(row: Answer, key: bytes, otherwise: int = 0) -> int:
    return int(row.get(key, otherwise))


# What they are to others


def volume(row: DatasetRow) -> Volume:
    origin, _, snapshot = row.origin.rpartition("/")[2].partition("@")
    return Volume(
        **_common(row),
        origin_id=origin if snapshot == IMAGE_SNAPSHOT and is_id(origin) else "",
    )


def template(row: DatasetRow) -> Template:
    origin = row.origin.partition("@")[2]
    return Template(
        **_common(row),
        origin_id=origin if is_id(origin) else "",
        source_volume_id=row.metadata.source_volume_id,
        snapshot=f"{row.dataset}@{IMAGE_SNAPSHOT}",
    )


def snapshots(row: DatasetRow) -> list[Snapshot]:
    """Those of ours that exist, the oldest first."""
    return [snapshot(found, row.id) for found in row.snapshots if found.exists]


def snapshot(row: SnapshotRow, volume_id: str) -> Snapshot:
    return Snapshot(
        id=row.name,
        name=row.metadata.name,
        volume_id=volume_id,
        size=row.size,
        created_at=row.metadata.created_at,
        usage=row.usage,
    )


def things(row: DatasetRow) -> list[Thing]:
    """What exists of this row: a volume and its snapshots, a template, or nothing."""
    if not row.exists:
        return []
    if row.metadata.kind == Kind.VOLUME:
        return [volume(row), *snapshots(row)]
    if _has_image(row):
        return [template(row)]
    _log.warning("template %s has lost its @%s: left alone", row.dataset, IMAGE_SNAPSHOT)
    return []


def inventory(pool: Pool, found: Iterable[Thing]) -> Inventory:
    volumes: dict[str, Volume] = {}
    templates: dict[str, Template] = {}
    snapshots: dict[str, Snapshot] = {}
    for thing in found:
        match thing:
            case Volume():
                volumes[thing.id] = thing
            case Snapshot():
                snapshots[thing.id] = thing
            case Template():
                templates[thing.id] = thing
    return Inventory(pool, volumes, snapshots, templates)


def pool_usage(root: Answer, size: int, allocated: int, free: int) -> PoolUsage:
    return PoolUsage(
        size=size,
        allocated=allocated,
        free=free,
        available=_number(root, b"available"),
        compression_ratio=_number(root, b"compressratio", 100) / 100,
    )


def _has_image(row: DatasetRow) -> bool:
    return any(
        found.name == IMAGE_SNAPSHOT and found.metadata.kind == IMAGE for found in row.snapshots
    )


def _common(row: DatasetRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.metadata.name,
        "size": row.size,
        "block_size": row.block_size,
        "created_at": row.metadata.created_at,
        "device": device_path(row.dataset),
        "labels": row.metadata.labels,
        "source": row.metadata.source,
        "checksum": row.metadata.checksum,
        "thin": not row.reserved,
        "usage": row.usage,
    }
