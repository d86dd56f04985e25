"""Who is named how, and who hangs on whom: indexes over everything the catalog knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Set

from ..model import Kind, Snapshot, Template, Volume

Thing = Volume | Snapshot | Template


def scope_of(thing: Thing) -> str:
    """Where a thing's name is unique: among its kind, or among a volume's snapshots."""
    match thing:
        case Snapshot():
            return thing.volume_id
        case Volume():
            return Kind.VOLUME
        case Template():
            return Kind.TEMPLATE


class _Index:
    """Sets of ids under a key; a key with nothing under it takes no memory."""

    def __init__(self) -> None:
        self._ids: dict[Hashable, set[str]] = {}

    def __getitem__(self, key: Hashable) -> Set[str]:
        return self._ids.get(key, frozenset())

    def add(self, key: Hashable, object_id: str) -> None:
        self._ids.setdefault(key, set()).add(object_id)

    def discard(self, key: Hashable, object_id: str) -> None:
        ids = self._ids[key]
        ids.discard(object_id)
        if not ids:
            del self._ids[key]


class Relations:
    """Kept beside the catalog's things: each is added once, and removed as it was added."""

    def __init__(self) -> None:
        self._by_name = _Index()
        self._snapshots = _Index()
        self._clones = _Index()
        self._made_from = _Index()
        self.counts: Counter[type[Thing]] = Counter()
        self.provisioned = 0
        """The sum of all volumes' sizes, in bytes."""

    def add(self, thing: Thing) -> None:
        for index, key in self._entries(thing):
            index.add(key, thing.id)
        self._count(thing, 1)

    def remove(self, thing: Thing) -> None:
        for index, key in self._entries(thing):
            index.discard(key, thing.id)
        self._count(thing, -1)

    def named(self, scope: str, name: str) -> str:
        """The id of what has this name; empty when nothing has.

        Names are unique by our own doing; where another hand made two of a name, the lower id
        answers, every time.
        """
        return min(self._by_name[scope, name], default="")

    def snapshots_of(self, volume_id: str) -> Set[str]:
        return self._snapshots[volume_id]

    def clones_of(self, origin_id: str) -> Set[str]:
        """A template's volumes, or a snapshot's templates."""
        return self._clones[origin_id]

    def made_from(self, volume_id: str) -> Set[str]:
        """The templates that name this volume as their source."""
        return self._made_from[volume_id]

    def _entries(self, thing: Thing) -> Iterator[tuple[_Index, Hashable]]:
        yield self._by_name, (scope_of(thing), thing.name)
        match thing:
            case Snapshot():
                yield self._snapshots, thing.volume_id
            case Volume():
                yield self._clones, thing.origin_id
            case Template():
                yield self._clones, thing.origin_id
                yield self._made_from, thing.source_volume_id

    def _count(self, thing: Thing, by: int) -> None:
        self.counts[type(thing)] += by
        if isinstance(thing, Volume):
            self.provisioned += by * thing.size
