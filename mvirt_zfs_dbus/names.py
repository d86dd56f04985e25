"""Every name the outside sees: the bus name, object paths, interfaces, errors and polkit actions.

They stand here once. Everything else in the package refers to them, so that a name in the contract
(``data/dbus-1/interfaces/``) is found in one place in the code.
"""

from __future__ import annotations

from enum import StrEnum
from string import ascii_letters, digits
from typing import Final

BUS_NAME: Final = "org.mvirt.Zfs1"
ROOT: Final = "/org/mvirt/Zfs1"


class Interface(StrEnum):
    """The D-Bus interfaces of the service."""

    MANAGER = "org.mvirt.Zfs1.Manager"
    POOL = "org.mvirt.Zfs1.Pool"
    VOLUME = "org.mvirt.Zfs1.Volume"
    SNAPSHOT = "org.mvirt.Zfs1.Snapshot"
    TEMPLATE = "org.mvirt.Zfs1.Template"
    JOB = "org.mvirt.Zfs1.Job"


class ErrorName(StrEnum):
    """The D-Bus error names a caller can meet."""

    NOT_FOUND = "org.mvirt.Zfs1.Error.NotFound"
    ALREADY_EXISTS = "org.mvirt.Zfs1.Error.AlreadyExists"
    INVALID_NAME = "org.mvirt.Zfs1.Error.InvalidName"
    INVALID_SIZE = "org.mvirt.Zfs1.Error.InvalidSize"
    WOULD_SHRINK = "org.mvirt.Zfs1.Error.WouldShrink"
    HAS_SNAPSHOTS = "org.mvirt.Zfs1.Error.HasSnapshots"
    HAS_CLONES = "org.mvirt.Zfs1.Error.HasClones"
    NEWER_SNAPSHOTS = "org.mvirt.Zfs1.Error.NewerSnapshots"
    DEVICE_BUSY = "org.mvirt.Zfs1.Error.DeviceBusy"
    DEVICE_TIMEOUT = "org.mvirt.Zfs1.Error.DeviceTimeout"
    NO_SPACE = "org.mvirt.Zfs1.Error.NoSpace"
    POOL_UNAVAILABLE = "org.mvirt.Zfs1.Error.PoolUnavailable"
    UNSUPPORTED_IMAGE = "org.mvirt.Zfs1.Error.UnsupportedImage"
    UNSAFE_IMAGE = "org.mvirt.Zfs1.Error.UnsafeImage"
    CORRUPT_IMAGE = "org.mvirt.Zfs1.Error.CorruptImage"
    CHECKSUM_MISMATCH = "org.mvirt.Zfs1.Error.ChecksumMismatch"
    DOWNLOAD_FAILED = "org.mvirt.Zfs1.Error.DownloadFailed"
    TRUNCATED = "org.mvirt.Zfs1.Error.Truncated"
    CANCELLED = "org.mvirt.Zfs1.Error.Cancelled"
    INTERRUPTED = "org.mvirt.Zfs1.Error.Interrupted"
    NOT_CANCELABLE = "org.mvirt.Zfs1.Error.NotCancelable"
    FAILED = "org.mvirt.Zfs1.Error.Failed"
    # The standard ones, of the D-Bus specification and as systemd uses them.
    INVALID_ARGS = "org.freedesktop.DBus.Error.InvalidArgs"
    ACCESS_DENIED = "org.freedesktop.DBus.Error.AccessDenied"
    INTERACTIVE_AUTHORIZATION_REQUIRED = (
        "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
    )
    UNKNOWN_OBJECT = "org.freedesktop.DBus.Error.UnknownObject"
    UNKNOWN_INTERFACE = "org.freedesktop.DBus.Error.UnknownInterface"
    UNKNOWN_METHOD = "org.freedesktop.DBus.Error.UnknownMethod"
    UNKNOWN_PROPERTY = "org.freedesktop.DBus.Error.UnknownProperty"
    PROPERTY_READ_ONLY = "org.freedesktop.DBus.Error.PropertyReadOnly"
    LIMITS_EXCEEDED = "org.freedesktop.DBus.Error.LimitsExceeded"


class Action(StrEnum):
    """The polkit actions, one for each kind of harm (``polkit/org.mvirt.zfs1.policy``)."""

    CREATE = "org.mvirt.zfs1.create"
    MODIFY = "org.mvirt.zfs1.modify"
    SNAPSHOT = "org.mvirt.zfs1.snapshot"
    TEMPLATE = "org.mvirt.zfs1.template"
    IMPORT = "org.mvirt.zfs1.import"
    IMPORT_PATH = "org.mvirt.zfs1.import-path"
    IMPORT_URL = "org.mvirt.zfs1.import-url"
    DELETE = "org.mvirt.zfs1.delete"
    ROLLBACK = "org.mvirt.zfs1.rollback"
    CANCEL = "org.mvirt.zfs1.cancel"


_LETTERS: Final = frozenset(ascii_letters.encode())
_DIGITS: Final = frozenset(digits.encode())

NO_OBJECT: Final = "/"
"""The object path that stands for "none" in a property of type ``o``."""


def object_path(kind: str, object_id: str) -> str:
    """The path of the volume, snapshot, template or job with this UUID.

    ``-`` is no legal character of a D-Bus path element, so it is written ``_``.
    """
    return f"{ROOT}/{kind}/{object_id.replace('-', '_')}"


def volume_path(object_id: str) -> str:
    return object_path("volume", object_id)


def snapshot_path(object_id: str) -> str:
    return object_path("snapshot", object_id)


def template_path(object_id: str) -> str:
    return object_path("template", object_id)


def job_path(object_id: str) -> str:
    return object_path("job", object_id)


def pool_path(pool_name: str) -> str:
    """The path of a pool; its name is escaped as sd_bus_path_encode(3) escapes a label."""
    return f"{ROOT}/pool/{escape_label(pool_name)}"


def escape_label(label: str) -> str:
    """Escape any text into one element of an object path, as sd_bus_path_encode(3) does.

    ASCII letters and digits stand for themselves (a leading digit does not), every other byte
    of the UTF-8 text is written ``_xx`` in hexadecimal, and the empty text is ``_``.
    """
    if not label:
        return "_"
    return "".join(
        chr(byte) if byte in _LETTERS or (byte in _DIGITS and position) else f"_{byte:02x}"
        for position, byte in enumerate(label.encode())
    )
