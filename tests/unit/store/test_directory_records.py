from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.files.records import (
    DamagedRecord,
    DatasetRecord,
    Record,
    SnapshotRecord,
    State,
    decode,
    encode,
    is_key,
)

ids = st.uuids().map(str)
names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._+@:-]{0,127}\Z")
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
numbers = st.integers(0, 2**63 - 1)

datasets = st.builds(
    DatasetRecord,
    id=ids,
    kind=st.sampled_from(Kind),
    state=st.sampled_from(State),
    name=names,
    block_size=st.sampled_from([2**n for n in range(9, 18)]),
    created_at=numbers,
    thin=st.booleans(),
    compression=texts,
    labels=st.dictionaries(texts, texts),
    source=texts,
    checksum=texts,
    origin=texts,
    source_volume_id=texts,
)
snapshots = st.builds(
    SnapshotRecord,
    id=ids,
    volume_id=ids,
    state=st.sampled_from(State),
    name=names,
    created_at=numbers,
    sequence=numbers,
)

DATASET = DatasetRecord(
    id="00000000-0000-4000-8000-000000000001",
    kind=Kind.VOLUME,
    state=State.READY,
    name="disk",
    block_size=4096,
    created_at=1,
)
SNAPSHOT = SnapshotRecord(
    id="00000000-0000-4000-8000-000000000002",
    volume_id=DATASET.id,
    state=State.READY,
    name="snapshot",
    created_at=1,
    sequence=1,
)


@given(datasets | snapshots)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    assert is_key(record.key)
    assert decode(record.key, encode(record)) == record


@given(st.binary())
def test_any_bytes_are_a_record_or_damaged(data: bytes) -> None:
    with pytest.raises(DamagedRecord):
        decode(DATASET.key, data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.sampled_from([DATASET, SNAPSHOT]), st.data())
def test_a_record_with_any_one_field_replaced_is_read_or_damaged(
    record: Record, data: st.DataObject
) -> None:
    fields = json.loads(encode(record))
    name = data.draw(st.sampled_from(list(fields)))
    fields[name] = data.draw(json_values)
    try:
        found = decode(record.key, json.dumps(fields).encode())
    except DamagedRecord:
        return
    encode(found).decode()
    assert type(getattr(found, name, 1)) is type(getattr(record, name, 1))


@pytest.mark.parametrize("record", [DATASET, SNAPSHOT])
def test_a_record_without_one_of_its_fields_is_damaged(record: Record) -> None:
    fields = json.loads(encode(record))
    for missing in fields:
        left = {name: value for name, value in fields.items() if name != missing}
        with pytest.raises(DamagedRecord, match=missing):
            decode(record.key, json.dumps(left).encode())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 2}, "version 2"),
        ({"version": True}, "version True"),
        ({"later": 1}, "unknown fields 'later'"),
        ({"kind": "disk"}, "kind"),
        ({"state": "gone"}, "state"),
        ({"name": "../etc"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"block_size": 1000}, "block-size"),
        ({"created_at": -1}, "created_at"),
        ({"created_at": 1.5}, "created_at"),
        ({"thin": 1}, "thin"),
        ({"labels": {"k": 1}}, "label"),
        ({"labels": {"k": "\ud800"}}, "label"),
        ({"labels": []}, "labels"),
        ({"source": "a\0b"}, "NUL"),
    ],
)
def test_a_damaged_record_says_what_is_wrong(changes: dict[str, Any], says: str) -> None:
    fields = {**json.loads(encode(DATASET)), **changes}
    with pytest.raises(DamagedRecord, match=says):
        decode(DATASET.key, json.dumps(fields).encode())


@pytest.mark.parametrize(
    "name",
    [
        "",
        "disk",
        DATASET.id.upper().replace("0", "A"),
        DATASET.id + "@",
        DATASET.id + "@img",
        "@" + DATASET.id,
        f"{SNAPSHOT.key}@{DATASET.id}",
        DATASET.id + "\n",
        DATASET.id.replace("1", "١"),
    ],
)
def test_only_uuids_name_files_of_ours(name: str) -> None:
    assert not is_key(name)
