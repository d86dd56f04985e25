"""Writing to a zvol: past the page cache or through it, how much at once, how much in flight.

Run as root where ZFS is: ``python3 -m bench.zvol POOL``; ``make bench-machine`` does so in the test
machine, and makes a table of what this prints. Only the standard library, for it runs in a bare
Debian.
"""

from __future__ import annotations

import argparse
import itertools
import json
import mmap
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
DEPTHS = (1, 4, 16)
BATCHES = (128 << 10, 1 << 20, 4 << 20)
_PATIENCE = 30.0
"""Seconds for udev to make the device's link."""
_TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool")
    parser.add_argument("--size", type=int, default=128, metavar="MIB", help="%(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="%(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go too")
    arguments = parser.parse_args()
    name = f"{arguments.pool}/bench-zvol"
    size = arguments.size * MIB
    runs: list[dict[str, object]] = []
    for _ in range(arguments.rounds):
        for direct, batch, depth in itertools.product((True, False), BATCHES, DEPTHS):
            seconds, cpu = _run(name, size, direct=direct, batch=batch, depth=depth)
            figures = {"direct": direct, "batch": batch, "depth": depth, "bytes": size}
            runs.append(figures | {"seconds": seconds, "cpu": cpu})
            print(json.dumps(runs[-1]), flush=True)
    if arguments.json:
        about = {"zfs": _zfs_version(), "kernel": os.uname().release, "processors": os.cpu_count()}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(about | {"runs": runs}))


def _run(name: str, size: int, *, direct: bool, batch: int, depth: int) -> tuple[float, float]:
    """Wall and CPU seconds for a fresh zvol of so many bytes, the fsync included."""
    zfs("create", "-s", "-b", "16k", "-V", str(size), name)
    try:
        flags = os.O_RDWR | (os.O_DIRECT if direct else 0)
        device = os.open(_appeared(Path("/dev/zvol") / name), flags)
        try:
            cpu, began = _busy(), time.monotonic()
            _write(device, size, batch, depth)
            os.fsync(device)
            return time.monotonic() - began, _busy() - cpu
        finally:
            os.close(device)
    finally:
        _destroy(name)


def _write(device: int, size: int, batch: int, depth: int) -> None:
    buffer = _data(batch)
    offsets = iter(range(0, size, batch))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                offset = next(offsets, None)
            if offset is None:
                return
            os.pwrite(device, memoryview(buffer)[: size - offset], offset)

    threads = [threading.Thread(target=work) for _ in range(depth)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _data(length: int) -> mmap.mmap:
    """Page-aligned, as O_DIRECT wants it; every second KiB cannot be compressed."""
    buffer = mmap.mmap(-1, length)
    kib = bytes(range(256)) * 4
    numbers = random.Random(length)
    pieces: Iterator[bytes] = itertools.cycle((kib, b""))
    for _ in range(0, length, 1024):
        buffer.write(next(pieces) or numbers.randbytes(1024))
    return buffer


def _busy() -> float:
    """Seconds that the processors have worked, in the kernel's threads too (proc(5))."""
    first = Path("/proc/stat").read_text().splitlines()[0].split()
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, first[1:])
    return (user + nice + system + irq + softirq) / _TICK


def _appeared(device: Path) -> Path:
    subprocess.run(["udevadm", "wait", f"--timeout={_PATIENCE:g}", device], check=True)
    return device


def _destroy(name: str) -> None:
    """udev may look at a device that was just closed."""
    subprocess.run(["udevadm", "settle"], check=True)
    zfs("destroy", name)


def _zfs_version() -> str:
    return Path("/sys/module/zfs/version").read_text().strip()


def zfs(*arguments: str) -> None:
    subprocess.run(["zfs", *arguments], check=True)


if __name__ == "__main__":
    main()
