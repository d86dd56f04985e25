"""What a worker process gives up before it reads a byte from outside.

The converter keeps the file descriptors it is handed and nothing else: no file system, no network,
no root, no further process. The downloader keeps the network, and reads what name resolution and
TLS read. A program that is run for an image reads itself and its libraries. Namespaces and Landlock
are taken where the kernel has them and lets us; giving up root and privileges has to work, or there
is no worker.

Sources: landlock(7), prctl(2), unshare(2), capset(2), setrlimit(2) and the kernel's uapi headers.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import operator
import os
import resource
import ssl
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

NOBODY: Final = 65534
"""The kernel's overflow uid and gid."""
MEMORY: Final = 1 << 30
"""Bytes of address space: the modules, four threads and their buffers take a third of it."""
FILES: Final = 64

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 1, 4, 15, 38
_SIGKILL: Final = 9
_CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET = 0x08000000, 0x10000000, 0x40000000
_CAPABILITY_VERSION_3: Final = 0x20080522
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_VERSION: Final = 1
_LANDLOCK_PATH_BENEATH: Final = 1
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 5: 16}
"""Landlock ABI → how many file system rights it knows, as the lowest bits."""
_TCP: Final = 0b11
_SCOPES: Final = 0b11
"""Abstract UNIX sockets and signals to the outside."""

_READABLE: Final = (
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
)
"""Where name resolution and TLS have their files; what of it nobody may read is refused anyway."""

_libc = ctypes.CDLL(None, use_errno=True)


def enter_converter(parent_pid: int) -> None:
    """No file system and no network. OSError: root or privileges could not be given up."""
    _unshare(_CLONE_NEWNET, _CLONE_NEWIPC)
    _drop_root()
    _landlock((), network=False)
    _limit(parent_pid)


def enter_downloader(parent_pid: int) -> None:
    """No file system but what the network needs. OSError as above."""
    _unshare(_CLONE_NEWIPC)
    _drop_root()
    _landlock((*_READABLE, *_certificates()), network=True)
    _limit(parent_pid)


def enter_program(
    parent_pid: int,
    files: Callable[[], Iterable[str]],
    *,
    memory: int,
    seconds: int,
    output: int,
) -> None:
    """No network, no file but ``files``, which can be run. OSError as above.

    ``memory`` and ``output``: bytes of address space, and of any file that is written. ``seconds``
    of CPU time. ``files`` is asked for when root is given up already.
    """
    _unshare(_CLONE_NEWNET, _CLONE_NEWIPC)
    _drop_root()
    _landlock(files(), network=False, run=True)
    _limit(parent_pid, memory)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (output, output))


def forbid_processes() -> None:
    """No process and no thread may begin from now on (setrlimit(2), RLIMIT_NPROC)."""
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _unshare(*namespaces: int) -> None:
    """Best effort, each by itself: the service's unit forbids some."""
    if os.geteuid() != 0:
        _libc.unshare(functools.reduce(operator.or_, namespaces, _CLONE_NEWUSER))
        return
    for namespace in namespaces:
        _libc.unshare(namespace)


def _drop_root() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    # A new user namespace has made us mighty inside it; that is enough to attack the kernel.
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _limit(parent_pid: int, memory: int = MEMORY) -> None:
    _prctl(_PR_SET_DUMPABLE, 0)
    # After the change of user, which clears it.
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent_pid:
        raise ProcessLookupError("the fork server is gone")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))


def name_process(name: str) -> None:
    """What ps(1) shows; at most 15 bytes."""
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def landlock_abi() -> int:
    """0 where the kernel has none."""
    version: int = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    return max(version, 0)


def _landlock(readable: Iterable[str], *, network: bool, run: bool = False) -> None:
    abi = landlock_abi()
    if not abi:
        return
    rights = (1 << max(count for since, count in _FILE_RIGHTS.items() if since <= abi)) - 1
    attributes = struct.pack(
        "QQQ", rights, _TCP if abi >= 4 and not network else 0, _SCOPES if abi >= 6 else 0
    )
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _check(_libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, size, 0))
    try:
        for path in readable:
            with contextlib.suppress(FileNotFoundError, PermissionError):
                _allow(ruleset, path, _EXECUTE if run else 0)
        _check(_libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, more: int) -> None:
    """Reading, and ``more``."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = more | (_READ_FILE | _READ_DIR if Path(path).is_dir() else _READ_FILE)
        rule = struct.pack("=Qi", rights, fd)
        _check(_libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_PATH_BENEATH, rule, 0))
    finally:
        os.close(fd)


def _certificates() -> list[str]:
    """Where OpenSSL looks, as the environment or the administrator may have set it."""
    paths = ssl.get_default_verify_paths()
    return [path for path in (paths.cafile, paths.capath) if path]


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, value, 0, 0, 0))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
