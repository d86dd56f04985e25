"""Images of other hypervisors, made by qemu-img."""

from __future__ import annotations

import subprocess
from pathlib import Path

KINDS = {
    "vmdk": "subformat=monolithicSparse",
    "stream.vmdk": "subformat=streamOptimized",
    "vhdx": "subformat=dynamic",
    "vdi": "static=off",
    "vpc": "subformat=dynamic,force_size=on",
    "fixed.vpc": "subformat=fixed,force_size=on",
}
"""The end of a file's name, and the options of qemu-img for it."""


def convert(raw: Path, kind: str, made: Path) -> None:
    """Make the image of a raw disk."""
    command = ["qemu-img", "convert", "-O", kind.rpartition(".")[2], "-o", KINDS[kind]]
    subprocess.run([*command, raw, made], check=True)
