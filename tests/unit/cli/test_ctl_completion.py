from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mvirt_zfs_dbus.cli import completion, main


def offered(*words: str) -> list[str]:
    *before, current = words
    found = completion.candidates(main.parser(), before, current)
    return [word for word, _ in found if word.startswith(current)]


def test_commands_are_offered_with_what_they_do() -> None:
    assert "volume" in offered("")
    assert offered("volume", "re") == ["resize", "rename"]
    described = dict(completion.candidates(main.parser(), ["volume"], ""))
    assert described["create"] == "make an empty volume"


def test_options_of_the_command_are_offered() -> None:
    assert offered("volume", "delete", "web", "--s") == ["--snapshots"]
    assert {"-y", "--yes", "--json"} <= set(offered("volume", "delete", "-"))


def test_an_options_value_is_no_argument() -> None:
    assert offered("import", "--size", "") == []
    assert offered("import", "--format", "q") == ["qcow2"]
    assert offered("--bus", "s") == ["system", "session"]
    assert offered("--bus", "session", "volume", "u") == ["users"]
    assert offered("--bus=session", "volume", "u") == ["users"]
    assert offered("volume", "create", "--size", "1G", "--thick", "--la") == ["--label"]


def test_a_file_is_left_to_the_shell() -> None:
    found = completion.candidates(main.parser(), ["import", "web"], "")
    assert list(found) == [(":files", "")]


def test_shells_are_offered() -> None:
    assert offered("completion", "") == ["bash", "fish", "zsh"]


@pytest.mark.parametrize(
    "words",
    [
        ["volume", "create", ""],
        ["volume", "rename", "web", ""],
        ["volume", "paint", ""],
        ["volume", "label", "web", "--set", ""],
        ["pool", ""],
        ["--host", "web", "volume", "show", ""],
        ["volume", "create", "--nonsense", ""],
    ],
)
def test_where_nothing_is_known_nothing_is_offered(words: list[str]) -> None:
    assert offered(*words) == []


def test_a_service_that_is_not_there_has_no_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MVIRT_ZFS_BUS", "unix:path=/absent")
    assert main.main(["__complete", "volume", "show", ""]) == 0
    assert capsys.readouterr() == ("", "")


def test_every_argument_with_live_names_exists() -> None:
    found: set[str] = set()

    def walk(parser: argparse.ArgumentParser) -> None:
        for action in parser._actions:
            found.add(action.dest)
            if isinstance(action, argparse._SubParsersAction):
                for below in action.choices.values():
                    walk(below)

    walk(main.parser())
    assert set(completion._LIVE) | {"source", "bus", "host", "format"} <= found


def test_a_name_that_would_mean_something_to_the_shell_is_not_offered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a double of the client. The service gives no such name, but takes what a pool has."""

    @asynccontextmanager
    async def connect(bus: str) -> AsyncIterator[None]:
        yield

    async def names(_client: object, _given: object) -> list[tuple[str, str]]:
        return [("web-1", ""), ("$(reboot)", ""), ("a;b", ""), ("a\n:files", ""), ("-rf", "")]

    monkeypatch.setattr(completion.Client, "connect", connect)
    monkeypatch.setitem(completion._LIVE, "volume", names)
    assert offered("volume", "show", "") == ["web-1"]
