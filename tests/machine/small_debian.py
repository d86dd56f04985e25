"""A small Debian as a disk image, for a virtual machine to boot from a clone of it."""

from __future__ import annotations

from pathlib import Path

from tests.machine.cache import HERE, cache_directory, cached, digest
from tests.machine.debian import SUITE, bootstrap, require, run
from tests.machine.image import make_disk

PACKAGES = ["systemd-sysv", "udev"]
SIZE = "512M"
HOSTNAME = "small-debian"
LOGIN_PROMPT = f"{HOSTNAME} login:"


def ensure() -> Path:
    """A qcow2 image, compressed with zstd: from the cache, or built (about a minute)."""
    require("mmdebstrap", "mke2fs", "qemu-img")
    key = digest([SUITE, SIZE, HOSTNAME, *PACKAGES], [HERE / "make-disk"])
    return cached(cache_directory(), "small", key, _build) / "disk.qcow2"


def _build(target: Path) -> None:
    tar, raw = target / "root.tar", target / "disk.raw"
    bootstrap(PACKAGES, tar)
    with raw.open("wb") as output:
        make_disk(HOSTNAME, SIZE, [tar], output)
    convert = ["qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd"]
    run([*convert, str(raw), str(target / "disk.qcow2")], "qemu-img cannot compress the image")
    tar.unlink()
    raw.unlink()
