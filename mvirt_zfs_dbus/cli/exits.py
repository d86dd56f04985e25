"""What mvirt-zfsctl says and how it ends when something failed."""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from .. import errors
from ..client import ServiceUnreachable
from .render import one_line

SUCCESS: Final = 0
FAILED: Final = 1
CANCELLED: Final = 9
INTERRUPTED: Final = 130
"""As a shell reports a program that Ctrl-C ended: 128 and SIGINT's number."""

_CODES: Final[tuple[tuple[int, str, tuple[type[errors.Error], ...]], ...]] = (
    (2, "the command, a name or a size is not valid", (errors.InvalidArgs,)),
    (3, "there is no such object", (errors.NotFound, errors.UnknownObject)),
    (4, "the name or id is taken", (errors.AlreadyExists,)),
    (
        5,
        "something else depends on it or uses it, or it is finished",
        (errors.HasDependents, errors.DeviceBusy, errors.NotCancelable),
    ),
    (6, "not allowed", (errors.AccessDenied,)),
    (
        7,
        "the pool is full, gone or too slow, or a limit is reached",
        (
            errors.NoSpace,
            errors.PoolUnavailable,
            errors.DeviceTimeout,
            errors.LimitsExceeded,
        ),
    ),
    (8, "the image is refused, damaged or could not be fetched", (errors.ImportFailed,)),
    (CANCELLED, "cancelled, cut off, or not confirmed", (errors.Cancelled, errors.Interrupted)),
    (10, "the service cannot be reached", (ServiceUnreachable,)),
)

MEANINGS: Final = (
    (SUCCESS, "done"),
    (FAILED, "a fault of the service, or of the system under it"),
    *((code, meaning) for code, meaning, _ in _CODES),
    (INTERRUPTED, "Ctrl-C"),
)
HELP: Final = "exit status:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in MEANINGS)

_HINTS: Final[tuple[tuple[type[errors.Error], str, str], ...]] = (
    # The error, an argument the command has to have, and the hint.
    (errors.HasSnapshots, "snapshots", "--snapshots destroys them along with it"),
    (errors.HasClones, "defer", "--defer hides it now, and it goes with the last of its clones"),
    (errors.NewerSnapshots, "destroy_newer", "--destroy-newer destroys them"),
    (errors.DeviceBusy, "volume", "mvirt-zfsctl volume users {volume} shows who has it open"),
    (errors.NotFound, "volume", "mvirt-zfsctl volume list shows what there is"),
    (errors.NotFound, "template", "mvirt-zfsctl template list shows what there is"),
    (errors.NotFound, "job", "mvirt-zfsctl job list shows what there is"),
    (errors.NoSpace, "", "mvirt-zfsctl pool shows what space is left"),
    (errors.PoolUnavailable, "", "zpool status shows what is wrong with it"),
    (
        errors.InteractiveAuthorizationRequired,
        "",
        "run it on a terminal and without --no-ask-password, or ask the administrator for a"
        " polkit rule; mvirt-zfs-dbus(8) has examples",
    ),
    (
        errors.AccessDenied,
        "source",
        "a file that you may read is imported by its path here, or with - from standard input",
    ),
    (errors.Interrupted, "", "start it again"),
    (
        ServiceUnreachable,
        "",
        "systemctl status mvirt-zfs-dbus shows whether it runs; --bus and --host say where",
    ),
)


def exit_code(error: errors.Error) -> int:
    return next((code for code, _, kinds in _CODES if isinstance(error, kinds)), FAILED)


def error_line(error: errors.Error) -> str:
    """One line: the message, and the error's name without what all of them begin with."""
    name = "Failed" if type(error) is errors.Error else type(error).__name__
    message = one_line(" ".join(error.message.split())) or "it failed"
    return f"mvirt-zfsctl: {message} ({name})"


def hint_line(error: errors.Error, arguments: Namespace) -> str:
    """What to do next, where the message alone does not say it; else empty."""
    given = vars(arguments)
    for kind, argument, hint in _HINTS:
        if isinstance(error, kind) and (not argument or argument in given):
            if kind is errors.NotFound and repr(given[argument]) not in error.message:
                continue  # something else is missing, and the message says what there is
            return f"hint: {hint.format_map(given)}"
    return ""
