"""What the directory store does with disks that exist: read them, grow them, snapshot them.

Blocking; each method is for a thread. Steps that read and change records hold the folder's lock;
what copies bytes does not.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from threading import Event

from ...errors import PoolUnavailable, WouldShrink
from ...model import Pool, Usage, User, Volume
from ..base import Inventory
from .folder import Folder
from .ledger import Ledger
from .overview import Overview
from .records import DatasetRecord, SnapshotRecord
from .reflink import copy_sparse, reflink
from .removal import Removal
from .views import Views, usage


class Disks:
    def __init__(self, folder: Folder, ledger: Ledger, views: Views, removal: Removal) -> None:
        self._folder = folder
        self._ledger = ledger
        self._views = views
        self._removal = removal
        self._overview = Overview(folder, ledger, views)

    def recover(self) -> None:
        """Read the directory, and remove what a crash left half-made or deleted."""
        with self._folder.at_work():
            self._folder.clean_temporary()
            self._ledger.load()
            self._removal.discard_half_made()
            self._removal.collect()

    def inventory(self, keys: Collection[str] | None = None) -> Inventory:
        """See :meth:`Overview.read`."""
        try:
            with self._folder.at_work():
                return self._overview.read(keys)
        except (PoolUnavailable, OSError):
            self._overview.forget()
            return Inventory(self._views.lost_pool())

    def pool(self) -> Pool:
        try:
            with self._folder.at_work():
                return self._views.pool()
        except (PoolUnavailable, OSError):
            return self._views.lost_pool()

    def usage(self, dataset_id: str, snapshot_id: str) -> Usage:
        with self._folder.at_work():
            if snapshot_id:
                return usage(self._views.raw(self._ledger.snapshot(snapshot_id)))
            return usage(self._views.raw(self._ledger.dataset(dataset_id)))

    def users(self, dataset_id: str) -> list[User]:
        with self._folder.at_work():
            dataset = self._ledger.dataset(dataset_id)
        return self._removal.users(dataset)

    def volume_of(self, snapshot_id: str) -> str:
        """The id of a snapshot's volume."""
        with self._folder.at_work():
            return self._ledger.snapshot(snapshot_id).volume_id

    def rename(self, dataset_id: str, name: str) -> None:
        with self._folder.at_work():
            self._ledger.put(replace(self._ledger.dataset(dataset_id), name=name))

    def set_labels(self, dataset_id: str, labels: Mapping[str, str]) -> None:
        with self._folder.at_work():
            self._ledger.put(replace(self._ledger.dataset(dataset_id), labels=dict(labels)))

    def resize(self, volume_id: str, size: int) -> Volume:
        with self._folder.at_work():
            volume = self._ledger.volume(volume_id)
            current = self._views.raw(volume).st_size
            if size < current:
                raise WouldShrink(
                    f"size {size} is smaller than the present {current} bytes of {volume.name!r},"
                    " and shrinking destroys data"
                )
            if size > current:
                fd = self._folder.open_raw(volume.key)
                try:
                    self._folder.set_size(fd, size, thin=volume.thin)
                finally:
                    os.close(fd)
            return self._views.volume(volume, self._views.raw(volume))

    def rollback(self, snapshot_id: str, stop: Event, *, destroy_newer: bool) -> Volume:
        """The volume's new content is made beside it and takes its place in one step."""
        with self._folder.at_work():
            snapshot = self._ledger.snapshot(snapshot_id)
            volume = self._ledger.volume(snapshot.volume_id)
            self._refuse_rollback(snapshot, volume, destroy_newer)
        try:
            self._draft(volume, snapshot, stop)
            with self._folder.at_work():
                newer = self._refuse_rollback(snapshot, volume, destroy_newer)
                volume = self._ledger.volume(volume.id)
                self._folder.publish_draft(volume.key)
                self._removal.destroy_newer(newer)
                return self._views.volume(volume, self._views.raw(volume))
        except BaseException:
            self._folder.remove_draft(volume.key)
            raise

    def _refuse_rollback(
        self, snapshot: SnapshotRecord, volume: DatasetRecord, destroy_newer: bool
    ) -> list[SnapshotRecord]:
        newer = self._removal.newer_than(snapshot, destroy=destroy_newer)
        self._removal.refuse_busy(volume)
        return newer

    def _draft(self, volume: DatasetRecord, snapshot: SnapshotRecord, stop: Event) -> None:
        with self._folder.reading(snapshot.key) as source:
            fd = self._folder.create_draft(volume.key)
            try:
                if not reflink(source, fd):
                    copy_sparse(source, fd, stop)
                self._folder.set_size(fd, os.fstat(source).st_size, thin=volume.thin)
            finally:
                os.close(fd)
