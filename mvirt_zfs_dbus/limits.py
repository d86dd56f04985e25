"""How much of everything there may be, so that nobody takes all of it. What calls may take of the
bus is bounded in ``bus/admission.py``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What the administrator may set; the config file has the same names after ``max-``."""

    jobs: int = 1024
    """Jobs that are not finished, those that run included. Each may hold a file open."""
    jobs_per_user: int = 256
    objects: int = 50_000
    """Volumes, templates and snapshots. Each takes about 5 KiB of memory, and 500 to 700 bytes of
    an answer with all of them, which a bus takes up to 32 MiB of (bus/library.py)."""
    snapshots: int = 1000
    """Snapshots of a volume. Each new one makes its clients read the names of all."""
    spool: int = 64 * 2**30
    """Bytes of temporary files of all imports."""
