"""The files of the checkout as they are now, committed or not, as a tar."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import IO

LIST = ".pushed"  # the member that names the others, NUL after each, sorted


def files(checkout: Path) -> list[str]:
    """Paths of what git tracks or would add, without what the working tree has deleted."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=checkout,
        stdout=subprocess.PIPE,
        check=True,
    )
    names = {name.decode() for name in listed.stdout.split(b"\0") if name}
    return sorted(name for name in names if (checkout / name).is_file())


def write_tar(checkout: Path, output: IO[bytes]) -> None:
    """Writes the files and their list; every file is root's."""
    names = files(checkout)
    with tarfile.open(fileobj=output, mode="w|") as tar:
        for name in names:
            tar.add(checkout / name, name, filter=_root)
        content = b"".join(sorted(name.encode() + b"\0" for name in names))
        member = tarfile.TarInfo(LIST)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def _root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
