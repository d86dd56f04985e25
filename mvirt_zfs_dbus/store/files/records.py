"""The metadata records of the directory store: JSON files beside the raw files they describe.

A record says everything about a dataset or snapshot but its size, which is the raw file's own. It
is read strictly: whatever is not exactly a record of this version is damaged, and what a damaged
record describes is left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from ... import rules
from ...errors import InvalidArgs
from ...model import Kind

VERSION: Final = 1

_UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_KEY: Final = re.compile(rf"({_UUID})(?:@({_UUID}))?", re.ASCII)


class State(StrEnum):
    IMPORTING = "importing"
    """Being made: nobody sees it, and the next start destroys it."""
    READY = "ready"
    DELETED = "deleted"
    """Destroyed, and kept for its clones only."""


@dataclass(frozen=True, slots=True)
class DatasetRecord:
    id: str
    kind: Kind
    state: State
    name: str
    block_size: int
    created_at: int
    thin: bool = True
    compression: str = ""
    """Kept for what asks for it; a raw file is not compressed by this store."""
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    checksum: str = ""
    origin: str = ""
    """What it is a clone of: a template's ``UUID@img`` or a snapshot's ``UUID@UUID``."""
    source_volume_id: str = ""

    @property
    def key(self) -> str:
        """What its files are named after."""
        return self.id


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    id: str
    volume_id: str
    state: State
    name: str
    created_at: int
    sequence: int
    """Its place in the order of its volume's snapshots; times can tie."""

    @property
    def key(self) -> str:
        return snapshot_key(self.volume_id, self.id)


Record = DatasetRecord | SnapshotRecord


class DamagedRecord(ValueError):
    """What is wrong with a file that should be a record."""


def snapshot_key(volume_id: str, snapshot_id: str) -> str:
    return f"{volume_id}@{snapshot_id}"


def image_key(template_id: str) -> str:
    """What volumes are cloned from. It is the template's raw file, immutable once published."""
    return f"{template_id}@img"


def is_key(text: str) -> bool:
    """Whether files of this name (without its suffix) can be ours."""
    return _KEY.fullmatch(text) is not None


def encode(record: Record) -> bytes:
    fields: dict[str, Any] = {
        name: getattr(record, name) for name in record.__slots__ if name not in ("id", "volume_id")
    }
    if isinstance(record, DatasetRecord):
        fields["labels"] = dict(record.labels)
    return json.dumps({"version": VERSION, **fields}, indent=1).encode() + b"\n"


def decode(key: str, data: bytes) -> Record:
    """The record in a file named after ``key``. DamagedRecord says what is wrong with it."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedRecord(f"no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise DamagedRecord("no JSON object")
    version = fields.pop("version", None)
    if version != VERSION or type(version) is not int:
        raise DamagedRecord(f"version {version!r}; this service reads version {VERSION}")
    return _decode_fields(key, fields)


def _decode_fields(key: str, fields: dict[str, Any]) -> Record:
    matched = _KEY.fullmatch(key)
    if matched is None:
        raise DamagedRecord(f"{key!r} is no name of a record")
    dataset_id, snapshot_id = matched.groups()
    record: Record
    if snapshot_id is None:
        record = _decode_dataset(dataset_id, fields)
    else:
        record = SnapshotRecord(
            id=snapshot_id,
            volume_id=dataset_id,
            state=_state(fields),
            name=_name(fields),
            created_at=_number(fields, "created_at"),
            sequence=_number(fields, "sequence"),
        )
    if fields:
        raise DamagedRecord(f"unknown fields {', '.join(map(repr, fields))}")
    return record


def _decode_dataset(dataset_id: str, fields: dict[str, Any]) -> DatasetRecord:
    record = DatasetRecord(
        id=dataset_id,
        kind=_one_of(Kind, fields, "kind"),
        state=_state(fields),
        name=_name(fields),
        block_size=_number(fields, "block_size"),
        created_at=_number(fields, "created_at"),
        thin=_typed(bool, fields, "thin"),
        compression=_text(fields, "compression"),
        labels=_labels(fields),
        source=_text(fields, "source"),
        checksum=_text(fields, "checksum"),
        origin=_text(fields, "origin"),
        source_volume_id=_text(fields, "source_volume_id"),
    )
    try:
        rules.block_size(record.block_size)
    except InvalidArgs as error:
        raise DamagedRecord(str(error)) from error
    return record


_T = TypeVar("_T")
_E = TypeVar("_E", bound=StrEnum)


def _typed(kind: type[_T], fields: dict[str, Any], name: str) -> _T:
    value = fields.pop(name, None)
    if type(value) is not kind:
        raise DamagedRecord(f"{name} is {value!r:.100}, not of type {kind.__name__}")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    value = _typed(str, fields, name)
    _check_text(name, value)
    return value


def _check_text(name: str, value: str) -> None:
    """No text D-Bus could not carry: NUL, and the lone surrogates JSON can spell."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DamagedRecord(f"{name} is no Unicode text") from error
    if "\0" in value:
        raise DamagedRecord(f"{name} holds a NUL character")


def _number(fields: dict[str, Any], name: str) -> int:
    value = _typed(int, fields, name)
    if not 0 <= value < 2**63:
        raise DamagedRecord(f"{name} is {value}, not a number from 0 to 2^63")
    return value


def _one_of(kind: type[_E], fields: dict[str, Any], name: str) -> _E:
    value = _typed(str, fields, name)
    try:
        return kind(value)
    except ValueError as error:
        raise DamagedRecord(f"{name} is {value!r:.100}, none of {', '.join(kind)}") from error


def _state(fields: dict[str, Any]) -> State:
    return _one_of(State, fields, "state")


def _name(fields: dict[str, Any]) -> str:
    try:
        return rules.name(_typed(str, fields, "name"))
    except InvalidArgs as error:
        raise DamagedRecord(str(error)) from error


def _labels(fields: dict[str, Any]) -> dict[str, str]:
    value: dict[Any, Any] = _typed(dict, fields, "labels")
    for key, text in value.items():
        if type(text) is not str:
            raise DamagedRecord(f"label {key!r:.100} is {text!r:.100}, not a text")
        _check_text("a label", key)
        _check_text("a label", text)
    return value
