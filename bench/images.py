"""The images that are imported: made once, kept in ``build/bench/images``.

The disk is made of this system's own programs, libraries and documents, as a guest's is. A half of
it is data, in pieces of 1 to 32 MiB with holes between them.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
_SOURCES = (Path("/usr/bin"), Path("/usr/lib"), Path("/usr/share"))
_BLOCK = 4096
"""Files begin at multiples of it, as in a file system."""
_LONGEST = 32
"""MiB of data, or of a hole, in one piece."""
HUGE = 2 << 40
_HUGE_STEP = 4 << 30
"""Bytes of the huge disk from one cluster of data to the next."""


@dataclass(frozen=True, slots=True)
class Images:
    """One disk in every format, by path, and a huge one that is almost empty."""

    size: int
    raw: Path
    full: Path
    """Raw, but without holes: its zeros are in the file."""
    plain: Path
    zlib: Path
    zstd: Path
    huge: Path


def make(folder: Path, size: int) -> Images:
    """Make what is missing, and bring all of it into the page cache."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("disk.raw", "full.raw", "plain.qcow2", "zlib.qcow2", "zstd.qcow2", "huge.qcow2")
    raw, full, plain, zlib, zstd, huge = (folder / f"{size // MIB}M-{name}" for name in names)
    _once(raw, lambda path: _write_disk(path, size))
    _once(full, lambda path: _run("cp", "--sparse=never", raw, path))
    convert = ("qemu-img", "convert", "-f", "raw", "-O", "qcow2")
    _once(plain, lambda path: _run(*convert, raw, path))
    _once(zlib, lambda path: _run(*convert, "-c", raw, path))
    _once(zstd, lambda path: _run(*convert, "-c", "-o", "compression_type=zstd", raw, path))
    _once(huge, _write_huge)
    images = Images(size, raw, full, plain, zlib, zstd, huge)
    for path in (raw, full, plain, zlib, zstd, huge):
        _warm(path)
    return images


def _once(path: Path, write: Callable[[Path], None]) -> None:
    """A file that is there is whole: it gets its name at the end."""
    if path.exists():
        return
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    write(unfinished)
    unfinished.rename(path)


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def _write_disk(path: Path, size: int) -> None:
    numbers = random.Random(size)
    longest = min(_LONGEST, max(size // MIB // 4, 1))
    data = _data()
    with path.open("wb") as disk:
        disk.truncate(size)
        position = 0
        while position < size:
            for _ in range(min(numbers.randint(1, longest), (size - position) // MIB or 1)):
                disk.seek(position)
                disk.write(next(data)[: size - position])
                position += MIB
            position += numbers.randint(1, longest) * MIB


def _data() -> Iterator[bytes]:
    """MiB after MiB of real files, over and over if there are few."""
    piece = bytearray()
    for path in itertools.cycle(_SOURCES):
        for file in _files(path):
            piece += file.read_bytes()
            piece += bytes(-len(piece) % _BLOCK)
            while len(piece) >= MIB:
                yield bytes(piece[:MIB])
                del piece[:MIB]


def _files(top: Path) -> Iterator[Path]:
    """Regular files, in the same order on every machine."""
    for folder, folders, names in os.walk(top):
        folders.sort()
        for path in (Path(folder, name) for name in sorted(names)):
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                yield path


def _write_huge(path: Path) -> None:
    """2 TiB with a cluster of data in each 4 GiB, so that there are many tables."""
    _run("qemu-img", "create", "-q", "-f", "qcow2", path, str(HUGE))
    writes = "".join(f"write -q {offset} 64k\n" for offset in range(0, HUGE, _HUGE_STEP))
    subprocess.run(
        ["qemu-io", "-f", "qcow2", str(path)],
        input=writes.encode(),
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _warm(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(MIB)
        while file.readinto(buffer):
            pass
