"""What must exist in a pool, whatever the service was killed in the middle of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from mvirt_zfs_dbus.client import Inventory, ServiceUnreachable
from mvirt_zfs_dbus.errors import Error

UNSEEN = ""
"""The content of a disk that was not read: a template's, which has no device."""


def content(file: str | Path) -> str:
    """The digest of a disk's bytes up to the last that is not zero, so growing keeps it."""
    return hashlib.sha256(Path(file).read_bytes().rstrip(b"\0")).hexdigest()[:16]


EMPTY = hashlib.sha256(b"").hexdigest()[:16]


@dataclass(frozen=True)
class State:
    size: int
    content: str


@dataclass(frozen=True)
class Disk:
    """A volume or template as its user knows it."""

    kind: str
    now: State
    labels: Mapping[str, str] = field(default_factory=dict)
    snapshots: Mapping[str, State] = field(default_factory=dict)
    """By name, oldest first."""


class World:
    """Disks by name. An operation that was cut off leaves its disk as it was, or as it would be."""

    def __init__(self) -> None:
        self.disks: dict[str, Disk] = {}
        self.done = 0
        self.cut_off = 0
        self._under_way: dict[str, Disk | None] = {}
        self._touched: set[str] = set()

    def idle(self, kind: str) -> list[str]:
        """Names of the disks of a kind that nobody works on."""
        names = (name for name, disk in self.disks.items() if disk.kind == kind)
        return [name for name in names if name not in self._under_way]

    @contextmanager
    def operation(self, name: str, after: Disk | None) -> Iterator[None]:
        """A call that makes the disk what ``after`` is, None for gone, when it answers."""
        self._under_way[name] = after
        self._touched.add(name)
        try:
            yield
        except ServiceUnreachable:
            self.cut_off += 1
            raise
        except Error:  # refused, so all is as it was
            del self._under_way[name]
            raise
        self.done += 1
        self._set(name, self._under_way.pop(name))

    def written(self, name: str, device: str) -> None:
        """The disk's user wrote to it, in an operation that leaves it as it is."""
        now = replace(self.disks[name].now, content=content(device))
        self.disks[name] = self._under_way[name] = replace(self.disks[name], now=now)

    def check(self, inventory: Inventory, *, all_bytes: bool = False) -> None:
        """Holds what a restarted service has against what must be there.

        AssertionError for what is lost, half-made, changed or from nowhere. The bytes of what was
        not worked on since the last check are read with ``all_bytes`` only.
        """
        read = set(self.disks) | self._touched if all_bytes else self._touched
        found = _observed(inventory, read)
        for name in found.keys() | self.disks.keys() | self._under_way.keys():
            allowed = [self.disks.get(name)]
            if name in self._under_way:
                allowed.append(self._under_way[name])
            matching = [disk for disk in allowed if _same(found.get(name), disk)]
            assert matching, f"{name} is {found.get(name)}; it must be one of {allowed}"
            self._set(name, matching[0])
        self._under_way.clear()
        self._touched.clear()

    def _set(self, name: str, disk: Disk | None) -> None:
        if disk is None:
            self.disks.pop(name, None)
        else:
            self.disks[name] = disk


def _observed(inventory: Inventory, read: set[str]) -> dict[str, Disk]:
    """What the service shows, with the bytes of the volumes named in ``read``."""
    names = [disk.name for disk in (*inventory.volumes, *inventory.templates)]
    assert len(set(names)) == len(names), f"a name is there twice: {sorted(names)}"
    found = {}
    for volume in inventory.volumes:
        now = content(volume.device) if volume.name in read else UNSEEN
        snapshots = {
            snapshot.name: State(snapshot.size_bytes, UNSEEN)
            for snapshot in inventory.snapshots
            if snapshot.volume_path == volume.path
        }
        state = State(volume.size_bytes, now)
        found[volume.name] = Disk("volume", state, volume.labels, snapshots)
    for template in inventory.templates:
        state = State(template.size_bytes, UNSEEN)
        found[template.name] = Disk("template", state, template.labels)
    return found


def _same(seen: Disk | None, disk: Disk | None) -> bool:
    if seen is None or disk is None:
        return seen is disk
    pairs = [(seen.now, disk.now)]
    pairs += [(seen.snapshots[name], disk.snapshots.get(name)) for name in seen.snapshots]
    return (
        (seen.kind, seen.labels) == (disk.kind, disk.labels)
        and list(seen.snapshots) == list(disk.snapshots)
        and all(
            known is not None
            and state.size == known.size
            and state.content in (UNSEEN, known.content)
            for state, known in pairs
        )
    )
