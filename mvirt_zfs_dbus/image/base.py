"""What goes into an import and what comes out of it: plain values, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from ..model import Phase


@dataclass(frozen=True, slots=True)
class FdSource:
    """An open file, block device, pipe or socket. Borrowed: who opened it closes it."""

    fd: int


@dataclass(frozen=True, slots=True)
class UrlSource:
    """Something to download over http or https."""

    url: str


Source = FdSource | UrlSource


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What is known of an image before a byte of it is written."""

    format: str
    """One of ``rules.IMAGE_FORMATS``, as it was found to be."""
    virtual_size: int | None
    """Bytes of the disk in it; None for a raw stream of unknown length."""
    allocated: int | None
    """Bytes of that disk that hold data, at most; None where that is not known beforehand."""


@dataclass(frozen=True, slots=True)
class Progress:
    phase: Phase
    bytes_done: int
    bytes_total: int
    """Both count the source's bytes. 0: the total is unknown."""


@dataclass(frozen=True, slots=True)
class Outcome:
    size: int
    """Bytes of the disk that was written."""
    digest: str | None
    """Of the source's bytes, in lower-case hexadecimal, when one was asked for."""
