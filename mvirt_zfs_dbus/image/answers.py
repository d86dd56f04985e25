"""What of a server's answer is refused before a byte of its body is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..errors import DownloadFailed

_LONGEST: Final = 2**63 - 1
"""Bytes: what off_t can hold."""


def check_encoding(headers: Mapping[str, str], shown: str) -> None:
    """DownloadFailed: the body is not the file's bytes as they are, which is what was asked for."""
    content = headers.get("Content-Encoding", "").strip().lower() or "identity"
    transfer = headers.get("Transfer-Encoding", "").strip().lower() or "chunked"
    if content != "identity" or transfer not in ("chunked", "identity"):
        encoding = content if content != "identity" else transfer
        raise DownloadFailed(f"{shown}: the server sent it encoded ({encoding}), unasked")


def check_length(length: int | None, shown: str) -> None:
    """DownloadFailed: no file has this length."""
    if length is not None and length > _LONGEST:
        raise DownloadFailed(f"{shown}: the server announced {length} bytes, which no file has")


def has_an_end(headers: Mapping[str, str], length: int | None) -> bool:
    """Whether a body that is cut short can be told from a whole one (RFC 9112, 6.3).

    Without a length and without chunks, the end of the connection is the body's, whatever the
    reason for it.
    """
    return length is not None or "chunked" in headers.get("Transfer-Encoding", "").lower()
