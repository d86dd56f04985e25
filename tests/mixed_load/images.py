"""Small images for a load to import, made by qemu-img."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .world import State, content

MIB = 1 << 20


@dataclass(frozen=True)
class Image:
    file: Path
    state: State
    """What the disk in it is."""


def make_images(folder: Path, chance: random.Random) -> list[Image]:
    """Two disks of 2 MiB with a hole in the middle, each as raw and compressed."""
    made = []
    for number, compression in enumerate(("zlib", "zstd")):
        raw, qcow2 = folder / f"{number}.raw", folder / f"{number}.qcow2"
        noise = chance.randbytes(MIB // 2)
        raw.write_bytes(noise + bytes(MIB) + noise)
        convert = ["qemu-img", "convert", "-c", "-O", "qcow2"]
        subprocess.run([*convert, "-o", f"compression_type={compression}", raw, qcow2], check=True)
        state = State(2 * MIB, content(raw))
        made += [Image(raw, state), Image(qcow2, state)]
    return made
