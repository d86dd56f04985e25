"""A directory store with thousands of volumes, made without the service.

Each file is what the store itself would have written; over the bus it would take a sync to the disk
for each, which is the disk's speed and not what is measured.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.files.folder import IMMUTABLE, RAW, RECORD, WRITABLE
from mvirt_zfs_dbus.store.files.records import DatasetRecord, Record, SnapshotRecord, State, encode

SIZE: Final = 1 << 30
"""Bytes of each volume; none of them is written."""
_BLOCK: Final = 16384
_BEGAN: Final = 1_760_000_000_000_000
"""Microseconds since the epoch."""


def fill(folder: Path, volumes: int, snapshots_each: int) -> None:
    """Make an empty folder a store of so many volumes, each with so many snapshots."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for number in range(volumes):
        for record in _records(number, snapshots_each):
            is_volume = isinstance(record, DatasetRecord)
            _write(folder / (record.key + RECORD), encode(record), WRITABLE)
            raw = folder / (record.key + RAW)
            _write(raw, b"", WRITABLE if is_volume else IMMUTABLE)
            os.truncate(raw, SIZE)


def volume_name(number: int) -> str:
    return f"vm-{number:06}"


def grow(folder: Path) -> None:
    """Make every volume larger by a block, as another hand might. No file's record changes, and
    nobody is told: the service sees it when it looks."""
    for raw in folder.glob(f"*{RAW}"):
        if "@" not in raw.name:
            os.truncate(raw, raw.stat().st_size + _BLOCK)


def _records(number: int, snapshots: int) -> Iterator[Record]:
    volume_id = _id(number, 0)
    yield DatasetRecord(
        id=volume_id,
        kind=Kind.VOLUME,
        state=State.READY,
        name=volume_name(number),
        block_size=_BLOCK,
        created_at=_BEGAN + number,
        labels={"owner": f"tenant-{number % 100}"},
    )
    for sequence in range(1, snapshots + 1):
        yield SnapshotRecord(
            id=_id(number, sequence),
            volume_id=volume_id,
            state=State.READY,
            name=f"daily-{sequence:03}",
            created_at=_BEGAN + number + sequence,
            sequence=sequence,
        )


def _id(number: int, part: int) -> str:
    """Spread over all there are, and the same each time."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{number}/{part}"))


def _write(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
