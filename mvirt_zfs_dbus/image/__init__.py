"""Bytes in, blocks out: images are brought in by worker processes.

Knows no store, no bus, no job.
"""

from .base import FdSource, ImageInfo, Outcome, Progress, Source, UrlSource
from .conversion import Conversion
from .worker import Workers

__all__ = [
    "Conversion",
    "FdSource",
    "ImageInfo",
    "Outcome",
    "Progress",
    "Source",
    "UrlSource",
    "Workers",
]
