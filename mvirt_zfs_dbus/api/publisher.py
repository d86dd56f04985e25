"""What is on the bus: the catalog's events, and nothing else, change the object tree."""

from __future__ import annotations

from .. import names
from ..bus.interface import Interface
from ..bus.objects import ObjectTree
from ..core.events import Change, Event, ObjectKind
from ..core.service import Service
from .job import COMPLETED, JobInterface
from .manager import ManagerInterface
from .pool import PoolInterface
from .snapshot import SnapshotInterface
from .template import TemplateInterface
from .volume import VolumeInterface


class Publisher:
    """Made before the service starts, so that it sees every object appear."""

    def __init__(self, service: Service, tree: ObjectTree) -> None:
        self._service = service
        self._tree = tree
        self._interfaces: dict[ObjectKind, Interface] = {
            ObjectKind.POOL: PoolInterface(service),
            ObjectKind.VOLUME: VolumeInterface(service),
            ObjectKind.SNAPSHOT: SnapshotInterface(service),
            ObjectKind.TEMPLATE: TemplateInterface(service),
            ObjectKind.JOB: JobInterface(service),
        }
        tree.add(names.ROOT, "", [ManagerInterface(service)])
        pool = service.catalog.pool.name
        tree.add(names.pool_path(pool), pool, [self._interfaces[ObjectKind.POOL]])
        service.events.subscribe(self._show)

    def _show(self, event: Event) -> None:
        path = _path(event)
        match event.change:
            case Change.ADDED:
                self._tree.add(path, event.id, [self._interfaces[event.kind]])
            case Change.REMOVED:
                self._tree.remove(path)
            case Change.CHANGED:
                self._tree.changed(path)
            case Change.COMPLETED:
                self._completed(path, event.id)
        if event.kind is ObjectKind.JOB:
            self._tree.changed(names.ROOT)

    def _completed(self, path: str, job_id: str) -> None:
        """The tree tells the last properties before it sends the signal."""
        job = self._service.jobs.get(job_id)
        self._tree.emit(
            path,
            names.Interface.JOB,
            COMPLETED.name,
            str(job.state),
            job.error_name,
            job.error_message,
        )


def _path(event: Event) -> str:
    if event.kind is ObjectKind.POOL:
        return names.pool_path(event.id)
    return names.object_path(event.kind, event.id)
