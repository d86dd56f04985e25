"""What every store does, and what it says when something changed.

A store is the only thing that touches disks. It keeps to these rules, which ``tests/contract/``
holds each store to:

- **The pool is the database.** A dataset's name, kind, labels and provenance live with it and are
  written in the same step that makes it. What is not ours is never listed and never touched.
- **Nothing half-made survives.** A target that is being written is invisible until ``publish``
  makes it whole in one step; :meth:`Store.start` destroys the targets a crash left behind.
- **Dependents are refused, never destroyed along.** The store itself refuses what has snapshots or
  clones, whatever its caller checked before.
- **Methods are atomic to their caller.** An error means that nothing was changed; cancelling a
  method leaves it either done or undone.

Methods raise the errors of :mod:`mvirt_zfs_dbus.errors`; an id that does not exist (any more) is
NotFound, a pool that cannot be reached is PoolUnavailable, a full one NoSpace.

A store may be one that services on several hosts share. Callers keep names unique and operations on
one dataset in order among themselves; what another host does meanwhile is the store's to find:

- an id or a name that another host took first is AlreadyExists, from whatever makes or renames;
- a dataset that another host is working on is DeviceBusy;
- a target that another host is writing is not one that a crash left behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import InvalidSize
from ..model import Kind, Pool, Snapshot, Template, Usage, User, Volume


@dataclass(frozen=True, slots=True)
class NewDataset:
    """A volume or template to make. Sizes are already rounded and names already allowed."""

    id: str
    name: str
    size: int
    """Bytes; a multiple of ``block_size``."""
    block_size: int
    thin: bool = True
    compression: str = ""
    """A name zfsprops(7) knows; empty for what the pool inherits."""
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    checksum: str = ""
    created_at: int = 0
    """Microseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class NewClone:
    """A volume cloned from a template, or a template cloned from a snapshot."""

    id: str
    name: str
    size: int = 0
    """Bytes; 0 for the size of what it is cloned from, never less than that."""
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: int = 0

    def size_of(self, cloned: str, least: int) -> int:
        """In bytes, when it is made of what is ``cloned``, which has ``least``. InvalidSize."""
        if 0 < self.size < least:
            raise InvalidSize(
                f"size {self.size} is smaller than {cloned} of {least} bytes; a clone has at least"
                " those"
            )
        return self.size or least


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything of ours that exists in the pool, published and not deleted."""

    pool: Pool
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    templates: Mapping[str, Template] = field(default_factory=dict)


class Store(Protocol):
    """See the module's text. Every id is a UUID in lower case with dashes."""

    pool_name: str

    # Life

    async def start(self) -> None:
        """Open the pool, destroy every target that nobody is writing any more and that was left
        unpublished, collect what was deferred.

        PoolUnavailable: there is no such pool or directory, or another service has it open.
        """

    async def close(self) -> None:
        """Let go of the pool. Targets still open are the caller's to abandon first."""

    def watch(self) -> AsyncIterator[None]:
        """Yield once after every change in the pool that may not be this store's own doing.

        From this call on, which may come before :meth:`start`; what came earlier, a :meth:`rescan`
        finds. Changes that come close together may yield once. The answer is to
        :meth:`rescan`. The iterator ends when the store is closed.
        """

    # Reading

    async def scan(self) -> Inventory:
        """Everything that exists. What changes meanwhile, a watcher is told of.

        With the pool lost, the inventory is empty but for a pool whose health says so.
        """

    async def rescan(self) -> Inventory:
        """As :meth:`scan`, for what a watcher was told of or this store did since the last one.

        A store may answer the rest as it was then, usage included, instead of reading it again.
        """

    async def pool(self) -> Pool:
        """The pool's health and usage, fresh."""

    async def usage(self, dataset_id: str, snapshot_id: str = "") -> Usage:
        """What a volume or template occupies, or one of its snapshots, fresh."""

    async def users(self, dataset_id: str) -> list[User]:
        """The processes of this host that hold the disk open, this service's own not counted."""

    # Volumes

    def new_id(self) -> str:
        """A UUID for a volume that is about to be made: one for which a store has already done what
        it does for each, where it does something."""

    async def create_volume(self, new: NewDataset) -> Volume:
        """A new volume that reads as zeros. Its ``device`` exists when this returns; it is empty
        where a store's volumes have none on this host."""

    async def resize(self, volume_id: str, size: int) -> Volume:
        """Grow a volume to ``size`` bytes, a multiple of its block size. WouldShrink."""

    async def destroy_volume(self, volume_id: str, *, snapshots: bool, defer: bool) -> None:
        """Destroy a volume, with its snapshots if ``snapshots``.

        With ``defer`` a volume whose snapshots have clones is gone from the inventory at once, and
        its space goes with the last clone. HasSnapshots, HasClones, DeviceBusy.
        """

    async def rename(self, dataset_id: str, name: str) -> None:
        """Give a volume or template another name. Nothing else of it changes."""

    async def set_labels(self, dataset_id: str, labels: Mapping[str, str]) -> None:
        """Replace all labels of a volume or template."""

    # Snapshots

    async def create_snapshot(
        self, volume_id: str, snapshot_id: str, name: str, created_at: int
    ) -> Snapshot:
        """A snapshot of the volume as it is now."""

    async def rollback(self, snapshot_id: str, *, destroy_newer: bool) -> Volume:
        """Turn the volume back to the snapshot, its size included.

        NewerSnapshots without ``destroy_newer``; HasClones for newer ones with clones even with
        it; DeviceBusy.
        """

    async def destroy_snapshot(self, snapshot_id: str, *, defer: bool) -> None:
        """Destroy a snapshot. HasClones, unless ``defer``: then it goes with its last clone."""

    # Templates

    async def clone(self, template_id: str, new: NewClone) -> Volume:
        """A copy-on-write clone of a template; its device exists when this returns."""

    async def template_from_snapshot(self, snapshot_id: str, new: NewClone) -> Template:
        """A template that is a copy-on-write clone of a snapshot."""

    async def copy_to_template(
        self, snapshot_id: str, new: NewClone, progress: Callable[[int, int], None]
    ) -> Template:
        """A template that is an independent full copy of a snapshot.

        ``progress(done, total)`` is called on the event loop with bytes. Cancelling this leaves
        nothing.
        """

    async def destroy_template(self, template_id: str, *, defer: bool) -> None:
        """Destroy a template. HasClones, unless ``defer``: then its space goes with the last."""

    # Import targets: a disk that is written before it exists for anybody else

    async def create_target(self, kind: Kind, new: NewDataset) -> None:
        """An unpublished volume or template that reads as zeros."""

    async def open_target(self, dataset_id: str) -> int:
        """A file descriptor, readable and writable, of the target's disk; the caller closes it."""

    async def resize_target(self, dataset_id: str, size: int) -> None:
        """Grow or cut an unpublished target, for a source whose size is known at its end only."""

    async def publish(self, dataset_id: str) -> Volume | Template:
        """Make a written target exist, in one step. Its disk has been synced before."""

    async def abandon(self, dataset_id: str) -> None:
        """Destroy an unpublished target. One that does not exist (any more) is no error."""

    async def open_spool(self) -> int:
        """A file descriptor of an unnamed temporary file with room for a large part of an image: in
        the pool, or where a store without files has them. The caller closes it."""

    async def collect(self) -> None:
        """Destroy what was deferred and has no clones any more."""
