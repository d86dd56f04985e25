"""What the operating system says, as what a client understands."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...errors import Error, InvalidSize, NoSpace, PoolUnavailable

_LOST: Final = frozenset({errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN, errno.EROFS})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def failures_of(path: Path) -> Iterator[None]:
    """Turn each OSError into an error of ours. ``path`` is the store's directory."""
    try:
        yield
    except OSError as error:
        raise _explained(error, path) from error


def _explained(error: OSError, path: Path) -> Error:
    if error.errno in _FULL:
        return NoSpace(f"{path} is full: {error.strerror}; free some space, or make it smaller")
    if error.errno == errno.EFBIG:
        return InvalidSize(f"the file system of {path} has no files as large as that")
    if error.errno in _LOST or not path.exists():
        return PoolUnavailable(f"{path} cannot be used: {error.strerror}")
    return Error(f"{path}: {error}")
