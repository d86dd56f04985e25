"""The failures a client can meet. Each class is one D-Bus error name, and nothing else is sent.

    Error                           Failed: a fault of the service or of the system under it
    ├── NotFound                    no such volume, template, snapshot or job
    ├── AlreadyExists               the name or the id is taken
    ├── InvalidArgs                 an argument or option of the wrong kind
    │   ├── InvalidName
    │   └── InvalidSize
    │       └── WouldShrink
    ├── HasDependents
    │   ├── HasSnapshots
    │   ├── HasClones
    │   └── NewerSnapshots
    ├── DeviceBusy
    ├── DeviceTimeout
    ├── NoSpace
    ├── PoolUnavailable
    ├── ImportFailed
    │   ├── UnsupportedImage        a format or feature this service does not read
    │   ├── UnsafeImage             an image that points outside itself
    │   ├── CorruptImage
    │   ├── ChecksumMismatch
    │   ├── DownloadFailed
    │   └── Truncated
    ├── Cancelled
    ├── Interrupted
    ├── NotCancelable
    ├── AccessDenied
    │   └── InteractiveAuthorizationRequired
    ├── LimitsExceeded
    └── UnknownObject, UnknownInterface, UnknownMethod, UnknownProperty, PropertyReadOnly

A message is for people: what was wrong, with the value, and what would be right. A client
branches on the name alone.
"""

from __future__ import annotations

from typing import ClassVar

from .names import ErrorName


class Error(Exception):
    """A failure with a D-Bus error name of its own."""

    name: ClassVar[ErrorName] = ErrorName.FAILED

    @property
    def message(self) -> str:
        return str(self)


class NotFound(Error):
    name = ErrorName.NOT_FOUND


class AlreadyExists(Error):
    name = ErrorName.ALREADY_EXISTS


class InvalidArgs(Error):
    name = ErrorName.INVALID_ARGS


class InvalidName(InvalidArgs):
    name = ErrorName.INVALID_NAME


class InvalidSize(InvalidArgs):
    name = ErrorName.INVALID_SIZE


class WouldShrink(InvalidSize):
    name = ErrorName.WOULD_SHRINK


class HasDependents(Error):
    """Something else exists because of this object, and has to go first."""


class HasSnapshots(HasDependents):
    name = ErrorName.HAS_SNAPSHOTS


class HasClones(HasDependents):
    name = ErrorName.HAS_CLONES


class NewerSnapshots(HasDependents):
    name = ErrorName.NEWER_SNAPSHOTS


class DeviceBusy(Error):
    name = ErrorName.DEVICE_BUSY


class DeviceTimeout(Error):
    name = ErrorName.DEVICE_TIMEOUT


class NoSpace(Error):
    name = ErrorName.NO_SPACE


class PoolUnavailable(Error):
    name = ErrorName.POOL_UNAVAILABLE


class ImportFailed(Error):
    """An image could not be brought in; the target is gone."""


class UnsupportedImage(ImportFailed):
    name = ErrorName.UNSUPPORTED_IMAGE


class UnsafeImage(ImportFailed):
    name = ErrorName.UNSAFE_IMAGE


class CorruptImage(ImportFailed):
    name = ErrorName.CORRUPT_IMAGE


class ChecksumMismatch(ImportFailed):
    name = ErrorName.CHECKSUM_MISMATCH


class DownloadFailed(ImportFailed):
    name = ErrorName.DOWNLOAD_FAILED


class Truncated(ImportFailed):
    name = ErrorName.TRUNCATED


class Cancelled(Error):
    name = ErrorName.CANCELLED


class Interrupted(Error):
    name = ErrorName.INTERRUPTED


class NotCancelable(Error):
    name = ErrorName.NOT_CANCELABLE


class AccessDenied(Error):
    name = ErrorName.ACCESS_DENIED


class InteractiveAuthorizationRequired(AccessDenied):
    name = ErrorName.INTERACTIVE_AUTHORIZATION_REQUIRED


class LimitsExceeded(Error):
    name = ErrorName.LIMITS_EXCEEDED


class UnknownObject(Error):
    name = ErrorName.UNKNOWN_OBJECT


class UnknownInterface(Error):
    name = ErrorName.UNKNOWN_INTERFACE


class UnknownMethod(Error):
    name = ErrorName.UNKNOWN_METHOD


class UnknownProperty(Error):
    name = ErrorName.UNKNOWN_PROPERTY


class PropertyReadOnly(Error):
    name = ErrorName.PROPERTY_READ_ONLY


def _all_errors(base: type[Error]) -> list[type[Error]]:
    return [base, *(found for child in base.__subclasses__() for found in _all_errors(child))]


_BY_NAME: dict[str, type[Error]] = {}
for _error in reversed(_all_errors(Error)):
    _BY_NAME[str(_error.name)] = _error


def from_name(name: str, message: str) -> Error:
    """The error a D-Bus error name stands for; an unknown name becomes a plain ``Error``.

    It turns what a worker process or a job's record says back into the exception it was.
    """
    return _BY_NAME.get(name, Error)(message)
