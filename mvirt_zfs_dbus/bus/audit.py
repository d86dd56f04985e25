"""The record of a call that changes something: who, what, on which object, with what outcome."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Final

from .. import errors
from .interface import Call

_log = logging.getLogger("mvirt_zfs_dbus.audit")

_LONGEST: Final = 2048
"""Characters of a caller's text in a record: a datagram to the journal has to hold all of it, and
nobody may fill the log with one call."""


@dataclass(slots=True)
class Audit:
    """What is known of a call that changes something, for its one record."""

    call: Call
    details: dict[str, str] = field(default_factory=dict)

    def write(self, error: errors.Error | None) -> None:
        operation = f"{self.call.interface}.{self.call.member}"
        outcome = "ok" if error is None else str(error.name)
        details = {key: _cut(value) for key, value in self.details.items()}
        shown = "".join(f" {key}={value!r}" for key, value in sorted(details.items()))
        _log.info(
            "%s on %s by uid %d (%s)%s: %s",
            operation,
            self.call.path,
            self.call.uid,
            self.call.sender,
            shown,
            outcome if error is None else f"{outcome}: {_one_line(error.message)}",
            extra={
                "fields": {
                    "MVIRT_UID": str(self.call.uid),
                    "MVIRT_SENDER": self.call.sender,
                    "MVIRT_OBJECT": self.call.path,
                    "MVIRT_OPERATION": operation,
                    "MVIRT_OUTCOME": outcome,
                    **{f"MVIRT_{key.upper()}": value for key, value in details.items()},
                }
            },
        )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _one_line(text: str) -> str:
    """A message may quote what a process or a file is called, line ends and all."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in _cut(text))
