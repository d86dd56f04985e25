"""When pkttyagent is started, and how: a double of it, since the real one needs polkit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mvirt_zfs_dbus.cli import main
from mvirt_zfs_dbus.cli.agent import password_agent

_DOUBLE = """#!/bin/bash
echo "$@" >>{folder}/started
trap 'echo ended >>{folder}/started; exit' TERM
eval "exec $2>&-"  # as pkttyagent closes the fd when it is registered
while :; do read -r <>{folder}/nothing; done
"""


@pytest.fixture
def someone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user at a terminal."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the double of pkttyagent was started with, and that it was ended."""
    double = tmp_path / "pkttyagent"
    double.write_text(_DOUBLE.format(folder=tmp_path))
    double.chmod(0o755)
    os.mkfifo(tmp_path / "nothing")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "started"


def test_the_agent_is_registered_before_the_call_and_ended_after_it(
    someone: None, log: Path
) -> None:
    with password_agent():
        arguments = log.read_text().split()
        assert arguments[0] == "--notify-fd"
        assert arguments[2:] == ["--fallback"]
    assert log.read_text().endswith("ended\n")


def test_root_is_asked_nothing(someone: None, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with password_agent():
        assert not log.exists()


def test_where_there_is_no_terminal_nobody_is_asked(
    someone: None, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with password_agent():
        assert not log.exists()


def test_without_pkttyagent_it_goes_on(
    someone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with password_agent():
        pass


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("volume create web 1G", True),
        ("snapshot rollback web fresh", True),
        ("import web -", True),
        ("job cancel web", True),
        ("volume list", False),
        ("pool", False),
        ("monitor", False),
        ("volume create web 1G --no-ask-password", False),
        ("volume create web 1G --bus session", False),
        ("volume create web 1G --host web", False),
    ],
)
def test_only_a_change_on_this_machines_system_bus_may_need_a_password(
    command: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MVIRT_ZFS_BUS", raising=False)
    assert main._may_be_asked(main.parser().parse_args(command.split())) is asked
