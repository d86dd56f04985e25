"""What the directory holds for others to see: read whole, and then again where it has changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ...model import Kind, Snapshot, Template, Volume
from ..base import Inventory
from .folder import Folder
from .ledger import Ledger
from .records import DatasetRecord, SnapshotRecord, State, is_key
from .views import Views


class Overview:
    """A snapshot is there as long as its volume is."""

    def __init__(self, folder: Folder, ledger: Ledger, views: Views) -> None:
        self._folder = folder
        self._ledger = ledger
        self._views = views
        self._known: Inventory | None = None
        """What was read last; None where that failed on the way."""

    def read(self, keys: Collection[str] | None = None) -> Inventory:
        """What the directory holds. ``keys``: whose files may have changed since the last time, by
        this store or by a hand; None: any. Usage counters of all others are as of then."""
        known, self._known = self._known, None
        if known is None or keys is None:
            self._known = self._read_all()
        else:
            self._known = self._read_again(known, set(filter(is_key, keys)))
        return self._known

    def forget(self) -> None:
        """The next time, anything may have changed."""
        self._known = None

    def _read_all(self) -> Inventory:
        pool = self._views.pool()
        raws = self._ledger.load()
        ready = [r for r in self._ledger if r.state is State.READY and r.key in raws]
        datasets = [r for r in ready if isinstance(r, DatasetRecord)]
        volumes = {
            r.id: self._views.volume(r, raws[r.key]) for r in datasets if r.kind is Kind.VOLUME
        }
        templates = {
            r.id: self._views.template(r, raws[r.key]) for r in datasets if r.kind is Kind.TEMPLATE
        }
        snapshots = sorted(
            (r for r in ready if isinstance(r, SnapshotRecord) and r.volume_id in volumes),
            key=lambda record: (record.volume_id, record.sequence),
        )
        found = {r.id: self._views.snapshot(r, raws[r.key]) for r in snapshots}
        return Inventory(pool, volumes, found, templates)

    def _read_again(self, known: Inventory, keys: set[str]) -> Inventory:
        volumes, snapshots = dict(known.volumes), dict(known.snapshots)
        templates = dict(known.templates)
        for key in keys:
            self._ledger.load_again(key)
        for key in keys:
            if "@" not in key:
                self._look_at_dataset(key, volumes, templates)
        for key in self._with_their_snapshots(keys):
            self._look_at_snapshot(key, volumes, snapshots)
        return Inventory(self._views.pool(), volumes, snapshots, templates)

    def _with_their_snapshots(self, keys: Iterable[str]) -> Iterable[str]:
        """The keys of snapshots that changed, or whose volume did."""
        for key in keys:
            if "@" in key:
                yield key
            else:
                yield from (snapshot.key for snapshot in self._ledger.snapshots_of(key))

    def _look_at_dataset(
        self, key: str, volumes: dict[str, Volume], templates: dict[str, Template]
    ) -> None:
        volumes.pop(key, None)
        templates.pop(key, None)
        record, raw = self._ledger.find(key), self._folder.raw_status(key)
        if isinstance(record, DatasetRecord) and record.state is State.READY and raw is not None:
            if record.kind is Kind.VOLUME:
                volumes[key] = self._views.volume(record, raw)
            else:
                templates[key] = self._views.template(record, raw)

    def _look_at_snapshot(
        self, key: str, volumes: dict[str, Volume], snapshots: dict[str, Snapshot]
    ) -> None:
        volume_id, _, snapshot_id = key.partition("@")
        snapshots.pop(snapshot_id, None)
        record, raw = self._ledger.find(key), self._folder.raw_status(key)
        if volume_id not in volumes or raw is None:
            return
        if isinstance(record, SnapshotRecord) and record.state is State.READY:
            snapshots[snapshot_id] = self._views.snapshot(record, raw)
