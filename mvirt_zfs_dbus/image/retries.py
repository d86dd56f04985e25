"""When a download is tried again, and how long it waits before."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from ..errors import Error

TRIES: Final = 5
"""In a row, without a byte between them."""
FIRST_DELAY: Final = 1.0
"""Seconds; each further wait is twice as long."""
LONGEST_DELAY: Final = 60.0
"""Seconds; what a server may ask for (RFC 9110, 10.2.3)."""
PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be another one a moment later."""


class Interrupted(Exception):
    """What may go better next time; with the error to end with if it does not."""

    def __init__(self, error: Error, *, wait: float = 0) -> None:
        self.error = error
        self.wait = wait
        """Seconds the server asked for."""


class Patience:
    """How often it was tried in vain."""

    def __init__(self, first_delay: float) -> None:
        self._first_delay = first_delay
        self._failures = 0

    def wait(self, interrupted: Interrupted, *, progress: bool) -> float:
        """Seconds until the next try. Raises the error once there is none."""
        self._failures = 1 if progress else self._failures + 1
        if self._failures > TRIES:
            raise interrupted.error from interrupted
        own: float = self._first_delay * 2 ** (self._failures - 1)
        return max(own, min(interrupted.wait, LONGEST_DELAY))


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds, from a delay or a date; 0 where neither is there."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        wait = parsedate_to_datetime(value).timestamp() - time.time()
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0
    return max(wait, 0) if math.isfinite(wait) else 0
