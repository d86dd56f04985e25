"""What the service should do, as a few dictionaries: volumes, snapshots, templates, clones.

It knows no bus, no file and no time. Each operation answers the last part of the error's name, or
"" when it has done what was asked; then nothing was changed in the first case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_BLOCK = 16384
LARGEST = 2**63 - 2**17


def rounded(size: int, block: int) -> int:
    return -(-size // block) * block


@dataclass
class Snapshot:
    id: str
    name: str
    volume: str
    size: int
    content: bytes
    hidden: bool = False


@dataclass
class Dataset:
    id: str
    name: str
    size: int
    block: int = DEFAULT_BLOCK
    thin: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    """What it begins with; zeros follow."""
    origin: str = ""
    """A volume's template, a template's snapshot."""
    source_volume: str = ""
    source: str = ""
    snapshots: list[str] = field(default_factory=list)
    """The oldest first, hidden ones too."""
    hidden: bool = False
    """Deleted, and kept for its clones."""


class Model:
    def __init__(self) -> None:
        self.volumes: dict[str, Dataset] = {}
        self.templates: dict[str, Dataset] = {}
        self.snapshots: dict[str, Snapshot] = {}

    # What there is to see

    def visible(self, kind: Mapping[str, Dataset]) -> dict[str, Dataset]:
        return {id: found for id, found in kind.items() if not found.hidden}

    def visible_snapshots(self) -> dict[str, Snapshot]:
        return {
            id: found
            for id, found in self.snapshots.items()
            if not (found.hidden or self.volumes[found.volume].hidden)
        }

    def clones(self, origin: str) -> list[str]:
        """What was cloned from it, hidden or not."""
        datasets = [*self.volumes.values(), *self.templates.values()]
        return [found.id for found in datasets if found.origin == origin]

    # Volumes

    def create(self, id: str, name: str, size: int, block: int, thin: bool, labels: dict) -> str:
        if block not in {2**n for n in range(9, 18)}:
            return "InvalidSize"
        size_wanted = rounded(size, block)
        if not 0 < size_wanted <= LARGEST:
            return "InvalidSize"
        known = self.volumes.get(id)
        if known and not known.hidden and (known.name, known.size) == (name, size_wanted):
            return ""
        if error := self._taken(self.volumes, id, name):
            return error
        self.volumes[id] = Dataset(id, name, size_wanted, block, thin, labels)
        return ""

    def import_volume(
        self, id: str, name: str, size: int | None, content: bytes, labels: dict
    ) -> str:
        """The error of the call, or of its job."""
        if size is not None and not 0 < rounded(size, DEFAULT_BLOCK) <= LARGEST:
            return "InvalidSize"
        if error := self._taken(self.volumes, id, name):
            return error
        if size and rounded(size, DEFAULT_BLOCK) < len(content):
            return "InvalidSize"
        whole = rounded(size or len(content), DEFAULT_BLOCK)
        self.volumes[id] = Dataset(id, name, whole, labels=labels, content=content, source="fd")
        return ""

    def resize(self, id: str, size: int) -> str:
        volume = self.volumes[id]
        wanted = rounded(size, volume.block)
        if not 0 < wanted <= LARGEST:
            return "InvalidSize"
        if wanted < volume.size:
            return "WouldShrink"
        volume.size = wanted
        return ""

    def rename(self, kind: Mapping[str, Dataset], id: str, name: str) -> str:
        if kind[id].name != name and self._named(kind, name):
            return "AlreadyExists"
        kind[id].name = name
        return ""

    def delete_volume(self, id: str, snapshots: bool, defer: bool) -> str:
        held = self.volumes[id].snapshots
        if held and not snapshots:
            return "HasSnapshots"
        if not defer and any(self.clones(snapshot) for snapshot in held):
            return "HasClones"
        self.volumes[id].hidden = True
        self._collect()
        return ""

    # Snapshots

    def create_snapshot(self, id: str, volume_id: str, name: str) -> str:
        volume = self.volumes[volume_id]
        taken = [self.snapshots[s] for s in volume.snapshots]
        if any(s.name == name and not s.hidden for s in taken) or self._known(id):
            return "AlreadyExists"
        self.snapshots[id] = Snapshot(id, name, volume_id, volume.size, volume.content)
        volume.snapshots.append(id)
        return ""

    def delete_snapshot(self, id: str, defer: bool) -> str:
        if self.clones(id) and not defer:
            return "HasClones"
        self.snapshots[id].hidden = True
        self._collect()
        return ""

    def rollback(self, id: str, destroy_newer: bool) -> str:
        snapshot = self.snapshots[id]
        volume = self.volumes[snapshot.volume]
        newer = volume.snapshots[volume.snapshots.index(id) + 1 :]
        if any(not self.snapshots[s].hidden for s in newer) and not destroy_newer:
            return "NewerSnapshots"
        if any(self.clones(s) for s in newer):
            return "HasClones"
        for each in newer:
            self.snapshots[each].hidden = True
        volume.size, volume.content = snapshot.size, snapshot.content
        self._collect()
        return ""

    # Templates

    def create_template(
        self, id: str, snapshot_id: str, name: str, labels: dict, copy: bool
    ) -> str:
        if error := self._taken(self.templates, id, name):
            return error
        snapshot = self.snapshots[snapshot_id]
        volume = self.volumes[snapshot.volume]
        self.templates[id] = Dataset(
            id,
            name,
            snapshot.size,
            volume.block,
            labels=labels,
            content=snapshot.content,
            origin="" if copy else snapshot_id,
            source_volume=volume.id,
        )
        return ""

    def clone(self, id: str, template_id: str, name: str, size: int | None, labels: dict) -> str:
        template = self.templates[template_id]
        wanted = template.size if size is None else rounded(size, template.block)
        if wanted < template.size or wanted > LARGEST:
            return "InvalidSize"
        if error := self._taken(self.volumes, id, name):
            return error
        self.volumes[id] = Dataset(
            id,
            name,
            wanted,
            template.block,
            labels=labels,
            content=template.content,
            origin=template_id,
        )
        return ""

    def delete_template(self, id: str, defer: bool) -> str:
        if self.clones(id) and not defer:
            return "HasClones"
        self.templates[id].hidden = True
        self._collect()
        return ""

    # What is behind

    def _known(self, id: str) -> bool:
        return id in self.volumes or id in self.templates or id in self.snapshots

    def _named(self, kind: Mapping[str, Dataset], name: str) -> bool:
        return any(found.name == name for found in self.visible(kind).values())

    def _taken(self, kind: Mapping[str, Dataset], id: str, name: str) -> str:
        return "AlreadyExists" if self._known(id) or self._named(kind, name) else ""

    def _collect(self) -> None:
        """Remove what is hidden and has no clones, again and again until all of it has."""
        while self._collect_some():
            pass

    def _collect_some(self) -> bool:
        snapshots = [
            found
            for found in self.snapshots.values()
            if (found.hidden or self.volumes[found.volume].hidden) and not self.clones(found.id)
        ]
        for snapshot in snapshots:
            del self.snapshots[snapshot.id]
            self.volumes[snapshot.volume].snapshots.remove(snapshot.id)
        volumes = [v for v in self.volumes.values() if v.hidden and not v.snapshots]
        for volume in volumes:
            del self.volumes[volume.id]
        templates = [t for t in self.templates.values() if t.hidden and not self.clones(t.id)]
        for template in templates:
            del self.templates[template.id]
        return bool(snapshots or volumes or templates)
