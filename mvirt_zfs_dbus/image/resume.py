"""When an interrupted download may go on where it broke off (RFC 9110, 8.8 and 13 to 15)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from ..errors import DownloadFailed

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.IGNORECASE)


def validator(headers: Mapping[str, str]) -> str | None:
    """What to say in If-Range: only a strong validator is allowed there. None: nothing is.

    An ETag that is not weak, or else a Last-Modified at least a second before the answer's Date.
    """
    if headers.get("Accept-Ranges", "").strip().lower() == "none":
        return None
    if etag := headers.get("ETag", "").strip():
        return None if etag.startswith("W/") else etag
    modified = headers.get("Last-Modified", "")
    try:
        age = parsedate_to_datetime(headers.get("Date", "")) - parsedate_to_datetime(modified)
    except (TypeError, ValueError):
        return None
    return modified if age.total_seconds() >= 1 else None


def request_headers(received: int, if_range: str) -> dict[str, str]:
    return {"Range": f"bytes={received}-", "If-Range": if_range}


def check_range(value: str, received: int, length: int | None) -> None:
    """That a 206 answer's Content-Range is the rest of the body. DownloadFailed."""
    found = _CONTENT_RANGE.fullmatch(value.strip())
    if not found or int(found[1]) != received:
        raise DownloadFailed(f"the server resumed at {value!r} in place of byte {received}")
    whole = None if found[3] == "*" else int(found[3])
    if length is not None and (whole not in (None, length) or int(found[2]) != length - 1):
        raise DownloadFailed(f"the server resumed with {value!r} of what had {length} bytes")
