from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from mvirt_zfs_dbus.cli import render
from mvirt_zfs_dbus.client import Volume
from mvirt_zfs_dbus.client.remote import Remote

UNCONNECTED = cast(Remote, None)
"""For objects that are looked at only."""


def test_a_table_is_aligned_numbers_to_the_right_and_names_to_the_left() -> None:
    text = render.table(("Name", "size", "Id"), [("a", "10 GiB", "x"), ("longer", "1 B", "y")])
    assert text.splitlines() == [
        "NAME      SIZE  ID",
        "a       10 GiB  x",
        "longer     1 B  y",
    ]


WIDE = (("Name", "size", "Id"), [("a-rather-long-name", "10 GiB", "x" * 36)])


def test_a_table_that_fits_is_not_changed() -> None:
    assert render.table(*WIDE, width=64) == render.table(*WIDE)


def test_where_a_table_does_not_fit_its_ids_go_first() -> None:
    assert render.table(*WIDE, width=63).splitlines() == [
        "NAME                  SIZE",
        "a-rather-long-name  10 GiB",
    ]


def test_where_it_still_does_not_fit_the_longest_texts_are_shortened() -> None:
    assert render.table(*WIDE, width=20).splitlines()[1] == "a-rather-lo…  10 GiB"


def test_numbers_are_never_shortened() -> None:
    assert render.table(*WIDE, width=5).splitlines()[1] == "a-rathe…  10 GiB"


@given(
    rows=st.lists(st.tuples(st.text("ab", max_size=50), st.text("12", max_size=9)), max_size=5),
    width=st.integers(min_value=21, max_value=120),
)
def test_every_table_fits_where_its_numbers_leave_room(
    rows: list[tuple[str, str]], width: int
) -> None:
    lines = render.table(("Name", "size"), rows, width).split("\n")
    assert all(len(line) <= width for line in lines)
    assert len(lines) == len(rows) + 1


def test_an_empty_table_is_its_heading() -> None:
    assert render.table(("Name", "size"), []) == "NAME  SIZE"


def test_fields_without_a_value_are_left_out() -> None:
    assert render.fields({"Name": "a", "Origin": "", "Device": "/dev/x"}) == (
        "Name:   a\nDevice: /dev/x"
    )


def test_labels_are_sorted() -> None:
    assert render.labels({"b": "2", "a": "1"}) == "a=1, b=2"


def test_json_has_the_properties_as_the_service_names_them_and_no_sentences() -> None:
    stream = io.StringIO()
    output = render.Output(as_json=True, stream=stream)
    volume = Volume(UNCONNECTED, "/p", {"Name": "a", "SizeBytes": 5})
    output.text("a sentence")
    output.object(volume, "a sentence")
    output.table([volume], ["Name"], [["a"]])
    expected = {"Path": "/p", "Name": "a", "SizeBytes": 5}
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [expected, [expected]]


def test_text_has_no_json() -> None:
    stream = io.StringIO()
    render.Output(stream=stream).object(Volume(UNCONNECTED, "/p", {}), "made it")
    assert stream.getvalue() == "made it\n"


HOSTILE = "a\x1b]0;owned\x07b\nName: other\x9b2J\u202e"
"""What a label may hold: it sets a terminal's title, begins a line, clears the screen."""


def test_what_others_wrote_neither_reaches_the_terminal_nor_begins_a_line() -> None:
    texts = (
        render.table(("Name", "size"), [(HOSTILE, "1")]).splitlines()[1],
        render.fields({"Labels": render.labels({HOSTILE: HOSTILE})}),
        _printed(lambda output: output.text(HOSTILE.replace("\n", " "))),
        _printed(lambda output: output.answer({}, HOSTILE.replace("\n", " "))),
    )
    for text in texts:
        assert text.isprintable()
        assert "\\x1b]0;owned" in text


def _printed(say: Callable[[render.Output], None]) -> str:
    stream = io.StringIO()
    say(render.Output(stream=stream))
    return stream.getvalue().removesuffix("\n")


def test_json_has_nothing_a_terminal_obeys() -> None:
    stream = io.StringIO()
    render.Output(as_json=True, stream=stream).answer({"Labels": HOSTILE}, "")
    text = stream.getvalue().removesuffix("\n")
    assert text.isprintable()
    assert json.loads(text) == {"Labels": HOSTILE}
