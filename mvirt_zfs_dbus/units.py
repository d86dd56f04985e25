"""Sizes, times and durations as people write and read them."""

from __future__ import annotations

import math
import re
from datetime import datetime
from decimal import Decimal
from typing import Final

from .errors import InvalidSize

_UNITS: Final = "KMGTPE"
_SIZE: Final = re.compile(rf"(\d+(?:\.\d+)?) ?(?:([{_UNITS}])(i?B)?|B)?", re.ASCII | re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes of ``10G``, ``1.5TiB``, ``500 MB`` or ``4096``; a fraction of a byte is rounded up.

    As in the coreutils: ``G`` and ``GiB`` are 2^30 bytes, ``GB`` is 10^9. Case does not matter.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidSize(f"size {text!r} is not a number with a unit: 10G, 1.5TiB, 500MB, 4096")
    number, unit, suffix = match.groups()
    exponent = _UNITS.index(unit.upper()) + 1 if unit else 0
    base: int = 1000 if suffix and suffix.upper() == "B" else 1024
    return math.ceil(Decimal(number) * int(base**exponent))


def format_size(size: float) -> str:
    """``5.1 MiB``: three digits at most, in the unit that leaves the number under 1000."""
    value = float(size)
    unit = ""
    for larger in _UNITS:
        if round(value, 1) < 1000:
            break
        value, unit = value / 1024, f"{larger}i"
    digits = f"{value:.0f}" if not unit or value >= 99.95 else f"{value:.1f}".removesuffix(".0")
    return f"{digits} {unit}B"


def format_time(microseconds: int) -> str:
    """Local time of microseconds since the epoch; ``-`` for 0, which stands for "not yet"."""
    if not microseconds:
        return "-"
    return f"{datetime.fromtimestamp(microseconds / 1e6):%Y-%m-%d %H:%M:%S}"


def format_duration(seconds: float) -> str:
    """``8 s``, ``2 min 05 s``, ``3 h 20 min``."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
