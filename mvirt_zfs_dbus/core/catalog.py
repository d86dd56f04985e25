"""Everything that exists, in memory. Its differences are the events that clients see.

Two hands write here: an operation that changed something (``put``, ``remove``), and a scan of the
whole store (``begin_scan``, ``merge``). A scan takes time, so what an operation touched meanwhile
is newer than what the scan saw and stays as the operation left it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from ..errors import AlreadyExists, LimitsExceeded, NotFound
from ..model import Kind, Pool, Snapshot, Template, Usage, Volume
from ..store.base import Inventory
from .events import Change, Events, ObjectKind
from .relations import Relations, Thing

T = TypeVar("T", Volume, Snapshot, Template)

_KINDS: Mapping[type[Thing], ObjectKind] = {
    Volume: ObjectKind.VOLUME,
    Snapshot: ObjectKind.SNAPSHOT,
    Template: ObjectKind.TEMPLATE,
}


class Catalog:
    def __init__(self, pool: Pool, events: Events, limit: int) -> None:
        """``limit``: how many objects there may be before no more are made."""
        self.pool = pool
        self._limit = limit
        self._events = events
        self._things: dict[str, Thing] = {}
        self._found: dict[str, Thing] = {}
        """What the last scan found. Usage counters in it are as old as the scan that read them."""
        self._since_found: set[str] = set()
        """What operations touched since, which the next scan has to confirm."""
        self._relations = Relations()
        self._reserved_names: set[tuple[str, str]] = set()
        self._reserved_ids: set[str] = set()
        self._scans: list[set[str]] = []

    # Reading

    def volume(self, volume_id: str) -> Volume:
        return self._get(Volume, volume_id)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        return self._get(Snapshot, snapshot_id)

    def template(self, template_id: str) -> Template:
        return self._get(Template, template_id)

    def find_volume(self, name_or_id: str) -> Volume:
        return self._find(Volume, Kind.VOLUME, name_or_id)

    def find_template(self, name_or_id: str) -> Template:
        return self._find(Template, Kind.TEMPLATE, name_or_id)

    def all(self, kind: type[T]) -> list[T]:
        """Everything of a kind, in the order of creation."""
        found = [thing for thing in self._things.values() if isinstance(thing, kind)]
        return sorted(found, key=_age)

    def exists(self, object_id: str) -> bool:
        return object_id in self._things

    def is_taken(self, object_id: str) -> bool:
        """Whether something has this id, or is being made with it."""
        return object_id in self._things or object_id in self._reserved_ids

    def find(self, object_id: str) -> Thing:
        """Whatever has this id."""
        if thing := self._things.get(object_id):
            return thing
        raise NotFound(f"there is nothing with the id {object_id}")

    def snapshots_of(self, volume_id: str) -> list[Snapshot]:
        """A volume's snapshots, the oldest first."""
        return sorted(map(self.snapshot, self._relations.snapshots_of(volume_id)), key=_age)

    def clones_of(self, origin_id: str) -> list[str]:
        """The ids of a template's volumes or of a snapshot's templates, sorted."""
        return sorted(self._relations.clones_of(origin_id))

    def count(self, kind: type[Thing]) -> int:
        return self._relations.counts[kind]

    @property
    def provisioned(self) -> int:
        """The sum of all volumes' sizes, in bytes."""
        return self._relations.provisioned

    # Names and ids that are spoken for

    @contextmanager
    def reserve(self, scope: str, name: str, object_id: str) -> Iterator[None]:
        """Hold a name and an id for something that is being made.

        ``scope`` is where the name is unique: a :class:`~mvirt_zfs_dbus.model.Kind`, or a volume's
        id for its snapshots. AlreadyExists: one of them is taken or held. LimitsExceeded: there are
        as many objects as there may be.
        """
        if self.is_taken(object_id):
            raise AlreadyExists(f"the id {object_id} is taken; choose another, or none")
        if len(self._things) + len(self._reserved_ids) >= self._limit:
            raise LimitsExceeded(
                f"there are {self._limit} volumes, templates and snapshots; delete some, or let the"
                " administrator raise max-objects"
            )
        with self.reserve_name(scope, name):
            self._reserved_ids.add(object_id)
            try:
                yield
            finally:
                self._reserved_ids.discard(object_id)

    @contextmanager
    def reserve_name(self, scope: str, name: str) -> Iterator[None]:
        """Hold a name for something that has its id already."""
        if (scope, name) in self._reserved_names or self._relations.named(scope, name):
            raise AlreadyExists(f"the name {name!r} is taken; choose another")
        self._reserved_names.add((scope, name))
        try:
            yield
        finally:
            self._reserved_names.discard((scope, name))

    # Changes by our own operations

    def put(self, thing: Thing) -> None:
        """Something was made, or is otherwise than it was."""
        self._touch(thing.id)
        self._put(thing)

    def remove(self, object_id: str) -> None:
        """Something is gone, and a volume's snapshots with it. Gone already is no error."""
        for snapshot_id in [*self._relations.snapshots_of(object_id), object_id]:
            self._touch(snapshot_id)
            self._remove(snapshot_id)

    def put_pool(self, pool: Pool) -> None:
        changed = pool != self.pool or pool.usage.size != self.pool.usage.size
        self.pool = pool
        if changed:
            self._pool_changed()

    def put_usage(self, object_id: str, usage: Usage) -> None:
        """Usage counters were read. Nobody is told: they are not what a change is."""
        if thing := self._things.get(object_id):
            self._things[object_id] = replace(thing, usage=usage)

    # Changes found by a scan

    @contextmanager
    def scanning(self) -> Iterator[set[str]]:
        """Remember what operations touch while the store is scanned; for :meth:`merge`."""
        touched: set[str] = set()
        self._scans.append(touched)
        try:
            yield touched
        finally:
            self._scans = [scan for scan in self._scans if scan is not touched]

    def merge(self, found: Inventory, touched: set[str]) -> int:
        """Make the catalog what a scan found; the answer is how many objects had drifted.

        What a scan did not read again it gives as it was found before; that is passed by.
        """
        present: dict[str, Thing] = {**found.volumes, **found.snapshots, **found.templates}
        gone = [id for id in self._things if id not in present and id not in touched]
        unconfirmed = self._since_found - touched
        news = [
            thing
            for id, thing in present.items()
            if id in unconfirmed or (thing is not self._found.get(id) and id not in touched)
        ]
        self._found = present
        self._since_found &= touched
        drifted = len(gone) + sum(self._things.get(thing.id) != thing for thing in news)
        for object_id in gone:
            self._remove(object_id)
        for thing in news:
            self._put(thing)
        drifted += self.pool != found.pool
        self.put_pool(found.pool)
        return drifted

    # The events

    def _put(self, thing: Thing) -> None:
        before = self._things.get(thing.id)
        self._things[thing.id] = thing
        if before == thing:
            return  # but for its usage
        if before is not None:
            self._relations.remove(before)
        self._relations.add(thing)
        change = Change.ADDED if before is None else Change.CHANGED
        self._events.emit(change, _KINDS[type(thing)], thing.id)
        self._relatives_changed(thing)

    def _remove(self, object_id: str) -> None:
        thing = self._things.pop(object_id, None)
        if thing is not None:
            self._relations.remove(thing)
            self._events.emit(Change.REMOVED, _KINDS[type(thing)], object_id)
            self._relatives_changed(thing)

    def _relatives_changed(self, thing: Thing) -> None:
        """Tell of the objects whose properties name this one or count it."""
        relatives = self._relations.clones_of(thing.id) | self._relations.made_from(thing.id)
        for object_id in sorted(relatives):
            self._changed(object_id)
        if isinstance(thing, Snapshot):
            self._changed(thing.volume_id)
        else:
            self._changed(thing.origin_id)
            self._pool_changed()

    def _changed(self, object_id: str) -> None:
        if thing := self._things.get(object_id):
            self._events.emit(Change.CHANGED, _KINDS[type(thing)], object_id)

    def _pool_changed(self) -> None:
        self._events.emit(Change.CHANGED, ObjectKind.POOL, self.pool.name)

    def _touch(self, object_id: str) -> None:
        self._since_found.add(object_id)
        for touched in self._scans:
            touched.add(object_id)

    def _get(self, kind: type[T], object_id: str) -> T:
        thing = self._things.get(object_id)
        if not isinstance(thing, kind):
            raise NotFound(f"there is no {_KINDS[kind]} with the id {object_id}")
        return thing

    def _find(self, kind: type[T], scope: str, name_or_id: str) -> T:
        for object_id in (name_or_id.lower(), self._relations.named(scope, name_or_id)):
            thing = self._things.get(object_id)
            if isinstance(thing, kind):
                return thing
        raise NotFound(f"there is no {_KINDS[kind]} with the name or id {name_or_id!r}")


def _age(thing: Thing) -> tuple[int, str]:
    return (thing.created_at, thing.id)
