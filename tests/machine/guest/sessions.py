"""A shell in this machine in which the sessions of the documentation can be typed.

Two programs are doubles, since the machine has no network to get them from: jq, of which no more
is there than the pages use (they are replayed with the real one in tests/bus/service), and
qemu-system-x86_64, which opens the disk it is given with qemu's own block layer, as a machine that
runs, and boots nothing. That a clone boots is tests/machine/outside/test_boot_from_clone.py.
"""

from __future__ import annotations

import os
import random
import select
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import host
from console import Shell
from host import MIB

DOCS = Path(__file__).parents[3] / "docs"
IMAGE = "debian-12-nocloud-amd64.qcow2"

_JQ = """#!/usr/bin/python3
import json, re, sys
value = json.load(sys.stdin)
for key, index in re.findall(r"\\.(\\w+)|\\[(\\d+)\\]", sys.argv[2]):
    value = value[key] if key else value[int(index)]
print(value)
"""
_QEMU = """#!/bin/sh
for word; do
    case $word in file=*) disk=${{word#file=}} ;; esac
done
exec {program} --fork --persistent --format=raw --socket={folder}/vm.socket \\
    --pid-file={folder}/vm.pid "${{disk%%,*}}"
"""
_APT = """
APT::Install-Recommends "false"; // what is not in the machine cannot be fetched
"""


@asynccontextmanager
async def shell_in(folder: Path) -> AsyncIterator[Shell]:
    """A shell of root's in a folder, which is made."""
    programs = folder.with_suffix(".programs")
    for each in (folder, programs):
        each.mkdir()
    nbd = programs / "qemu" / "qemu-system-x86_64"  # the kernel shows a process by this name
    nbd.parent.mkdir()
    nbd.symlink_to("/usr/bin/qemu-nbd")
    _program(programs / "jq", _JQ)
    _program(programs / "qemu-system-x86_64", _QEMU.format(program=nbd, folder=programs))
    (programs / "apt.conf").write_text(_APT)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "APT_CONFIG": str(programs / "apt.conf"),
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C.UTF-8",
    }
    shell = await Shell.start(folder, environment)
    try:
        yield shell
    finally:
        await shell.end()
        switch_off(folder)


def switch_off(folder: Path) -> None:
    """Ends the virtual machine that was started in the shell of this folder, if any."""
    pid_file = folder.with_suffix(".programs") / "vm.pid"
    if not pid_file.exists():
        return
    process = os.pidfd_open(int(pid_file.read_text()))
    for _ in range(6):  # one that is starting forgets what came
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGTERM)
        if select.select([process], [], [], 5)[0]:
            break
    else:
        raise AssertionError("qemu-nbd does not end")
    os.close(process)
    pid_file.unlink(missing_ok=True)


def make_image(qcow2: Path) -> None:
    """A disk of 64 MiB, 2 of them data, in the place of a Debian."""
    raw = qcow2.with_suffix(".raw")
    raw.write_bytes(random.Random(6).randbytes(2 * MIB))
    os.truncate(raw, 64 * MIB)
    host.run("qemu-img", "convert", "-O", "qcow2", raw, qcow2)
    raw.unlink()


def make_images(folder: Path) -> None:
    """Those that the pages speak of: a whole one, one that names another, and half of one."""
    make_image(folder / IMAGE)
    overlay = folder / "overlay.qcow2"
    host.run("qemu-img", "create", "-f", "qcow2", "-F", "qcow2", "-b", folder / IMAGE, overlay)
    whole = (folder / IMAGE).read_bytes()
    (folder / "half.qcow2").write_bytes(whole[: len(whole) // 2])


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
