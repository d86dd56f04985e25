"""What evens out the D-Bus libraries' differences."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvirt_zfs_dbus.bus import library
from mvirt_zfs_dbus.bus.library import Message, Variant, marshalled
from mvirt_zfs_dbus.bus.values import converter, variant
from mvirt_zfs_dbus.bus.wire import BusError, connect

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def signal(signature: str, *body: Any) -> Message:
    return Message.new_signal("/a", "a.b", "c", signature, list(body))


@given(text=TEXTS, key=TEXTS, inner=TEXTS)
def test_a_text_is_sent_with_its_length_in_bytes(text: str, key: str, inner: str) -> None:
    body = (text, {key: Variant("s", text)}, {key: text}, [inner], Variant("a{ss}", {key: inner}))
    with pytest.MonkeyPatch.context() as patch:
        sent = []
        for miscounts in (library._MISCOUNTS, True):  # as it is here, and as with dbus-fast 1.84
            patch.setattr(library, "_MISCOUNTS", miscounts)
            message = signal("sa{sv}a{ss}asv", *body)
            message.serial = 1
            sent.append(bytes(marshalled(message)))
    assert sent[0] == sent[1]
    length = len(text.encode()).to_bytes(4, "little")
    assert length + text.encode() + b"\0" in sent[0]


@given(text=TEXTS, key=TEXTS)
def test_values_made_for_the_bus_need_not_be_counted_again(text: str, key: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "_MISCOUNTS", True)
        made = [converter("a{ss}")({key: text}), variant("as", [text]), variant("s", text)]
        sent = []
        for counted in (False, True):
            message = signal("a{ss}vv", *made)
            message.serial = 1
            sent.append(bytes(marshalled(message, counted=counted)))
    assert sent[0] == sent[1]


def test_numbers_flags_and_paths_stay_what_they_are() -> None:
    body = [True, 5, 0.5, "/a", ["/b"], Variant("t", 2**64 - 1)]
    assert library._counted(body) == body
    assert library._counted(body)[0] is True


@pytest.mark.parametrize(
    ("says", "told"), [(b"", "ended the connection"), (b"x" * 20_000, "no handshake")]
)
async def test_a_bus_that_hangs_up_before_it_has_let_us_in_is_an_error(
    tmp_path: Path, says: bytes, told: str
) -> None:
    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n")
        writer.write(says)
        writer.close()

    async with await asyncio.start_unix_server(meet, tmp_path / "bus"):
        with pytest.raises(BusError, match=told):
            await connect(f"unix:path={tmp_path / 'bus'}")
