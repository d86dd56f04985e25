"""Where log lines go: to the journal with fields to filter by, else as text to standard error.

The journal is written in its native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/), so that
``journalctl MVIRT_OPERATION=org.mvirt.Zfs1.Volume.Delete MVIRT_UID=1000`` finds what it names.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

JOURNAL: Final = Path("/run/systemd/journal/socket")
_PRIORITIES: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
"""syslog(3)'s levels."""


def set_up(level: int) -> None:
    """Send everything this process logs to its place, from now on."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    if _stderr_is_journal():
        handler = JournalHandler(JOURNAL)
        handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)


class JournalHandler(logging.Handler):
    """A record's ``fields`` (a mapping of upper-case names to text) go along as journal fields."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._path = str(path)

    def emit(self, record: logging.LogRecord) -> None:
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(_PRIORITIES.get(record.levelno, 6)),
            "SYSLOG_IDENTIFIER": "mvirt-zfs-dbus",
            "LOGGER": record.name,
            **getattr(record, "fields", {}),
        }
        try:
            self._socket.sendto(encode(fields), self._path)
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        self._socket.close()
        super().close()


def encode(fields: Mapping[str, str]) -> bytes:
    """One entry: ``NAME=value`` lines, or name, length and value where the value has line ends."""
    entry = bytearray()
    for name, text in fields.items():
        value = text.encode(errors="replace")
        if b"\n" in value:
            entry += name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
        else:
            entry += name.encode() + b"=" + value + b"\n"
    return bytes(entry)


def _stderr_is_journal() -> bool:
    """systemd tells a service which socket its standard error is (systemd.exec(5))."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
