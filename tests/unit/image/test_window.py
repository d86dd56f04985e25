"""What a stream's window shows, and what it forgets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mvirt_zfs_dbus.image.window import Window

chunks = st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=8)


@given(chunks, st.data())
def test_a_window_shows_what_came_until_it_is_dropped(pieces, data):
    whole = b"".join(pieces)
    window, came, dropped = Window(), 0, 0
    for piece in pieces:
        window.add(piece)
        came += len(piece)
        assert window.end == came
        start = data.draw(st.integers(dropped, came))
        end = data.draw(st.integers(start, came))
        assert window.view(start, end) == whole[start:end]
        dropped = data.draw(st.integers(dropped, start))
        window.drop(dropped)
        assert window.view(dropped, came) == whole[dropped:came]


def test_a_window_holds_no_chunk_that_is_behind():
    window = Window()
    for _ in range(100):
        window.add(b"x" * 10)
        window.drop(window.end - 5)
        assert len(window) <= 10
    window.drop(window.end)
    assert len(window) == 0
