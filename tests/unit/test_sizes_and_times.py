from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvirt_zfs_dbus.errors import InvalidSize
from mvirt_zfs_dbus.units import format_duration, format_size, format_time, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("4096B", 4096),
        ("10G", 10 << 30),
        ("10g", 10 << 30),
        ("10GiB", 10 << 30),
        ("10 GiB", 10 << 30),
        ("10GB", 10_000_000_000),
        ("500 MB", 500_000_000),
        ("1.5TiB", 3 << 39),
        ("0.5K", 512),
        (" 1M ", 1 << 20),
        ("2E", 2 << 60),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_a_fraction_of_a_byte_is_rounded_up() -> None:
    assert parse_size("0.1G") == 107374183


@pytest.mark.parametrize("text", ["", "G", "-1G", "10X", "1e3", "1,5G", "10 GB s", "٣G", "nan"])
def test_what_is_no_size_is_refused_with_the_value_and_what_would_be_right(text: str) -> None:
    with pytest.raises(InvalidSize) as caught:
        parse_size(text)
    assert repr(text) in caught.value.message
    assert "1.5TiB" in caught.value.message


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KiB"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (5081088, "4.8 MiB"),
        (10 << 30, "10 GiB"),
        (999 << 30, "999 GiB"),
        (1000 << 30, "1 TiB"),
        (7 << 60, "7 EiB"),
    ],
)
def test_a_size_is_shown_in_the_unit_that_fits(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_a_shown_size_reads_back_to_nearly_the_same(size: int) -> None:
    shown = format_size(size)
    assert len(shown.split()[0]) <= 4
    assert parse_size(shown) == pytest.approx(size, rel=0.06)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.2, "0 s"),
        (8.4, "8 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (12_000, "3 h 20 min"),
    ],
)
def test_a_duration_is_shown_in_two_units_at_most(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_time_that_has_not_come_yet_is_a_dash() -> None:
    assert format_time(0) == "-"
    assert format_time(1_000_000).startswith("19")
