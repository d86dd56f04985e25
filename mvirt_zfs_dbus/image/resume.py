"""When an interrupted download may go on where it broke off (RFC 9110, 8.8 and 13 to 15)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from ..errors import DownloadFailed

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.I | re.ASCII)

_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]*"')
"""RFC 9110, 8.8.3, in ASCII; a weak one begins with W/."""


def validator(headers: Mapping[str, str]) -> str | None:
    """What to say in If-Range: only a strong validator is allowed there. None: nothing is.

    An ETag that is not weak, or else a Last-Modified at least a second before the answer's Date.
    """
    if headers.get("Accept-Ranges", "").strip().lower() == "none":
        return None
    if etag := headers.get("ETag", "").strip():
        return etag if _STRONG_ETAG.fullmatch(etag) else None
    modified = headers.get("Last-Modified", "")
    try:
        age = parsedate_to_datetime(headers.get("Date", "")) - parsedate_to_datetime(modified)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return modified if modified.isascii() and age.total_seconds() >= 1 else None


def request_headers(received: int, if_range: str) -> dict[str, str]:
    return {"Range": f"bytes={received}-", "If-Range": if_range}


def check_same(headers: Mapping[str, str], if_range: str) -> None:
    """That a 206 answer does not say itself that it is of another body. DownloadFailed."""
    found = headers.get("ETag" if if_range.startswith('"') else "Last-Modified", if_range)
    if found.strip() != if_range:
        raise DownloadFailed(f"the file was {if_range} and is now {found.strip()!r}")


def whole_length(content_range: str, received: int, length: int | None) -> int:
    """Bytes of the whole body, of which a 206 answer's Content-Range is the rest, or begins it.

    ``length``: what they were said to be before. DownloadFailed: it is not the rest.
    """
    found = _CONTENT_RANGE.fullmatch(content_range.strip())
    if not found or int(found[1]) != received:
        raise DownloadFailed(f"the server resumed at {content_range!r} in place of byte {received}")
    whole = length if found[3] == "*" else int(found[3])
    if whole is None:
        raise DownloadFailed(f"the server resumed at {content_range!r} and tells no length")
    if (length is not None and whole != length) or not received <= int(found[2]) < whole:
        raise DownloadFailed(
            f"the server resumed with {content_range!r} of {length or whole} bytes"
        )
    return whole
