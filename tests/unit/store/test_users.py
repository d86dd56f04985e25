from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def test_what_is_no_disk_is_used_by_nobody(tmp_path: Path) -> None:
    """Every process has pipes, sockets and /dev/null open: they are nobody's disk."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        assert users_of(path.stat()) == []
