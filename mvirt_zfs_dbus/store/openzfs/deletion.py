"""Destroying volumes, snapshots and templates, and turning volumes back.

Each is one channel program, which refuses before it changes anything; here a refusal becomes the
error that names what stands in the way. Snapshots and clones that are not of this service stand in
the way as well: they are never destroyed along. So do bookmarks, which are never ours.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress

from ...errors import DeviceBusy, Error, HasClones, HasSnapshots, NewerSnapshots, NotFound
from ...model import Kind
from . import changes, programs
from .busy import when_free
from .kernel import Kernel, ProgramFailed
from .programs import Outcome
from .rows import read_datasets

_log = logging.getLogger(__name__)


class Deletion:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.deleted: set[str] = set()
        """The datasets that are gone for everybody and wait for their last clone."""
        self._broken_off = False
        """Whether one of ours may have been broken off, by a signal to this process."""

    async def destroy(self, kind: Kind, dataset_id: str, *, snapshots: bool, defer: bool) -> None:
        dataset = f"{self._kernel.root}/{dataset_id}"
        try:
            outcome = await when_free(
                self._kernel,
                f"destroy {dataset}",
                changes.DESTROY,
                dataset=dataset,
                kind=str(kind),
                snapshots=snapshots,
                defer=defer,
            )
        except Error:
            self._broken_off = True
            raise
        if outcome.refused:
            raise await self._refusal(outcome, f"{kind} {dataset_id}", HasSnapshots)
        if outcome.done == "deferred":
            self.deleted.add(dataset)
        await self.collect()

    async def destroy_snapshot(self, volume: str, snapshot_id: str, *, defer: bool) -> None:
        name = f"{volume}@{snapshot_id}"
        outcome = await self._kernel.change(
            f"destroy {name}", changes.DESTROY_SNAPSHOT, snapshot=name, defer=defer
        )
        if outcome.refused:
            raise await self._refusal(outcome, f"snapshot {snapshot_id}", HasSnapshots)

    async def rollback(self, volume: str, snapshot_id: str, *, destroy_newer: bool) -> None:
        bookmarks = await self._kernel.bookmarks(volume)
        outcome = await when_free(
            self._kernel,
            f"roll back {volume}",
            changes.ROLLBACK,
            dataset=volume,
            snapshot=f"{volume}@{snapshot_id}",
            destroy_newer=destroy_newer,
            bookmarks={name: str(moment) for name, moment in bookmarks.items()},
        )
        if outcome.refused:
            raise await self._refusal(outcome, f"snapshot {snapshot_id}", NewerSnapshots)

    async def finish(self, deleted: set[str]) -> None:
        """The deletions that a service before this one began."""
        self.deleted, self._broken_off = deleted, True
        await self.collect()

    async def collect(self) -> None:
        """What nothing holds any more, and what is left of a deletion that was broken off."""
        if not self.deleted:
            return
        finish, self._broken_off = self._broken_off, False
        names = sorted(self.deleted)
        try:
            outcome = await self._kernel.change(
                "collect what was deleted", changes.COLLECT, names=names, finish=finish
            )
        except Error:
            self._broken_off = finish
            raise
        self.deleted.difference_update(outcome.names)

    async def _refusal(self, outcome: Outcome, what: str, in_the_way: type[Error]) -> Error:
        """The error for a refusal; ``in_the_way`` is what snapshots are for this operation."""
        match outcome.refused:
            case "missing":
                return NotFound(f"there is no {what}")
            case "clones":
                return HasClones(f"{what} has clones: {await self._named(outcome.names)}")
            case "snapshots":
                return HasSnapshots(f"{what} has snapshots: {await self._named(outcome.names)}")
            case "newer":
                newer = await self._named(outcome.names)
                return NewerSnapshots(f"newer than {what} and destroyed by a rollback: {newer}")
            case "foreign":
                return in_the_way(
                    f"{what} has snapshots that are not of this service:"
                    f" {', '.join(outcome.names)}; zfs destroy removes them"
                )
            case "bookmarks":
                return in_the_way(
                    f"{what} has newer bookmarks, and ZFS cannot turn back beyond them:"
                    f" {', '.join(outcome.names)}; zfs destroy removes them"
                )
            case "held":
                return DeviceBusy(f"{what} is held or being copied: {', '.join(outcome.names)}")
            case _:
                return Error(f"{what}: ZFS refuses: {outcome.refused}")

    async def _named(self, names: Iterable[str]) -> str:
        """Datasets or snapshots as people call them; what is not ours goes by ZFS's name."""
        datasets = sorted({name.partition("@")[0] for name in names})
        called: dict[str, str] = {}
        with suppress(ProgramFailed):  # what cannot be read still stands in the way
            answer = await self._kernel.read(programs.SCAN, names=datasets)
            for row in read_datasets(answer):
                called[row.dataset] = row.metadata.name
                called.update((f"{row.dataset}@{s.name}", s.metadata.name) for s in row.snapshots)
        return ", ".join(repr(called[name]) if called.get(name) else name for name in names)
