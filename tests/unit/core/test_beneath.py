"""Paths below a directory lead where the kernel's own RESOLVE_BENEATH leads, and nowhere else."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from open_fds import open_fds

from mvirt_zfs_dbus.core import beneath

_libc = ctypes.CDLL(None, use_errno=True)


def kernel(directory: int, relative: str) -> int | str:
    """The inode, or the errno's name, as openat2(2) answers with RESOLVE_BENEATH."""
    how = struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC, 0, 0x08 | 0x02)
    number = errno.EAGAIN  # something, somewhere, was renamed while it went through ``..``
    while number == errno.EAGAIN:
        fd = _libc.syscall(437, directory, relative.encode(), how, len(how))
        number = ctypes.get_errno() if fd < 0 else 0
    if number:
        return errno.errorcode[number]
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def ours(directory: int, relative: str) -> int | str:
    try:
        fd = beneath.place(directory, relative)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


names = st.sampled_from(["a", "b", "c", "..", "."])
paths = st.lists(names, min_size=1, max_size=6).map("/".join)
targets = st.one_of(paths, paths.map("/".__add__), st.just("/proc/self/root"))


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.tuples(st.sampled_from(["", "a/", "b/", "a/c/"]), st.sampled_from("abc")),
                       targets, max_size=5), paths)  # fmt: skip
@example({("", "c"): "a/../a/c"}, "c/../../b")
@example({("", "c"): "a", ("a/", "b"): "../../x"}, "c/b")
@example({("", "c"): "c"}, "c")
def test_it_leads_where_the_kernel_leads(links, path):
    with tempfile.TemporaryDirectory() as root:
        inside = Path(root) / "inside"
        (inside / "a" / "c").mkdir(parents=True)
        (inside / "b").write_text("file")
        for (folder, name), target in links.items():
            place = inside / folder / name
            if not place.exists() and not place.is_symlink() and place.parent.is_dir():
                place.symlink_to(target)
        directory = os.open(inside, os.O_PATH | os.O_DIRECTORY)
        before = open_fds()
        try:
            assert ours(directory, path) == kernel(directory, path)
            assert open_fds() == before
        finally:
            os.close(directory)


def test_it_needs_no_openat2(tmp_path, monkeypatch):
    """In a unit with RestrictSUIDSGID= that call is ENOSYS; here no call by number is made."""
    (tmp_path / "disk").write_text("disk")
    monkeypatch.setattr(ctypes.CDLL, "__getattr__", lambda *_: pytest.fail("a call by number"))
    directory = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    fd = beneath.place(directory, "disk")
    assert os.fstat(fd).st_ino == (tmp_path / "disk").stat().st_ino
    os.close(fd)
    os.close(directory)
