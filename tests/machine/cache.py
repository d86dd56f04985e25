"""What was built once, in the user's cache: directories named by a hash of all they are made of."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path(__file__).parent
KEPT = 3  # entries of each stage: a developer goes back and forth between branches

Build = Callable[[Path], None]
"""Fills the empty directory it is given."""


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mvirt-zfs-dbus"


def cached(cache: Path, stage: str, key: str, build: Build) -> Path:
    """The cache's directory of this stage and key, built beside it and renamed into place."""
    entry = cache / f"{stage}-{key}"
    with (cache / f"{stage}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who comes while it is built waits for it
        if entry.is_dir():
            os.utime(entry)
            return entry
        for left in cache.glob(f".{stage}-*"):  # by a build that was killed: the lock is ours
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{stage}-") as scratch:
            target = Path(scratch) / "entry"
            target.mkdir()
            build(target)
            target.rename(entry)
        _prune(cache, stage)
    return entry


def _prune(cache: Path, stage: str) -> None:
    entries = sorted(cache.glob(f"{stage}-*"), key=lambda entry: entry.stat().st_mtime)
    for entry in entries[:-KEPT]:
        shutil.rmtree(entry)


def digest(words: Iterable[str], files: Iterable[Path]) -> str:
    """What names a cache entry: the words, and each file's place, mode and content."""
    digest = hashlib.sha256()
    for word in words:
        digest.update(f"{word}\0".encode())
    for file in files:
        mode = "x" if os.access(file, os.X_OK) else "-"
        digest.update(f"{file.relative_to(HERE)}\0{mode}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
