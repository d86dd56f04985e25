from __future__ import annotations

from argparse import Namespace

import pytest

from mvirt_zfs_dbus import errors
from mvirt_zfs_dbus.cli import exits
from mvirt_zfs_dbus.client import ServiceUnreachable


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Error, 1),
        (errors.InvalidArgs, 2),
        (errors.InvalidName, 2),
        (errors.WouldShrink, 2),
        (errors.NotFound, 3),
        (errors.UnknownObject, 3),
        (errors.AlreadyExists, 4),
        (errors.HasSnapshots, 5),
        (errors.HasClones, 5),
        (errors.NewerSnapshots, 5),
        (errors.DeviceBusy, 5),
        (errors.NotCancelable, 5),
        (errors.AccessDenied, 6),
        (errors.InteractiveAuthorizationRequired, 6),
        (errors.NoSpace, 7),
        (errors.PoolUnavailable, 7),
        (errors.UnsafeImage, 8),
        (errors.ChecksumMismatch, 8),
        (errors.DownloadFailed, 8),
        (errors.Cancelled, 9),
        (errors.Interrupted, 9),
        (ServiceUnreachable, 10),
    ],
)
def test_the_exit_status_tells_the_kind_of_error(error: type[errors.Error], code: int) -> None:
    assert exits.exit_code(error("why")) == code


def test_every_exit_status_is_explained_in_the_help() -> None:
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 130):
        assert f"\n  {code:<4} " in exits.HELP


def test_an_error_is_one_line_with_its_name_at_the_end() -> None:
    error = errors.HasClones("template grub has clones:\n  vm-1\n  vm-2")
    assert exits.error_line(error) == (
        "mvirt-zfsctl: template grub has clones: vm-1 vm-2 (HasClones)"
    )


def test_an_error_has_nothing_a_terminal_obeys() -> None:
    line = exits.error_line(errors.DeviceBusy("held by \x1b[2Jevil\x07 (pid 7)"))
    assert line == r"mvirt-zfsctl: held by \x1b[2Jevil\x07 (pid 7) (DeviceBusy)"


def test_an_error_without_a_name_of_its_own_is_called_failed() -> None:
    assert exits.error_line(errors.Error("disk on fire")) == "mvirt-zfsctl: disk on fire (Failed)"


@pytest.mark.parametrize(
    ("error", "arguments", "hint"),
    [
        (errors.HasSnapshots("…"), {"snapshots": False}, "--snapshots"),
        (errors.HasClones("…"), {"defer": False}, "--defer"),
        (errors.HasClones("…"), {"destroy_newer": True}, ""),
        (errors.NewerSnapshots("…"), {"destroy_newer": False}, "--destroy-newer"),
        (errors.DeviceBusy("…"), {"volume": "web"}, "volume users web "),
        (errors.NotFound("there is no volume 'web'"), {"volume": "web"}, "volume list"),
        (errors.NotFound("web has no label 'x'"), {"volume": "web"}, ""),
        (errors.NoSpace("…"), {}, "mvirt-zfsctl pool"),
        (errors.AccessDenied("…"), {"source": "/a"}, "standard input"),
        (errors.AccessDenied("…"), {}, ""),
        (errors.InteractiveAuthorizationRequired("…"), {"source": "/a"}, "--no-ask-password"),
        (errors.InvalidName("…"), {}, ""),
    ],
)
def test_a_hint_says_what_to_do_next_in_the_words_of_the_command(
    error: errors.Error, arguments: dict[str, object], hint: str
) -> None:
    line = exits.hint_line(error, Namespace(**arguments))
    assert hint in line
    assert bool(line) == bool(hint)
