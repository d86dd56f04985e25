"""A virtual machine boots from a clone of an imported template."""

from __future__ import annotations

import json
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.machine import qemu, small_debian
from tests.machine.machine import Machine

IMAGES = "/var/lib/mvirt/images"
BOOT_SECONDS = 900
CLONE = f"""
set -e
mvirt-zfsctl import --template debian {IMAGES}/disk.qcow2 >&2
mvirt-zfsctl template clone debian web-1 --size 768M >&2
mvirt-zfsctl --json volume show web-1
"""
SPARE = "/dev/disk/by-id/virtio-spare"
"""A disk of the machine that the host can read, as it cannot read a volume in the guest's pool."""


def test_a_clone_of_an_imported_debian_boots_to_its_login_prompt(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = small_debian.ensure()
    machine.output(f"mkdir -p {IMAGES}")
    with machine.start_command(f"cat >{IMAGES}/disk.qcow2") as sending:
        assert sending.stdin is not None
        with image.open("rb") as file:
            shutil.copyfileobj(file, sending.stdin.buffer)
    began = time.monotonic()
    device = json.loads(machine.output(CLONE))["Device"]
    imported = time.monotonic() - began
    machine.output(f"dd if={device} of={SPARE} bs=4M conv=fsync status=none")
    disk = tmp_path / "clone.img"  # qemu locks those that a machine has
    subprocess.run(["cp", "--sparse=always", machine.directory / "spare.img", disk], check=True)
    seconds = boot(machine, disk)
    with capsys.disabled():
        print(f"\nimported and cloned in {imported:.0f} s; login prompt after {seconds:.0f} s")


def boot(machine: Machine, disk: Path) -> float:
    """Boots a disk in a qemu of its own; seconds to the login prompt."""
    kernel = qemu.Kernel(machine.directory / "vmlinuz", machine.directory / "initrd.img")
    command = [
        *("qemu-system-x86_64", "-machine", "q35", *qemu.accelerator(kernel)),
        *("-smp", qemu.several(1), "-m", "512"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *kernel.options,
        *("-append", "console=ttyS0 panic=-1 root=/dev/vda rw quiet"),
        *("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"),
    ]
    began = time.monotonic()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0
    ) as vm:
        assert vm.stdout is not None
        said = b""
        try:
            while small_debian.LOGIN_PROMPT.encode() not in said:
                left = began + BOOT_SECONDS - time.monotonic()
                assert select.select([vm.stdout], [], [], max(0, left))[0], said.decode()
                received = vm.stdout.read(4096)
                assert received, f"the machine ended: {said.decode()}"
                said += received
        finally:
            vm.kill()
    return time.monotonic() - began
