"""How disks of the directory store come to be: volumes, targets, clones, snapshots, templates.

Each is made in three steps: its record, marked as being made; its raw file; the record again,
marked ready. A crash on the way leaves a record that says so, and the next start removes both. From
the first step on, the record also keeps what it is cloned from.

Blocking; each method is for a thread. What is copied from stays open meanwhile, so that it is whole
whatever happens to its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import Event

from ...errors import AlreadyExists, DeviceBusy, NotFound
from ...model import Kind, Snapshot, Template, Volume
from ..base import NewClone, NewDataset
from .folder import Folder
from .ledger import Ledger
from .records import DatasetRecord, Record, SnapshotRecord, State, image_key
from .reflink import copy_sparse, reflink
from .removal import Removal
from .views import Views

Progress = Callable[[int, int], None]


class Making:
    def __init__(self, folder: Folder, ledger: Ledger, views: Views, removal: Removal) -> None:
        self._folder = folder
        self._ledger = ledger
        self._views = views
        self._removal = removal

    # New disks

    def create_volume(self, new: NewDataset) -> Volume:
        record = self._create(Kind.VOLUME, new)
        with self._undone_on_failure(record):
            return self._publish_volume(record)

    def create_target(self, kind: Kind, new: NewDataset) -> None:
        self._create(kind, new)

    def open_target(self, dataset_id: str) -> int:
        with self._folder.at_work():
            return self._folder.open_raw(self._ledger.target(dataset_id).key)

    def resize_target(self, dataset_id: str, size: int) -> None:
        with self._folder.at_work():
            target = self._ledger.target(dataset_id)
            fd = self._folder.open_raw(target.key)
            try:
                self._folder.set_size(fd, size, thin=target.thin)
            finally:
                os.close(fd)

    def publish(self, dataset_id: str) -> Volume | Template:
        with self._folder.at_work():
            target = self._ledger.target(dataset_id)
            self._views.raw(target)
            if target.kind is Kind.VOLUME:
                return self._publish_volume(target)
            return self._publish_template(target)

    def abandon(self, dataset_id: str) -> None:
        with self._folder.at_work():
            try:
                target = self._ledger.target(dataset_id)
            except NotFound:
                return
            self._removal.discard(target)

    # Copies

    def clone(self, template_id: str, new: NewClone, stop: Event) -> Volume:
        with ExitStack() as files:
            with self._folder.at_work():
                template = self._ledger.template(template_id)
                source = files.enter_context(self._folder.reading(template.key))
                size = new.size_of(f"template {template.name!r}", os.fstat(source).st_size)
                record = replace(
                    _clone_record(Kind.VOLUME, new, template), origin=image_key(template.id)
                )
                self._claim(record)
            with self._undone_on_failure(record):
                self._fill(record, lambda fd: self._share(source, fd, size, stop))
                return self._publish_volume(record)

    def template_from_snapshot(self, snapshot_id: str, new: NewClone, stop: Event) -> Template:
        with ExitStack() as files:
            with self._folder.at_work():
                snapshot = self._ledger.snapshot(snapshot_id)
                source = files.enter_context(self._folder.reading(snapshot.key))
                size = new.size_of(f"snapshot {snapshot.name!r}", os.fstat(source).st_size)
                record = replace(self._template_record(snapshot, new), origin=snapshot.key)
                self._claim(record)
            with self._undone_on_failure(record):
                self._fill(record, lambda fd: self._share(source, fd, size, stop))
                return self._publish_template(record)

    def copy_to_template(
        self, snapshot_id: str, new: NewClone, stop: Event, progress: Progress
    ) -> Template:
        with ExitStack() as files:
            with self._folder.at_work():
                snapshot = self._ledger.snapshot(snapshot_id)
                source = files.enter_context(self._folder.reading(snapshot.key))
                size = new.size_of(f"snapshot {snapshot.name!r}", os.fstat(source).st_size)
                record = self._template_record(snapshot, new)
                self._claim(record)
            with self._undone_on_failure(record):
                self._fill(record, lambda fd: self._copy(source, fd, size, stop, progress))
                return self._publish_template(record)

    def create_snapshot(
        self, volume_id: str, snapshot_id: str, name: str, created_at: int, stop: Event
    ) -> Snapshot:
        with ExitStack() as files:
            with self._folder.at_work():
                volume = self._ledger.volume(volume_id)
                source = files.enter_context(self._folder.reading(volume.key))
                record = SnapshotRecord(
                    id=snapshot_id,
                    volume_id=volume_id,
                    state=State.IMPORTING,
                    name=name,
                    created_at=created_at,
                    sequence=self._next_sequence(volume_id),
                )
                self._claim(record)
            with self._undone_on_failure(record):
                self._fill(record, lambda fd: self._snapshot(volume, source, fd, stop))
                return self._publish_snapshot(record)

    # The first step

    def _create(self, kind: Kind, new: NewDataset) -> DatasetRecord:
        record = _dataset_record(kind, new)
        with self._folder.at_work():
            self._claim(record)
        with self._undone_on_failure(record):
            self._fill(record, lambda fd: self._folder.set_size(fd, new.size, thin=new.thin))
        return record

    def _claim(self, record: Record) -> None:
        """AlreadyExists: the id is taken, if only by something deleted or by a stranger's file."""
        if self._ledger.has_id(record.id) or self._folder.exists(record.key):
            raise AlreadyExists(f"the id {record.id} is taken")
        self._ledger.put(record)

    def _next_sequence(self, volume_id: str) -> int:
        return max((s.sequence for s in self._ledger.snapshots_of(volume_id)), default=0) + 1

    def _template_record(self, snapshot: SnapshotRecord, new: NewClone) -> DatasetRecord:
        volume = self._ledger.volume(snapshot.volume_id)
        return replace(_clone_record(Kind.TEMPLATE, new, volume), source_volume_id=volume.id)

    # The second

    def _fill(self, record: Record, fill: Callable[[int], None]) -> None:
        fd = self._folder.create_raw(record.key)
        try:
            fill(fd)
            os.fsync(fd)
        finally:
            os.close(fd)

    def _share(self, source: int, fd: int, size: int, stop: Event) -> None:
        if not reflink(source, fd):
            copy_sparse(source, fd, stop)
        self._folder.set_size(fd, size, thin=True)

    def _copy(self, source: int, fd: int, size: int, stop: Event, progress: Progress) -> None:
        copy_sparse(source, fd, stop, progress)
        self._folder.set_size(fd, size, thin=True)

    def _snapshot(self, volume: DatasetRecord, source: int, fd: int, stop: Event) -> None:
        """The volume as of one moment. Where the file system cannot do that, nobody may write
        meanwhile: a snapshot that mixes two moments looks whole and is not."""
        if reflink(source, fd):
            return
        self._removal.refuse_busy(volume)
        before = os.fstat(source).st_mtime_ns
        copy_sparse(source, fd, stop)
        if os.fstat(source).st_mtime_ns != before:
            raise DeviceBusy(f"volume {volume.name!r} was written to while it was copied")

    @contextmanager
    def _undone_on_failure(self, record: Record) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with self._folder.at_work():
                self._removal.discard(record)
            raise

    # The third

    def _publish_volume(self, record: DatasetRecord) -> Volume:
        return self._views.volume(record, self._publish(record))

    def _publish_template(self, record: DatasetRecord) -> Template:
        self._folder.seal(record.key)
        return self._views.template(record, self._publish(record))

    def _publish_snapshot(self, record: SnapshotRecord) -> Snapshot:
        self._folder.seal(record.key)
        return self._views.snapshot(record, self._publish(record))

    def _publish(self, record: Record) -> os.stat_result:
        with self._folder.at_work():
            raw = self._views.raw(record)
            self._ledger.set_state(record, State.READY)
            return raw


def _dataset_record(kind: Kind, new: NewDataset) -> DatasetRecord:
    return DatasetRecord(
        id=new.id,
        kind=kind,
        state=State.IMPORTING,
        name=new.name,
        block_size=new.block_size,
        created_at=new.created_at,
        thin=new.thin,
        compression=new.compression,
        labels=dict(new.labels),
        source=new.source,
        checksum=new.checksum,
    )


def _clone_record(kind: Kind, new: NewClone, origin: DatasetRecord) -> DatasetRecord:
    """A clone has its origin's block size, and is thin: what it shares it cannot reserve."""
    return DatasetRecord(
        id=new.id,
        kind=kind,
        state=State.IMPORTING,
        name=new.name,
        block_size=origin.block_size,
        created_at=new.created_at,
        labels=dict(new.labels),
    )
