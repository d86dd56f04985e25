"""Answers put together of pieces are, byte by byte, what the library makes of the whole."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvirt_zfs_dbus.bus import library
from mvirt_zfs_dbus.bus.entries import MANAGED, Entries, entry, marshalled, padded
from mvirt_zfs_dbus.bus.library import Message
from mvirt_zfs_dbus.bus.values import variant
from mvirt_zfs_dbus.errors import LimitsExceeded

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
values = st.one_of(
    texts.map(lambda value: variant("s", value)),
    st.booleans().map(lambda value: variant("b", value)),
    st.integers(0, 2**64 - 1).map(lambda value: variant("t", value)),
    st.floats(allow_nan=False).map(lambda value: variant("d", value)),
    st.lists(texts, max_size=3).map(lambda value: variant("as", value)),
    st.dictionaries(texts, texts, max_size=3).map(lambda value: variant("a{ss}", value)),
)
names = st.text(string.ascii_letters + "_", min_size=1, max_size=20)
objects = st.dictionaries(
    names.map("/org/{}".format),
    st.dictionaries(names.map("org.{}".format), st.dictionaries(names, values, max_size=4)),
    max_size=6,
)


def _reply(body: Any) -> Message:
    reply = Message.new_method_return(
        Message(path="/", member="a", sender=":1.5", destination="a.a", serial=7), MANAGED, [body]
    )
    reply.serial = 9
    return reply


@given(objects)
def test_the_pieces_are_the_whole(given_objects: dict[str, Any]) -> None:
    entries = [padded(entry(path, interfaces)) for path, interfaces in given_objects.items()]
    if given_objects:
        path, interfaces = next(reversed(given_objects.items()))
        entries[-1] = entry(path, interfaces)
    whole = library.marshalled(_reply(given_objects), counted=True)
    assert bytes(marshalled(_reply(Entries(entries)), counted=True)) == bytes(whole)


def test_pieces_that_are_together_more_than_a_bus_takes_are_refused() -> None:
    piece = padded(entry("/org/a", {"org.A": {"B": variant("s", "x" * 1000)}}))
    with pytest.raises(LimitsExceeded):
        marshalled(_reply(Entries([piece] * 40_000)))
