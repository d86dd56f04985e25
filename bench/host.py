"""The machine a benchmark ran on, as far as it matters for the figures."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import mvirt_zfs_dbus
from mvirt_zfs_dbus.image import decompress

ROOT = Path(__file__).resolve().parents[1]
_TOOLS: Mapping[str, tuple[str, ...]] = {
    "qemu-img": ("qemu-img", "--version"),
    "cp": ("cp", "--version"),
    "curl": ("curl", "--version"),
    "nginx": ("nginx", "-v"),
}


def describe(directory: Path) -> dict[str, object]:
    """For the JSON; ``directory`` is where the disks are written."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": mvirt_zfs_dbus.__version__,
        "commit": _first_line("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release().partition("-")[0],
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "file_system": _first_line("stat", "--file-system", "--format=%T", str(directory)),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "zlib": decompress.zlib_library.__name__,
        "zstandard": _version("zstandard"),
        "dbus_fast": _version("dbus-fast"),
        "aiohttp": _version("aiohttp"),
        "tools": {name: _first_line(*command) for name, command in _TOOLS.items()},
    }


def in_words(described: Mapping[str, object]) -> str:
    memory = int(str(described["memory"])) >> 30
    return (
        f"{described['processors']} × {described['processor']}, {memory} GiB, Linux"
        f" {described['kernel']}, {described['system']}, disks on {described['file_system']},"
        f" load {float(str(described['load'])):.2f} before the run"
    )


def empty_page_cache() -> None:
    """proc(5), drop_caches. PermissionError: only root may."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.partition("\n")[0].strip()
