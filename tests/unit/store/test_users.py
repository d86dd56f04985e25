from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hung_files import GETATTR, hung_files, needs_fuse

from mvirt_zfs_dbus.errors import DeviceBusy
from mvirt_zfs_dbus.store.files import users
from mvirt_zfs_dbus.store.files.users import users_of

HOLD = "import sys; held = open(sys.argv[1]); print('open', flush=True); input()"


def test_a_process_that_has_the_file_open_is_named(tmp_path: Path) -> None:
    file = tmp_path / "disk"
    file.touch()
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        assert [user.pid for user in users_of(file.stat())] == [holder.pid]
        holder.communicate(b"\n")
    with file.open():
        assert users_of(file.stat()) == [], "this process is not counted"


def test_a_process_that_ends_meanwhile_is_no_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "disk"
    file.touch()
    really_has_open = users._has_open
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        looked_at = []

        def has_open(pid: int, wanted: users.Identity) -> bool:
            found = really_has_open(pid, wanted)
            if pid == holder.pid:
                looked_at.append(found)
                holder.kill()
                holder.wait()
            return found

        monkeypatch.setattr(users, "_has_open", has_open)
        assert users_of(file.stat()) == []
        assert looked_at == [True]


def test_what_is_no_disk_is_used_by_nobody(tmp_path: Path) -> None:
    """Every process has pipes, sockets and /dev/null open: they are nobody's disk."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        assert users_of(path.stat()) == []


@needs_fuse
def test_a_process_whose_file_system_does_not_answer_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "PATIENCE", 0.5)
    disk = tmp_path / "disk"
    disk.touch()
    with hung_files(tmp_path / "hung") as files:
        command = [sys.executable, "-c", HOLD, str(files.path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"open\n"
            files.hung, files.hung_for = {GETATTR}, os.getpid()
            for _ in range(users._MOST_HUNG + 1):
                with pytest.raises(DeviceBusy, match="cannot be told"):
                    users_of(disk.stat())
            files.go_on()
            for thread in threading.enumerate():
                if thread.name == "users":
                    thread.join()
            monkeypatch.undo()
            assert users_of(disk.stat()) == []
            holder.communicate(b"\n")
