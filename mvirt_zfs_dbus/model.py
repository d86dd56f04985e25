"""What exists: pools, volumes, snapshots, templates and jobs, as frozen values. No I/O.

Sizes are bytes, times are microseconds since the epoch, ids are UUIDs in lower case with dashes.
A field marked ``compare=False`` is a usage counter: it moves with every guest write, so two values
that differ in nothing else are the same to whoever looks for changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What a dataset of ours is to its users."""

    VOLUME = "volume"
    TEMPLATE = "template"


@dataclass(frozen=True, slots=True)
class Usage:
    """What an object occupies in its pool, in bytes after compression."""

    used: int = 0
    referenced: int = 0
    compression_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """The pool's space, in bytes."""

    size: int = 0
    allocated: int = 0
    free: int = 0
    available: int = 0
    compression_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Pool:
    name: str
    """As the administrator gave it; may be a nested dataset (``tank/vm``)."""
    health: str
    """zpool(8)'s words: ONLINE, DEGRADED, FAULTED, OFFLINE, REMOVED, UNAVAIL, SUSPENDED."""
    usage: PoolUsage = field(default=PoolUsage(), compare=False)


@dataclass(frozen=True, slots=True)
class Dataset:
    """What volumes and templates have in common: one disk in the pool."""

    id: str
    name: str
    size: int
    block_size: int
    created_at: int
    device: str
    """Where the disk's bytes are: a block device, or a raw file in the directory store."""
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    """The path or URL it was imported from, or `fd`; empty when it was not."""
    checksum: str = ""
    """The digest its source was checked against (``sha256:HEX``); empty when it was not."""
    thin: bool = True
    usage: Usage = field(default=Usage(), compare=False)


@dataclass(frozen=True, slots=True)
class Volume(Dataset):
    origin_id: str = ""
    """The template this volume is a clone of; empty when it is none."""


@dataclass(frozen=True, slots=True)
class Template(Dataset):
    origin_id: str = ""
    """The snapshot this template is a copy-on-write clone of; empty for an independent one."""
    source_volume_id: str = ""
    """The volume it was made from, which may be gone since."""
    snapshot: str = ""
    """What volumes are cloned from: ``POOL/UUID@img``."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    id: str
    name: str
    volume_id: str
    size: int
    """The volume's size when the snapshot was taken."""
    created_at: int
    usage: Usage = field(default=Usage(), compare=False)


class JobState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class Operation(StrEnum):
    IMPORT_VOLUME = "import-volume"
    IMPORT_TEMPLATE = "import-template"
    COPY_TEMPLATE = "copy-template"


class Phase(StrEnum):
    NONE = ""
    DOWNLOADING = "downloading"
    CONVERTING = "converting"
    WRITING = "writing"
    VERIFYING = "verifying"


@dataclass(frozen=True, slots=True)
class Job:
    id: str
    operation: Operation
    name: str
    """The name of the volume or template it makes."""
    source: str
    uid: int
    """Who started it."""
    state: JobState = JobState.PENDING
    phase: Phase = Phase.NONE
    bytes_done: int = 0
    bytes_total: int = 0
    """0: unknown."""
    rate: int = 0
    """Bytes per second, lately."""
    started_at: int = 0
    """0 while it is pending."""
    expected_end_at: int = 0
    """0: unknown."""
    finished_at: int = 0
    """0 until it is finished."""
    target_id: str = ""
    """The id its volume or template has, or will have."""
    error_name: str = ""
    error_message: str = ""

    @property
    def kind(self) -> Kind:
        """What it makes."""
        return Kind.VOLUME if self.operation is Operation.IMPORT_VOLUME else Kind.TEMPLATE

    @property
    def progress(self) -> float:
        """0 to 1; 0 while the total is unknown."""
        if self.state is JobState.DONE:
            return 1.0
        return min(self.bytes_done / self.bytes_total, 1.0) if self.bytes_total else 0.0

    @property
    def progress_valid(self) -> bool:
        return self.bytes_total > 0 or self.state is JobState.DONE


@dataclass(frozen=True, slots=True)
class User:
    """A process that holds a disk open."""

    pid: int
    command: str
