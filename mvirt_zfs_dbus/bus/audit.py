"""The record of a call that changes something: who, what, on which object, with what outcome."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from .. import errors
from .interface import Call

_log = logging.getLogger("mvirt_zfs_dbus.audit")


@dataclass(slots=True)
class Audit:
    """What is known of a call that changes something, for its one record."""

    call: Call
    details: dict[str, str] = field(default_factory=dict)

    def write(self, error: errors.Error | None) -> None:
        operation = f"{self.call.interface}.{self.call.member}"
        outcome = "ok" if error is None else str(error.name)
        shown = "".join(f" {key}={value!r}" for key, value in sorted(self.details.items()))
        _log.info(
            "%s on %s by uid %d (%s)%s: %s",
            operation,
            self.call.path,
            self.call.uid,
            self.call.sender,
            shown,
            outcome if error is None else f"{outcome}: {error.message}",
            extra={
                "fields": {
                    "MVIRT_UID": str(self.call.uid),
                    "MVIRT_SENDER": self.call.sender,
                    "MVIRT_OBJECT": self.call.path,
                    "MVIRT_OPERATION": operation,
                    "MVIRT_OUTCOME": outcome,
                    **{f"MVIRT_{key.upper()}": value for key, value in self.details.items()},
                }
            },
        )
