"""Everything the service has, at one moment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from ..names import NO_OBJECT
from .job import Job
from .objects import Pool, Snapshot, Template, Volume
from .remote import RemoteObject

Kind = TypeVar("Kind", bound=RemoteObject)


class Inventory:
    """What existed when it was read: by name, snapshots and jobs in the order they came."""

    def __init__(self, objects: Iterable[RemoteObject]) -> None:
        self.by_path = {each.path: each for each in objects}
        self.pools = sorted(self._of(Pool), key=lambda pool: pool.name)
        self.volumes = sorted(self._of(Volume), key=lambda volume: volume.name)
        self.templates = sorted(self._of(Template), key=lambda template: template.name)
        self.snapshots = sorted(
            self._of(Snapshot), key=lambda snapshot: (snapshot.created_at, snapshot.name)
        )
        # A pending job has not started yet, so it comes after all that have.
        self.jobs = sorted(self._of(Job), key=lambda job: (not job.started_at, job.started_at))

    def _of(self, kind: type[Kind]) -> list[Kind]:
        return [each for each in self.by_path.values() if isinstance(each, kind)]

    def name_of(self, path: str) -> str:
        """The name of the object at ``path``; empty for none, the path where it is unknown."""
        if path == NO_OBJECT:
            return ""
        found = self.by_path.get(path)
        return path if found is None else str(found["Name"])
