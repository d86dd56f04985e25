"""The journal's native protocol, to a socket that stands in for journald's."""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
from pathlib import Path

import pytest

from mvirt_zfs_dbus import logs


@pytest.fixture
def journal(tmp_path: Path) -> socket.socket:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "journal"))
    receiver.settimeout(10)
    return receiver


def test_a_record_reaches_the_journal_with_its_fields(
    journal: socket.socket, tmp_path: Path
) -> None:
    handler = logs.JournalHandler(tmp_path / "journal")
    record = logging.LogRecord("audit", logging.WARNING, __file__, 1, "deleted %s", ("web",), None)
    record.fields = {"MVIRT_UID": "1000", "MVIRT_OUTCOME": "ok"}
    handler.emit(record)
    lines = journal.recv(65536).decode().splitlines()
    assert {"MESSAGE=deleted web", "PRIORITY=4", "MVIRT_UID=1000", "MVIRT_OUTCOME=ok"} <= set(lines)
    handler.close()
    journal.close()


def test_a_value_with_line_ends_cannot_forge_another_field() -> None:
    text = "first\nMVIRT_UID=0"
    entry = logs.encode({"MESSAGE": text, "MVIRT_UID": "1000"})
    assert entry == (
        b"MESSAGE\n" + struct.pack("<Q", len(text)) + text.encode() + b"\nMVIRT_UID=1000\n"
    )


def test_logs_go_to_the_journal_only_when_standard_error_is_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "stderr").open("w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        root = logging.getLogger()
        before, level = root.handlers[:], root.level
        root.handlers.clear()
        try:
            logs.set_up(logging.INFO)
            assert [type(handler) for handler in root.handlers] == [logs.JournalHandler]
            monkeypatch.setenv("JOURNAL_STREAM", "1:1")
            logs.set_up(logging.INFO)
            assert [type(handler) for handler in root.handlers] == [logging.StreamHandler]
        finally:
            root.handlers[:] = before
            root.setLevel(level)
