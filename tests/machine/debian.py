"""Debian, made by mmdebstrap from where the host gets its packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

SUITE = "bookworm"
COMPONENTS = "main contrib"
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # mke2fs is in sbin


class ImageError(Exception):
    """An image cannot be built here; the message says what is missing."""


def bootstrap(names: list[str], tar: Path, hook: str = "") -> None:
    """A Debian of these packages as a tar of its files; ``hook`` is a script that gets its root."""
    command = [
        *("mmdebstrap", "--variant=minbase", "--format=tar"),
        *(f"--components={COMPONENTS.replace(' ', ',')}", f"--include={','.join(names)}"),
        *('--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Retries "5"'),
        *([f"--customize-hook={hook}"] if hook else []),
        *(SUITE, "-", *mirror()),
    ]
    with tar.open("wb") as output:  # on stdout: in a user namespace root may not write here
        try:
            run(command, "mmdebstrap cannot make a Debian", stdout=output)
        except ImageError as error:
            # Perhaps the archive changed between its lists and its packages.
            print(f"{error}; once more", file=sys.stderr)
            output.truncate(0)
            output.seek(0)
            run(command, "mmdebstrap cannot make a Debian", stdout=output)


def packages(text: str) -> list[str]:
    """Package names of a list with comments from `#` to the end of the line."""
    return [word for line in text.splitlines() for word in line.partition("#")[0].split()]


def mirror() -> list[str]:
    """apt's lines for Debian as the host has it configured; empty for mmdebstrap's default.

    The host may be another release of Debian than the machine: only the addresses are taken.
    """
    if not shutil.which("apt-get"):
        return []
    line = "$(ORIGIN) $(RELEASE) $(REPO_URI)"
    answer = subprocess.run(
        ["apt-get", "indextargets", "--format", line, "Identifier: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    return mirror_lines(answer.stdout)


def mirror_lines(targets: str) -> list[str]:
    """Lines of sources.list for the machine's release, from lines `ORIGIN RELEASE ADDRESS`."""
    fields = [line.split() for line in targets.splitlines()]
    debian = [(field[1], field[2]) for field in fields if len(field) == 3 and field[0] == "Debian"]
    archive = [uri for release, uri in debian if "-" not in release]
    security = [uri for release, uri in debian if release.endswith("-security")]
    if not archive:
        return []
    lines = [f"deb {archive[0]} {suite} {COMPONENTS}" for suite in (SUITE, f"{SUITE}-updates")]
    if security:
        lines.append(f"deb {security[0]} {SUITE}-security {COMPONENTS}")
    return lines


def require(*programs: str) -> None:
    missing = [program for program in programs if not shutil.which(program, path=_PATH)]
    if missing:
        raise ImageError(
            f"not installed: {', '.join(missing)}. `make install-machine` installs what "
            "the test machine needs on Debian and Ubuntu (tests/machine/machine.mk lists it)."
        )


def as_root() -> list[str]:
    """Who is not root gets the owners of the tree right in a user namespace."""
    return [] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper"]


def run(
    command: list[str],
    failure: str,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
) -> None:
    environment = {**os.environ, "PATH": _PATH}
    done = subprocess.run(command, stdin=stdin, stdout=stdout, env=environment, check=False)
    if done.returncode:
        raise ImageError(f"{failure}: {command[0]} exited with {done.returncode}")
