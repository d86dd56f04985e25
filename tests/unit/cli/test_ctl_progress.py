from __future__ import annotations

import io
import sys
import time

import pytest

from mvirt_zfs_dbus.cli.progress import Bar, Lines, Silent, display, progress_text
from mvirt_zfs_dbus.client import Progress
from mvirt_zfs_dbus.model import JobState

MIB = 1 << 20
COLOUR = "\x1b[3"


def progress(done: int, total: int = 10 * MIB, **changes: object) -> Progress:
    values: dict[str, object] = {
        "state": JobState.RUNNING,
        "phase": "downloading",
        "fraction": done / total if total else None,
        "bytes_done": done,
        "bytes_total": total,
        "rate": 0,
        "expected_end_at": 0,
    }
    return Progress(**{**values, **changes})  # type: ignore[arg-type]


def test_progress_shows_percent_bytes_rate_and_time_left() -> None:
    soon = int((time.time() + 4.2) * 1e6)
    shown = progress_text(progress(5 * MIB, rate=2 * MIB, expected_end_at=soon))
    assert shown == "50 %  5 MiB of 10 MiB  2 MiB/s  4 s left"


def test_progress_of_a_source_of_unknown_size_shows_what_is_done() -> None:
    assert progress_text(progress(3 * MIB, total=0, rate=MIB)) == "3 MiB  1 MiB/s"


def test_a_finished_job_has_no_rate_and_no_time_left() -> None:
    shown = progress_text(progress(10 * MIB, state=JobState.DONE, rate=5, expected_end_at=1))
    assert shown == "100 %  10 MiB of 10 MiB"


def test_time_left_is_never_negative() -> None:
    assert progress(1, expected_end_at=1).seconds_left == 0


def test_lines_are_printed_for_every_tenth_and_every_phase(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Lines() as lines:
        for done in range(0, 10 * MIB, MIB // 4):
            lines.show(progress(done))
        lines.show(progress(10 * MIB, phase="verifying"))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 11
    assert printed[5] == "downloading  50 %  5 MiB of 10 MiB"
    assert printed[-1] == "verifying    100 %  10 MiB of 10 MiB"


def test_silence_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with display(as_json=True) as shown:
        shown.show(progress(1))
    assert capsys.readouterr().out == ""
    assert isinstance(display(as_json=True), Silent)


def test_a_pipe_gets_lines() -> None:
    assert isinstance(display(as_json=False), Lines)


class Terminal(io.StringIO):
    """A double of a terminal: what matters here is that it says it is one."""

    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, kind: str = "xterm") -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return terminal


def show_some_progress() -> None:
    with display(as_json=False) as shown:
        assert isinstance(shown, Bar)
        shown.show(progress(3 * MIB))
        shown.show(progress(3 * MIB, fraction=None))


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    show_some_progress()
    assert "3 MiB of 10 MiB" in terminal.getvalue()
    assert COLOUR in terminal.getvalue()


def test_no_color_means_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    show_some_progress()
    assert "3 MiB of 10 MiB" in terminal.getvalue()
    assert COLOUR not in terminal.getvalue()


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch, "dumb")
    assert isinstance(display(as_json=False), Lines)


def test_without_rich_a_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert isinstance(display(as_json=False), Lines)
