"""qemu takes the command lines of the documentation; in the machine there is none to run them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from console import steps

from tests.machine.machine import CHECKOUT

COMMANDS = [
    step.command
    for page in sorted((CHECKOUT / "docs").rglob("*.md"))
    for step in steps(page)
    if step.command.startswith("qemu-system")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_qemu_starts_a_machine_as_the_page_says(command: str, tmp_path: Path) -> None:
    """Emulated, since not every host has KVM; with the disk in a file; quit before it boots."""
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    command = re.sub(r"\$\([^)]*\)", str(disk), command).replace("-enable-kvm", "-accel tcg")
    done = subprocess.run(
        f"{command} -S -serial none -display none -monitor stdio",
        shell=True,
        input="info block\nquit\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{disk} (raw)" in done.stdout


def test_the_pages_have_such_commands() -> None:
    assert len(COMMANDS) == 2
