"""The object paths of things other properties name; what is not on the bus is ``/``."""

from __future__ import annotations

from .. import names
from ..core.catalog import Catalog
from ..model import Snapshot, Template, Volume


def path_of(catalog: Catalog, object_id: str) -> str:
    """The path of a volume, snapshot or template; ``/`` when there is none with this id."""
    if not (object_id and catalog.exists(object_id)):
        return names.NO_OBJECT
    match catalog.find(object_id):
        case Volume():
            return names.volume_path(object_id)
        case Snapshot():
            return names.snapshot_path(object_id)
        case Template():
            return names.template_path(object_id)
