"""What a dataset carries: ZFS properties, and ours among them, ``org.mvirt:…`` (zfsprops(7), User
Properties).

    org.mvirt:kind            volume, template, snapshot, image (a template's @img) or spool (.tmp)
    org.mvirt:name            what people call it
    org.mvirt:created         microseconds since the epoch, in decimal
    org.mvirt:labels          a JSON object of strings
    org.mvirt:source          where an import came from
    org.mvirt:checksum        what it was checked against
    org.mvirt:source-volume   the UUID of the volume a template was made from
    org.mvirt:state           importing (on .tmp, inherited by all below it) or deleted
    org.mvirt:intents         on .tmp: the ids of volumes that may stand half-made, see intents

Only a property set on the very dataset counts: a clone's parent has none, but an administrator may
have moved datasets about, and user properties are inherited.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from ...model import Kind
from ..base import NewClone, NewDataset

PREFIX: Final = "org.mvirt:"

SNAPSHOT: Final = "snapshot"
IMAGE: Final = "image"
SPOOL: Final = "spool"
IMPORTING: Final = "importing"
DELETED: Final = "deleted"

PIECE: Final = 8000
"""Bytes of a value that one property holds; zfsprops(7) allows 8191. A longer one goes on in
``key-1``, ``key-2`` …, and ends with the first piece that is shorter."""

Properties = dict[bytes, bytes | int]


class VolMode(IntEnum):
    """zfsprops(7), volmode; the numbers are ``zfs_volmode_t`` of sys/zfs_ioctl.h.

    Volumes are DEV: a disk whose partitions the host never scans, because they are the guest's.
    What nobody opens is NONE and has no device at all: a template, and what a power cut left
    directly below ``.tmp`` without its properties.
    """

    DEV = 2
    NONE = 3


CANMOUNT_NOAUTO: Final = 2

SNAPDEV_HIDDEN: Final = 0
"""zfsprops(7), snapdev; ``zfs_snapdev_t``. A snapshot's device, which the parent may want, would be
scanned by the host, and keep the snapshot from being destroyed meanwhile."""

_MOMENT: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
"""More digits do not fit into the 64 bits of a property on the bus."""
_UNSPEAKABLE: Final = re.compile("[\0\ud800-\udfff]")

_ZSTD: Final = 16
_ZSTD_FAST_1: Final = 103
_LEVEL_SHIFT: Final = 7
_ZSTD_FAST_LEVELS: Final = (*range(1, 11), *range(20, 101, 10), 500, 1000)


def _compressions() -> Iterator[tuple[str, int]]:
    yield from {"on": 1, "off": 2, "lzjb": 3, "gzip": 10, "zle": 14, "lz4": 15}.items()
    for level in range(1, 10):
        yield f"gzip-{level}", 4 + level
    yield "zstd", _ZSTD
    for level in range(1, 20):
        yield f"zstd-{level}", _ZSTD | level << _LEVEL_SHIFT
    yield "zstd-fast", _ZSTD | _ZSTD_FAST_1 << _LEVEL_SHIFT
    for position, level in enumerate(_ZSTD_FAST_LEVELS, _ZSTD_FAST_1):
        yield f"zstd-fast-{level}", _ZSTD | position << _LEVEL_SHIFT


COMPRESSIONS: Final[Mapping[str, int]] = dict(_compressions())
"""What the kernel wants for each name: ``enum zio_compress``, with a zstd level from bit 7 on
(``enum zio_zstd_levels``, sys/zio_compress.h)."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What our properties of one dataset or snapshot say."""

    kind: str
    name: str = ""
    created_at: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    checksum: str = ""
    source_volume_id: str = ""
    state: str = ""


def decode(values: Mapping[str, bytes]) -> Metadata:
    """Read properties by their names without the prefix; pieces are joined already.

    A value somebody else wrote there is taken as far as it can be read, and told to others: one
    that D-Bus has no words for would keep them from hearing of any volume.
    """
    texts = {key: value.decode(errors="replace") for key, value in values.items()}
    return Metadata(
        kind=texts.get("kind", ""),
        name=texts.get("name", ""),
        created_at=_read_moment(texts.get("created", "")),
        labels=_read_labels(texts.get("labels", "")),
        source=texts.get("source", ""),
        checksum=texts.get("checksum", ""),
        source_volume_id=texts.get("source-volume", ""),
        state=texts.get("state", ""),
    )


def pinned(volmode: VolMode) -> Properties:
    """What keeps a dataset's disk from the host, whatever its parent has or will have. ZFS takes a
    transaction group for each."""
    return {b"volmode": int(volmode), b"snapdev": SNAPDEV_HIDDEN}


def of_dataset(kind: Kind, new: NewDataset) -> Properties:
    """Everything a new zvol is made with, but for what pins it."""
    native: Properties = {b"volsize": new.size, b"volblocksize": new.block_size}
    if new.compression:
        native[b"compression"] = COMPRESSIONS[new.compression]
    return native | encode(
        {
            "kind": kind,
            "name": new.name,
            "created": str(new.created_at),
            "labels": labels_text(new.labels),
            "source": new.source,
            "checksum": new.checksum,
        }
    )


def of_clone(kind: Kind, new: NewClone, source_volume_id: str = "") -> Properties:
    """Everything a clone or a copy is made with, but for what pins it."""
    return encode(
        {
            "kind": kind,
            "name": new.name,
            "created": str(new.created_at),
            "labels": labels_text(new.labels),
            "source-volume": source_volume_id,
        }
    )


def of_snapshot(name: str, created_at: int) -> Properties:
    return encode({"kind": SNAPSHOT, "name": name, "created": str(created_at)})


def of_image() -> Properties:
    return encode({"kind": IMAGE})


def of_spool() -> Properties:
    """``.tmp``: mounted only by us, and what is made directly below it has no device of itself."""
    native: Properties = {
        b"mountpoint": b"legacy",
        b"canmount": CANMOUNT_NOAUTO,
        b"volmode": int(VolMode.NONE),
    }
    return native | encode({"kind": SPOOL, "state": IMPORTING})


def of_staged_volumes() -> Properties:
    """``.tmp/volumes``: what is made below it has its device at once."""
    return {b"volmode": int(VolMode.DEV)}


def encode(values: Mapping[str, str]) -> Properties:
    """Our properties by their full names; an empty value is left out."""
    return {
        name: piece
        for key, value in values.items()
        if value
        for name, piece in pieces(key, value.encode("utf-8", "surrogateescape"))
    }


def pieces(key: str, value: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The properties that hold one value together."""
    for number in range(len(value) // PIECE + 1):
        suffix = f"-{number}" if number else ""
        yield f"{PREFIX}{key}{suffix}".encode(), value[number * PIECE : (number + 1) * PIECE]


def labels_text(labels: Mapping[str, str]) -> str:
    return json.dumps(dict(sorted(labels.items())), ensure_ascii=False, separators=(",", ":"))


def _read_moment(text: str) -> int:
    return int(text) if _MOMENT.fullmatch(text) else 0


def _read_labels(text: str) -> dict[str, str]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        key: value
        for key, value in found.items()
        if isinstance(value, str) and _can_be_told(key) and _can_be_told(value)
    }


def _can_be_told(text: str) -> bool:
    """Whether D-Bus has it as a string: no NUL, no half of a surrogate pair."""
    return not _UNSPEAKABLE.search(text)
