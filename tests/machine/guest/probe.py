"""What a process in the unit's place can do: tried, and told as JSON. Run as its ExecStart=.

It stands for a service that an attacker has taken over, with all its capabilities.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWUSER, _CLONE_NEWPID = 0x10000000, 0x20000000
_SYS_INIT_MODULE, _SYS_BPF, _SYS_PTRACE, _SYS_KEXEC_LOAD, _SYS_REBOOT = 175, 321, 101, 246, 169
_SYS_SETNS, _PTRACE_ATTACH = 308, 16


def _call(number: int, *arguments: int) -> None:
    if _libc.syscall(number, *arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _connect(address: str) -> None:
    with socket.socket() as tried:
        tried.settimeout(5)
        tried.connect((address, 80))


def _socket(family: int, kind: int, protocol: int = 0) -> None:
    socket.socket(family, kind, protocol).close()


def _write(path: str) -> None:
    Path(path).write_text("owned")


def _open_disk() -> None:
    os.close(os.open("/dev/vda", os.O_RDONLY))


def _executable_memory() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def _setuid_file() -> None:
    path = Path(sys.argv[1]).with_suffix(".suid")
    path.touch()
    path.chmod(0o4755)


TRIES: dict[str, Callable[[], object]] = {
    "write below /etc": lambda: _write("/etc/mvirt-probe"),
    "write below /usr": lambda: _write("/usr/bin/mvirt-probe"),
    "write to another's state": lambda: _write("/var/lib/mvirt-probe"),
    "read a home": lambda: Path("/root/.ssh/authorized_keys").read_bytes(),
    "open the system's disk": _open_disk,
    "set a kernel parameter": lambda: _write("/proc/sys/kernel/core_pattern"),
    "make a setuid file": _setuid_file,
    "map memory to write and execute": _executable_memory,
    "load a kernel module": lambda: _call(_SYS_INIT_MODULE, 0, 0, 0),
    "load a BPF program": lambda: _call(_SYS_BPF, 5, 0, 0),
    "attach to init": lambda: _call(_SYS_PTRACE, _PTRACE_ATTACH, 1, 0, 0),
    "load another kernel": lambda: _call(_SYS_KEXEC_LOAD, 0, 0, 0, 0),
    "reboot": lambda: _call(_SYS_REBOOT, 0, 0, 0),
    "make a user namespace": lambda: _unshare(_CLONE_NEWUSER),
    "make a process namespace": lambda: _unshare(_CLONE_NEWPID),
    "open a raw socket": lambda: _socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "open a packet socket": lambda: _socket(socket.AF_PACKET, socket.SOCK_RAW),
    "open a netlink socket": lambda: _socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "reach a cloud's metadata": lambda: _connect("169.254.169.254"),
    "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "set the host's name": lambda: socket.sethostname("owned"),
    # What it does need is let through: a probe that can do nothing at all would prove nothing.
    "write below its state directory": lambda: _write("/var/lib/mvirt-zfs-dbus/probe"),
    "open /dev/zfs": lambda: os.close(os.open("/dev/zfs", os.O_RDWR)),
    "open an Internet socket": lambda: _socket(socket.AF_INET, socket.SOCK_STREAM),
    "read an image of another user's": lambda: Path(sys.argv[2]).read_bytes(),
}


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return error.strerror or str(error)
    return "done"


if __name__ == "__main__":
    found = {what: outcome(attempt) for what, attempt in TRIES.items()}
    Path(sys.argv[1]).write_text(json.dumps(found))
