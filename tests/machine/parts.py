"""The whole run: its parts side by side, each in a machine of its own."""

from __future__ import annotations

import subprocess
import sys
from threading import Thread
from typing import IO, Final

from tests.machine import image, qemu
from tests.machine.machine import CHECKOUT

PARTS: Final = ("store", "service")
"""As ``guest/run`` knows them."""
_OUTSIDE: Final = "tests/machine/outside"
_BOOT: Final = f"{_OUTSIDE}/test_boot_from_clone.py"
FROM_OUTSIDE: Final = {"store": (_BOOT,), "service": (_OUTSIDE, f"--ignore={_BOOT}")}
"""For pytest on the host, after a part: what is done to its machine from outside. Both parts should
take the same time."""


def run_all(name: str) -> int:
    """The exit status of the first part that failed; lines of each begin with its name."""
    built = image.ensure()  # once, and not by both; and so is KVM tried
    qemu.accelerator(qemu.Kernel(built.kernel, built.initrd))
    running = {part: _start(name, part) for part in PARTS}
    readers = [Thread(target=_tell, args=(part, ran.stdout)) for part, ran in running.items()]
    for reader in readers:
        reader.start()
    try:
        return next(filter(None, [ran.wait() for ran in running.values()]), 0)
    finally:  # whoever is interrupted shuts its machine down
        for ran in running.values():
            ran.terminate()
        for ran, reader in zip(running.values(), readers, strict=True):
            ran.wait()
            reader.join()


def _start(name: str, part: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.machine", "--name", f"{name}-{part}", "test"]
    return subprocess.Popen(
        [*command, "--part", part],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _tell(part: str, output: IO[str] | None) -> None:
    for line in output or ():
        print(f"{part}: {line}", end="", flush=True)
