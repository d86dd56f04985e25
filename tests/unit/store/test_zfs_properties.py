from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvirt_zfs_dbus import rules
from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.base import NewClone, NewDataset
from mvirt_zfs_dbus.store.openzfs import properties
from mvirt_zfs_dbus.store.openzfs.properties import (
    COMPRESSIONS,
    PIECE,
    Metadata,
    VolMode,
    decode,
)

MAX_VALUE = 8191  # zfsprops(7), User Properties

# What D-Bus lets through: text without NUL and lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def joined(stored: properties.Properties) -> dict[str, bytes]:
    """The values by their keys; a double of what the scanning program does with the pieces."""
    values: dict[str, bytes] = {}
    for name in stored:
        key = name.decode().removeprefix(properties.PREFIX)
        if name.startswith(properties.PREFIX.encode()) and not re.search(r"-\d+$", key):
            values[key] = b"".join(pieces_of(stored, key))
    return values


def pieces_of(stored: properties.Properties, key: str) -> list[bytes]:
    found: list[bytes] = []
    while not found or len(found[-1]) == PIECE:
        suffix = f"-{len(found)}" if found else ""
        piece = stored[f"{properties.PREFIX}{key}{suffix}".encode()]
        assert isinstance(piece, bytes)
        found.append(piece)
    return found


@given(
    name=texts,
    source=st.one_of(texts, st.integers(PIECE - 2, 3 * PIECE).map(lambda n: "é" * n)),
    labels=st.dictionaries(texts, texts, max_size=8),
    created=st.integers(0, 2**63),
)
def test_what_a_dataset_is_made_with_comes_back(
    name: str, source: str, labels: dict[str, str], created: int
) -> None:
    new = NewDataset("id", name, 1 << 20, 4096, True, "", labels, source, "sha256:1", created)
    stored = properties.of_dataset(Kind.VOLUME, new)
    found = decode(joined(stored))
    assert found == Metadata(Kind.VOLUME, name, created, labels, source, "sha256:1")


@given(size=st.integers(0, 4 * PIECE + 1))
def test_no_value_is_longer_than_zfs_takes(size: int) -> None:
    stored = dict(properties.pieces("source", b"x" * size))
    assert all(len(value) <= MAX_VALUE for value in stored.values())
    assert b"".join(stored.values()) == b"x" * size
    assert len(list(stored.values())[-1]) < PIECE, "the piece that ends it is shorter"


def test_the_largest_labels_the_rules_allow_fit_whatever_they_are_made_of() -> None:
    value = '"\\\x01' * (rules.MAX_LABEL_VALUE // 3)
    labels = rules.labels({"a": value, "b": value[: rules.MAX_LABELS_BYTES - len(value) - 2]})
    stored = properties.encode({"labels": properties.labels_text(labels)})
    assert all(len(value) <= MAX_VALUE for value in stored.values() if isinstance(value, bytes))
    assert decode(joined(stored)).labels == labels


def test_a_shorter_value_ends_before_the_pieces_of_a_longer_one_before_it() -> None:
    long = dict(properties.pieces("labels", b"x" * 2 * PIECE))
    short = dict(properties.pieces("labels", b"y" * PIECE))
    assert joined({**long, **short})["labels"] == b"y" * PIECE


@given(st.dictionaries(st.sampled_from(["kind", "name", "created", "labels"]), st.binary()))
def test_what_a_hand_wrote_there_is_taken_as_far_as_it_can_be_read(
    values: dict[str, bytes],
) -> None:
    found = decode(values)
    assert found.created_at >= 0
    assert all(isinstance(text, str) for text in found.labels.values())


def test_empty_values_take_no_property() -> None:
    stored = properties.of_clone(Kind.VOLUME, NewClone("id", "name"))
    assert set(stored) == {
        b"org.mvirt:kind",
        b"org.mvirt:name",
        b"org.mvirt:created",
        b"org.mvirt:labels",
    }


def test_what_pins_a_disk_hides_partitions_or_the_whole_of_it_and_its_snapshots() -> None:
    assert properties.pinned(VolMode.DEV) == {b"volmode": 2, b"snapdev": 0}
    assert properties.pinned(VolMode.NONE) == {b"volmode": 3, b"snapdev": 0}


def test_every_compression_the_rules_allow_has_a_number() -> None:
    for name in COMPRESSIONS:
        assert rules.compression(name) == name
    levels = [f"zstd-fast-{n}" for n in (*range(1, 11), *range(20, 100, 10), 100, 500, 1000)]
    assert set(COMPRESSIONS) == {
        *("on", "off", "lzjb", "zle", "lz4", "gzip", "zstd", "zstd-fast"),
        *(f"gzip-{level}" for level in range(1, 10)),
        *(f"zstd-{level}" for level in range(1, 20)),
        *levels,
    }
    assert all(rules.COMPRESSIONS.fullmatch(name) for name in levels)


@pytest.mark.parametrize("text", ["9" * 20, "9" * 5000, "-1", "1e3", "²", "٣", "", " 1"])
def test_a_moment_that_fits_nowhere_is_none(text: str) -> None:
    """5000 digits are more than int() takes; 20 are more than D-Bus does."""
    assert decode({"created": text.encode()}).created_at == 0


@pytest.mark.parametrize(
    "text",
    [
        r'{"a":"\u0000"}',
        r'{"\u0000":"a"}',
        r'{"a":"\ud800"}',
        r'{"\udfff":"a"}',
        '{"a":1}',
        '["a"]',
        "nonsense",
        "[" * 100_000,
        "1" * 5000,
    ],
)
def test_labels_that_cannot_be_told_are_left_out(text: str) -> None:
    """What somebody wrote into one volume's property must not hide all volumes from the bus."""
    assert decode({"labels": text.encode()}).labels == {}


def test_labels_beside_one_that_cannot_be_told_stay() -> None:
    assert decode({"labels": rb'{"a":"\u0000","b":"\ud83d\ude00"}'}).labels == {"b": "😀"}
