"""What the program SCAN answers of a dataset, made of its properties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def packed(row: Mapping[bytes, Any]) -> bytes:
    """``row`` with its ``snapshots``, each under its full name, as one text."""
    values = {key: value for key, value in row.items() if key != b"snapshots"}
    values.update({name: packed(below) for name, below in row.get(b"snapshots", {}).items()})
    return b"".join(_netstring(key) + _netstring(value) for key, value in values.items())


def _netstring(value: bytes | int) -> bytes:
    text = value if isinstance(value, bytes) else b"%d" % value
    return b"%d:%s" % (len(text), text)
