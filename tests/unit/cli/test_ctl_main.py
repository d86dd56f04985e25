from __future__ import annotations

import argparse
import asyncio
import os
import re
import shlex
from pathlib import Path

import pytest
from ctl_commands import COMMANDS, EXAMPLES

from mvirt_zfs_dbus.cli import exits, main
from mvirt_zfs_dbus.cli.asking import confirm
from mvirt_zfs_dbus.cli.commands.import_image import opened
from mvirt_zfs_dbus.errors import Cancelled, InvalidArgs, NotFound


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([*command.split(), "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert COMMANDS[command].description
    assert f"usage: mvirt-zfsctl {command} " in shown
    _, _, examples = shown.partition("\nexamples:\n")
    assert f"mvirt-zfsctl {command}" in examples


@pytest.mark.parametrize(("command", "example"), EXAMPLES)
def test_every_example_of_the_help_is_a_command(command: str, example: str) -> None:
    words = shlex.split(re.sub(r"\$\(.*\)|<\S+", "", example))
    assert example.startswith(command)
    main.parser().parse_args(words)


def test_options_cannot_be_abbreviated() -> None:
    """An abbreviation in a script would change its meaning with the next option."""
    with pytest.raises(SystemExit):
        main.parser().parse_args(["volume", "delete", "a", "--snap"])


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
        ("volume create a 1G --id x", "'x'"),
        ("volume label a --set x", "'x'"),
        ("volume list --bus session --host web", "not allowed with"),
        ("volume delete web --host ''", "--host: it is empty"),
        ("--bus '' volume list", "--bus: it is empty"),
        ("completion tcsh", "tcsh"),
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
        main.main(shlex.split(command))
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


def test_the_help_explains_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["--help"])
    assert exits.HELP in capsys.readouterr().out


def test_a_bus_that_is_not_there_is_a_line_with_a_hint_and_its_own_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"unix:path={tmp_path}/nobody"
    assert main.main(["--bus", address, "volume", "list"]) == 10
    line, hint = capsys.readouterr().err.splitlines()
    assert address in line
    assert line.endswith("(ServiceUnreachable)")
    assert hint.startswith("hint: systemctl status mvirt-zfs-dbus ")


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
    with opened(str(image), "disk") as source:
        assert isinstance(source, int)
        assert os.read(source, 10) == b"bytes"
    with pytest.raises(OSError):
        os.fstat(source)


def test_a_relative_file_is_the_callers_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "image").write_bytes(b"bytes")
    monkeypatch.chdir(tmp_path)
    with opened("image", "disk") as source:
        assert isinstance(source, int)


def test_a_url_is_passed_as_it_is() -> None:
    with opened("https://example.org/a.qcow2", "disk") as source:
        assert source == "https://example.org/a.qcow2"


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with (
        pytest.raises(NotFound, match="nothing-here"),
        opened(str(tmp_path / "nothing-here"), "disk"),
    ):
        pass


def test_a_file_one_may_not_read_is_left_to_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)  # root, as which the tests may run, may read all
    with opened(str(tmp_path / "secret"), "disk") as source:
        assert source == str(tmp_path / "secret")


def test_an_open_file_is_not_passed_to_another_machine_and_the_message_says_what_works() -> None:
    for source, given in (("-", "-"), ("web.raw", "- <web.raw")):
        with (
            pytest.raises(InvalidArgs) as refused,
            opened(source, "disk", "root@web"),
        ):
            pass
        assert refused.value.message.endswith(f": ssh root@web mvirt-zfsctl import disk {given}")


@pytest.mark.parametrize("source", ["/var/lib/libvirt/images/a.raw", "https://example.org/a.raw"])
def test_an_absolute_path_is_one_on_the_other_machine(source: str) -> None:
    with opened(source, "disk", "web") as passed:
        assert passed == source


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_each_shell_is_printed_without_a_bus(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["completion", shell]) == 0
    assert "__complete" in capsys.readouterr().out
