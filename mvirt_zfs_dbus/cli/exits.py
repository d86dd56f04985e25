"""What mvirt-zfsctl says and how it ends when something failed."""

from __future__ import annotations

from typing import Final

from .. import errors
from ..client import ServiceUnreachable

SUCCESS: Final = 0
FAILED: Final = 1
CANCELLED: Final = 9
INTERRUPTED: Final = 130
"""As a shell reports a program that Ctrl-C ended: 128 and SIGINT's number."""

_CODES: Final[tuple[tuple[int, str, tuple[type[errors.Error], ...]], ...]] = (
    (2, "the command, a name or a size is not valid", (errors.InvalidArgs,)),
    (3, "there is no such object", (errors.NotFound, errors.UnknownObject)),
    (4, "the name or id is taken", (errors.AlreadyExists,)),
    (5, "something else depends on it or uses it", (errors.HasDependents, errors.DeviceBusy)),
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

HELP: Final = "exit status:\n" + "\n".join(
    f"  {code:<4} {meaning}"
    for code, meaning in (
        (SUCCESS, "done"),
        (FAILED, "a fault of the service, or of the system under it"),
        *((code, meaning) for code, meaning, _ in _CODES),
        (INTERRUPTED, "Ctrl-C"),
    )
)


def exit_code(error: errors.Error) -> int:
    return next((code for code, _, kinds in _CODES if isinstance(error, kinds)), FAILED)


def error_line(error: errors.Error) -> str:
    """One line: the message, and the error's name without what all of them begin with."""
    name = "Failed" if type(error) is errors.Error else type(error).__name__
    message = " ".join(error.message.split()) or "it failed"
    return f"mvirt-zfsctl: {message} ({name})"
