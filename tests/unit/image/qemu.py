"""Real images, and what QEMU says is in them."""

from __future__ import annotations

import subprocess
from pathlib import Path


def run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=60)


def create(path: Path, size: int, **options: object) -> None:
    words = [f"{key}={value}" for key, value in options.items()]
    run("qemu-img", "create", "-q", "-f", "qcow2", *(["-o", ",".join(words)] if words else []),
        path, str(size))  # fmt: skip


def io(path: Path, *commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    run("qemu-io", "-f", "qcow2", *words, path)


def disk(path: Path) -> bytes:
    """The whole disk in a qcow2 image."""
    raw = path.with_suffix(".oracle")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
    try:
        return raw.read_bytes()
    finally:
        raw.unlink()
