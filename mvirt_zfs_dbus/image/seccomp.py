"""System calls that a program may not make any more, filtered by the kernel (seccomp(2)).

The filter is built by libseccomp, which systemd needs as well, so that it is there. It refuses what
qemu-img has no business with, and leaves the rest: what else a program calls changes with its
libraries. Files are no matter of this filter; Landlock keeps them away.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from typing import Final

_LIBRARY: Final = "libseccomp.so.2"
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_NOT_EQUAL, _EQUAL, _MASKED_EQUAL = 1, 4, 7
"""seccomp.h: SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(…), enum scmp_compare."""
_CLONE_THREAD: Final = 0x00010000
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15

_REFUSED: Final = (
    *("socket", "connect", "bind", "listen", "accept", "accept4"),
    *("fork", "vfork", "execveat", "ptrace", "process_vm_readv", "process_vm_writev"),
    *("process_madvise", "kcmp", "pidfd_open", "pidfd_getfd", "pidfd_send_signal"),
    *("kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "setpriority", "ioprio_set"),
    *("sched_setscheduler", "sched_setparam", "sched_setattr", "sched_setaffinity"),
    *("shmget", "shmat", "shmctl", "semget", "semop", "semctl", "msgget", "msgsnd", "msgrcv"),
    *("msgctl", "mq_open", "mq_unlink", "add_key", "request_key", "keyctl"),
    *("unshare", "setns", "chroot", "pivot_root", "mount", "umount2", "move_mount", "open_tree"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "name_to_handle_at"),
    *("open_by_handle_at", "bpf", "perf_event_open", "userfaultfd", "quotactl", "swapon"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "acct"),
)
_NOT_HERE: Final = ("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register")
"""Calls whose arguments no filter sees, or that go past all filters: a kernel without them is
played, and libraries fall back to what can be seen."""


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


class Filter:
    """A filter being built. It has to be made where files can be opened still."""

    def __init__(self) -> None:
        """OSError: there is no libseccomp."""
        self._library = ctypes.CDLL(_LIBRARY, use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(_ALLOW))
        if not self._context:
            raise OSError(errno.ENOMEM, "no seccomp filter could be made")

    def refuse(self, names: Iterable[str], number: int, *comparisons: _Comparison) -> None:
        """These calls fail with this errno where all comparisons hold."""
        array = (_Comparison * len(comparisons))(*comparisons)
        for name in names:
            call = self._library.seccomp_syscall_resolve_name(name.encode())
            if call == -1:  # this libseccomp does not know it
                continue
            self._check(
                self._library.seccomp_rule_add_array(
                    self._context, _ERRNO | number, call, len(comparisons), array
                )
            )

    def load(self) -> None:
        """From here on, for this process and what it becomes. It needs no_new_privs."""
        self._check(self._library.seccomp_load(self._context))

    @staticmethod
    def _check(result: int) -> None:
        if result < 0:
            raise OSError(-result, os.strerror(-result))


def lonely_program() -> Filter:
    """No socket, no other process to begin or to touch, no part of the kernel it does not need."""
    found = Filter()
    found.refuse(_REFUSED, errno.EPERM)
    found.refuse(_NOT_HERE, errno.ENOSYS)
    found.refuse(["clone"], errno.EPERM, _Comparison(0, _MASKED_EQUAL, _CLONE_THREAD, 0))
    found.refuse(["tgkill"], errno.EPERM, _Comparison(0, _NOT_EQUAL, os.getpid()))
    found.refuse(["prlimit64"], errno.EPERM, _Comparison(0, _NOT_EQUAL, 0))
    for command in (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX):
        found.refuse(["fcntl"], errno.EPERM, _Comparison(1, _EQUAL, command))
    return found
