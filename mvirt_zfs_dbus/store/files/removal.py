"""How disks of the directory store go: what is refused, what waits for clones, what is collected.

Whatever is destroyed is marked deleted first, in one step, and from then on is gone for others. The
files follow as soon as nothing depends on them: at once, after a clone went, or at the next start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ...errors import DeviceBusy, HasClones, HasSnapshots, NewerSnapshots
from ...model import User
from .folder import Folder
from .ledger import Ledger
from .records import DatasetRecord, Record, SnapshotRecord, State, image_key
from .users import users_of

_log = logging.getLogger(__name__)


class Removal:
    def __init__(self, folder: Folder, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger

    def destroy_volume(self, volume_id: str, *, snapshots: bool, defer: bool) -> None:
        with self._folder.at_work():
            volume = self._ledger.volume(volume_id)
            self.collect()
            held = self._snapshots(volume_id)
            if held and not snapshots:
                raise HasSnapshots(f"volume {volume.name!r} has {_named_snapshots(held)}")
            if not defer:
                self._refuse_clones(f"volume {volume.name!r}", [s.key for s in held])
            self.refuse_busy(volume)
            self._destroy([volume])

    def destroy_snapshot(self, snapshot_id: str, *, defer: bool) -> None:
        with self._folder.at_work():
            snapshot = self._ledger.snapshot(snapshot_id)
            if not defer:
                self._refuse_clones(f"snapshot {snapshot.name!r}", [snapshot.key])
            self._destroy([snapshot])

    def destroy_template(self, template_id: str, *, defer: bool) -> None:
        with self._folder.at_work():
            template = self._ledger.template(template_id)
            if not defer:
                self._refuse_clones(f"template {template.name!r}", [image_key(template.id)])
            self.refuse_busy(template)
            self._destroy([template])

    def newer_than(self, snapshot: SnapshotRecord, *, destroy: bool) -> list[SnapshotRecord]:
        """The snapshots that a rollback destroys. NewerSnapshots, HasClones."""
        held = self._snapshots(snapshot.volume_id)
        newer = [s for s in held if s.sequence > snapshot.sequence]
        visible = [s.name for s in newer if s.state is State.READY]
        if visible and not destroy:
            raise NewerSnapshots(
                f"snapshot {snapshot.name!r} is older than {_listed(visible)},"
                " which a rollback to it destroys"
            )
        self._refuse_clones("what the rollback destroys", [s.key for s in newer])
        return newer

    def destroy_newer(self, newer: Iterable[SnapshotRecord]) -> None:
        """After the rollback, so that a crash between the two has destroyed too little."""
        try:
            self._destroy(newer)
        except OSError as error:
            _log.error("snapshots newer than what was rolled back to are still there: %s", error)

    def discard(self, record: Record) -> None:
        """Remove what is being made, and what only waited for it."""
        self._ledger.remove([record])
        self._collect_later_if_it_fails()

    def discard_half_made(self) -> None:
        """Remove all that a crash left half-made."""
        half_made = [record for record in self._ledger if record.state is State.IMPORTING]
        if half_made:
            self._ledger.remove(half_made)

    def collect(self) -> None:
        """Remove what is deleted and has no clones, and what that sets free in turn."""
        with self._folder.at_work():
            while removable := self._removable():
                self._ledger.remove(removable)

    def refuse_busy(self, dataset: DatasetRecord) -> None:
        """DeviceBusy: another process has the raw file open."""
        if users := self.users(dataset):
            holders = ", ".join(f"{user.command} (pid {user.pid})" for user in users)
            raise DeviceBusy(
                f"{dataset.kind} {dataset.name!r} is in use: {holders} has its device open"
            )

    def users(self, dataset: DatasetRecord) -> list[User]:
        raw = self._folder.raw_status(dataset.key)
        return users_of(raw) if raw is not None else []

    def _destroy(self, records: Iterable[Record]) -> None:
        for record in records:
            self._ledger.set_state(record, State.DELETED)
        self._collect_later_if_it_fails()

    def _collect_later_if_it_fails(self) -> None:
        """What was asked for is done by now; that its files stay a while is no failure of it."""
        try:
            self.collect()
        except OSError as error:
            _log.warning("deleted disks stay until the next collection: %s", error)

    def _snapshots(self, volume_id: str) -> list[SnapshotRecord]:
        """A volume's snapshots, those included that only clones keep; not those whose file a hand
        took away."""
        return [
            snapshot
            for snapshot in self._ledger.snapshots_of(volume_id)
            if snapshot.state is not State.READY or self._ledger.present(snapshot.key)
        ]

    def _refuse_clones(self, what: str, origins: Iterable[str]) -> None:
        clones = self._ledger.clones()
        if found := [clone for origin in origins for clone in clones.get(origin, [])]:
            raise HasClones(f"{what} has clones: {', '.join(map(_clone_name, found))}")

    def _removable(self) -> list[Record]:
        """What is deleted and has no clones; each volume after its snapshots, so that it is known
        whose they were until the last is gone."""
        deleted = {r.key: r for r in self._ledger if r.state is State.DELETED}
        if not deleted:
            return []
        clones = self._ledger.clones()
        snapshots = [
            record
            for record in self._ledger
            if isinstance(record, SnapshotRecord)
            and (record.key in deleted or record.volume_id in deleted)
        ]
        needed = {snapshot.volume_id for snapshot in snapshots if snapshot.key in clones}
        datasets = [r for r in deleted.values() if isinstance(r, DatasetRecord)]
        return [
            *(r for r in snapshots if r.key not in clones),
            *(r for r in datasets if r.id not in needed and image_key(r.id) not in clones),
        ]


def _named_snapshots(snapshots: Iterable[SnapshotRecord]) -> str:
    visible = [s.name for s in snapshots if s.state is State.READY]
    if visible:
        return f"snapshots: {_listed(visible)}"
    return "deleted snapshots that clones still need"


def _clone_name(clone: DatasetRecord) -> str:
    kept = " (deleted, kept for its own clones)" if clone.state is State.DELETED else ""
    return f"{clone.kind} {clone.name!r}{kept}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
