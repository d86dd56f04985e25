"""What the directory store knows: all records, in memory and on disk alike, and how they depend."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ...errors import NotFound
from ...model import Kind
from .folder import RAW, RECORD, Folder
from .records import (
    DamagedRecord,
    DatasetRecord,
    Record,
    SnapshotRecord,
    State,
    decode,
    encode,
    is_key,
)

_log = logging.getLogger(__name__)

Signature = tuple[int, int, int]


class Ledger:
    """Records change through :meth:`put` and :meth:`remove` alone, on disk first.

    What a hand did to the directory meanwhile is found by :meth:`load`. Whether a raw file is there
    is never remembered but always looked at, because a hand may take it away and bring it back.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._records: dict[str, Record] = {}
        self._signatures: dict[str, Signature] = {}
        """The status of each record's file when it was read, damaged ones included."""
        self._keys_of_snapshot: dict[str, tuple[str, ...]] = {}
        self._keys_of_volume: dict[str, tuple[str, ...]] = {}
        """The keys of snapshots, by their own and their volume's id."""

    # Reading

    def load(self) -> Mapping[str, os.stat_result]:
        """Read the directory in one pass. The answer is the status of each raw file by its key."""
        raws: dict[str, os.stat_result] = {}
        present: set[str] = set()
        for key, suffix, status in self._folder.files():
            if not is_key(key):
                continue
            if suffix == RAW:
                raws[key] = status
            elif suffix == RECORD:
                present.add(key)
                self._read(key, status)
        for key in self._signatures.keys() - present:
            self._forget(key)
        return raws

    def load_again(self, key: str) -> None:
        """Read the record of one key, whose file may have come, gone or changed."""
        if status := self._folder.record_status(key):
            self._read(key, status)
        else:
            self._forget(key)

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records.values()))

    def find(self, key: str) -> Record | None:
        """A record in whatever state."""
        return self._records.get(key)

    def dataset(self, dataset_id: str) -> DatasetRecord:
        """A volume or template that exists for others."""
        record = self._records.get(dataset_id)
        if isinstance(record, DatasetRecord) and self._exists(record):
            return record
        raise NotFound(f"there is no volume or template {dataset_id}")

    def volume(self, volume_id: str) -> DatasetRecord:
        return self._of_kind(Kind.VOLUME, volume_id)

    def template(self, template_id: str) -> DatasetRecord:
        return self._of_kind(Kind.TEMPLATE, template_id)

    def target(self, dataset_id: str) -> DatasetRecord:
        """A volume or template that is being made."""
        record = self._records.get(dataset_id)
        if isinstance(record, DatasetRecord) and record.state is State.IMPORTING:
            return record
        raise NotFound(f"there is no import target {dataset_id}")

    def snapshot(self, snapshot_id: str) -> SnapshotRecord:
        """A snapshot that exists for others, and whose volume does."""
        record = self.find_snapshot(snapshot_id)
        if record is None or not self._exists(record):
            raise NotFound(f"there is no snapshot {snapshot_id}")
        self.volume(record.volume_id)
        return record

    def find_snapshot(self, snapshot_id: str) -> SnapshotRecord | None:
        """A snapshot in whatever state."""
        keys = self._keys_of_snapshot.get(snapshot_id)
        return self._snapshot(min(keys)) if keys else None

    def has_id(self, object_id: str) -> bool:
        """Whether a dataset or snapshot in whatever state has it."""
        return object_id in self._records or self.find_snapshot(object_id) is not None

    def snapshots_of(self, volume_id: str) -> list[SnapshotRecord]:
        """A volume's snapshots in whatever state, the oldest first."""
        found = map(self._snapshot, self._keys_of_volume.get(volume_id, ()))
        return sorted(found, key=lambda record: record.sequence)

    def clones(self) -> Mapping[str, list[DatasetRecord]]:
        """The clones of each origin, deleted ones that are kept for their own clones included.

        A clone whose raw file was taken away by hand holds nothing back any more.
        """
        found: defaultdict[str, list[DatasetRecord]] = defaultdict(list)
        for record in self:
            if isinstance(record, DatasetRecord) and record.origin and self._holds(record):
                found[record.origin].append(record)
        return found

    def present(self, key: str) -> bool:
        return self._folder.raw_status(key) is not None

    def _snapshot(self, key: str) -> SnapshotRecord:
        record = self._records[key]
        assert isinstance(record, SnapshotRecord)
        return record

    def _of_kind(self, kind: Kind, dataset_id: str) -> DatasetRecord:
        record = self._records.get(dataset_id)
        if isinstance(record, DatasetRecord) and record.kind is kind and self._exists(record):
            return record
        raise NotFound(f"there is no {kind} {dataset_id}")

    def _exists(self, record: Record) -> bool:
        return record.state is State.READY and self.present(record.key)

    def _holds(self, clone: DatasetRecord) -> bool:
        return clone.state is State.IMPORTING or self.present(clone.key)

    # Changing

    def put(self, record: Record) -> None:
        self._folder.write_record(record.key, encode(record))
        self._keep(record)
        self._signatures[record.key] = (0, 0, 0)  # as of no file yet: the next load reads it once

    def set_state(self, record: Record, state: State) -> None:
        self.put(replace(record, state=state))

    def remove(self, records: list[Record]) -> None:
        """Remove raw files and records. A crash on the way must find them all to be removed."""
        self._folder.remove([record.key for record in records])
        for record in records:
            self._forget(record.key)

    def _read(self, key: str, status: os.stat_result) -> None:
        signature = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._signatures.get(key) == signature:
            return
        self._forget(key)
        self._signatures[key] = signature
        try:
            self._keep(decode(key, self._folder.read_record(key)))
        except DamagedRecord as error:
            _log.error("%s%s is damaged and is left alone: %s", key, RECORD, error)
        except OSError as error:
            _log.error("%s%s cannot be read: %s", key, RECORD, error.strerror)
            del self._signatures[key]

    def _keep(self, record: Record) -> None:
        if isinstance(record, SnapshotRecord) and record.key not in self._records:
            for index, of in self._indexes(record):
                index[of] = (*index.get(of, ()), record.key)
        self._records[record.key] = record

    def _forget(self, key: str) -> None:
        self._signatures.pop(key, None)
        record = self._records.pop(key, None)
        if isinstance(record, SnapshotRecord):
            for index, of in self._indexes(record):
                index[of] = tuple(other for other in index[of] if other != key)
                if not index[of]:
                    del index[of]

    def _indexes(
        self, record: SnapshotRecord
    ) -> tuple[tuple[dict[str, tuple[str, ...]], str], ...]:
        return (self._keys_of_snapshot, record.id), (self._keys_of_volume, record.volume_id)
