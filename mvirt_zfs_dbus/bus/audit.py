"""The record of calls that change something: who, what, on which object, with what outcome."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Final

from .. import errors
from .interface import Call

_log = logging.getLogger("mvirt_zfs_dbus.audit")

REFUSALS: Final = 30
"""Refused calls of a user that are recorded at once; journald would drop the records of others
too when it had had enough (journald.conf(5), RateLimitBurst=)."""
REFUSALS_PER_SECOND: Final = 1.0
_USERS: Final = 256
_LONGEST: Final = 2048
"""Characters of a caller's text in a record: a datagram to the journal has to hold all of it, and
nobody may fill the log with one call."""


@dataclass(slots=True)
class _Refusals:
    """What is left of a user's records of refused calls, and how many there were too many."""

    left: float = REFUSALS
    counted_at: float = 0.0
    unrecorded: int = 0

    def take(self, now: float) -> bool:
        self.left = min(REFUSALS, self.left + (now - self.counted_at) * REFUSALS_PER_SECOND)
        self.counted_at = now
        if self.left < 1:
            self.unrecorded += 1
            return False
        self.left -= 1
        return True


class AuditLog:
    """One record a call; of a flood of refused ones, the first, some, and how many there were."""

    def __init__(self) -> None:
        self._refusals: dict[int, _Refusals] = {}

    def write(self, call: Call, details: dict[str, str], error: errors.Error | None) -> None:
        """``error``: what the caller was answered; None if the call did what it was to do."""
        if error is not None and not self._recorded(call.uid):
            return
        operation = f"{call.interface}.{call.member}"
        outcome = "ok" if error is None else str(error.name)
        details = {key: _cut(value) for key, value in details.items()}
        shown = "".join(f" {key}={value!r}" for key, value in sorted(details.items()))
        _log.info(
            "%s on %s by uid %d (%s)%s: %s",
            operation,
            call.path,
            call.uid,
            call.sender,
            shown,
            outcome if error is None else f"{outcome}: {_one_line(error.message)}",
            extra={
                "fields": {
                    "MVIRT_UID": str(call.uid),
                    "MVIRT_SENDER": call.sender,
                    "MVIRT_OBJECT": call.path,
                    "MVIRT_OPERATION": operation,
                    "MVIRT_OUTCOME": outcome,
                    **{_field(key): value for key, value in details.items()},
                }
            },
        )

    def _recorded(self, uid: int) -> bool:
        if len(self._refusals) >= _USERS:
            self._refusals.clear()
        refusals = self._refusals.setdefault(uid, _Refusals())
        if not refusals.take(time.monotonic()):
            return False
        if refusals.unrecorded:
            _log.info("%d more refused calls by uid %d", refusals.unrecorded, uid)
            refusals.unrecorded = 0
        return True


def _field(key: str) -> str:
    """journald drops a field whose name has anything but capitals, digits and underscores
    (systemd.journal-fields(7))."""
    return f"MVIRT_{key.upper().replace('-', '_')}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _one_line(text: str) -> str:
    """A message may quote what a process or a file is called, line ends and all."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in _cut(text))
