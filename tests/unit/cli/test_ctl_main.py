from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

import pytest

from mvirt_zfs_dbus.cli import exits, main
from mvirt_zfs_dbus.cli.commands.import_image import opened
from mvirt_zfs_dbus.cli.context import confirm
from mvirt_zfs_dbus.errors import Cancelled, InvalidArgs, NotFound


def test_global_options_stand_before_the_command_or_after_it() -> None:
    before = main.parser().parse_args(["--json", "--bus", "session", "volume", "list"])
    after = main.parser().parse_args(["volume", "list", "--json", "--bus", "session"])
    assert (before.json, before.bus) == (after.json, after.bus) == (True, "session")


def test_sizes_and_labels_are_read_from_the_command_line() -> None:
    parsed = main.parser().parse_args(
        ["volume", "create", "a", "10G", "--label", "vm=web", "--label", "note=a=b"]
    )
    assert parsed.size == 10 << 30
    assert parsed.labels == [("vm", "web"), ("note", "a=b")]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("volume create a huge", "'huge'"),
        ("volume create a 1G --label x", "'x'"),
        ("volume paint a", "paint"),
        ("volume", "COMMAND"),
        ("", "COMMAND"),
        ("import a b --wait --no-wait", "--no-wait"),
    ],
)
def test_a_command_that_makes_no_sense_ends_with_2_and_says_what_was_wrong(
    command: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(command.split())
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


def test_the_help_explains_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["--help"])
    assert exits.HELP in capsys.readouterr().out


def test_a_bus_that_is_not_there_is_one_line_and_its_own_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"unix:path={tmp_path}/nobody"
    assert main.main(["--bus", address, "volume", "list"]) == 10
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert address in lines[0]
    assert lines[0].endswith("(ServiceUnreachable)")


def test_the_bus_comes_from_the_environment_where_no_option_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MVIRT_ZFS_BUS", f"unix:path={tmp_path}/from-environment")
    assert main.main(["pool"]) == 10
    assert "from-environment" in capsys.readouterr().err


def test_ctrl_c_ends_as_a_shell_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(_: argparse.Namespace) -> None:
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "run", interrupted)
    assert main.main(["pool"]) == 130


def terminal(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdin.readline", lambda: answer)


@pytest.mark.parametrize("answer", ["y\n", "Yes\n"])
def test_a_yes_at_the_terminal_goes_on(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    terminal(monkeypatch, answer)
    confirm("Destroy it?", argparse.Namespace(yes=False))


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "yep\n"])
def test_anything_but_yes_changes_nothing(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    terminal(monkeypatch, answer)
    with pytest.raises(Cancelled):
        confirm("Destroy it?", argparse.Namespace(yes=False))


def test_without_a_terminal_and_without_yes_nothing_is_destroyed() -> None:
    with pytest.raises(InvalidArgs, match="--yes"):
        confirm("Destroy it?", argparse.Namespace(yes=False))
    confirm("Destroy it?", argparse.Namespace(yes=True))


def test_a_file_one_may_read_is_passed_open_and_closed_afterwards(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"bytes")
    with opened(str(image)) as source:
        assert isinstance(source, int)
        assert os.read(source, 10) == b"bytes"
    with pytest.raises(OSError):
        os.fstat(source)


def test_a_relative_file_is_the_callers_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "image").write_bytes(b"bytes")
    monkeypatch.chdir(tmp_path)
    with opened("image") as source:
        assert isinstance(source, int)


def test_a_url_is_passed_as_it_is() -> None:
    with opened("https://example.org/a.qcow2") as source:
        assert source == "https://example.org/a.qcow2"


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing-here"), opened(str(tmp_path / "nothing-here")):
        pass


def test_a_file_one_may_not_read_is_left_to_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)  # root, as which the tests may run, may read all
    with opened(str(tmp_path / "secret")) as source:
        assert source == str(tmp_path / "secret")
