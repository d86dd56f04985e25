"""Builds the test machine's kernel and disk, once, into the user's cache.

Two stages, each a directory named by a hash of all that goes into it, so that a change to a file
of the machine costs seconds and only a change to the list of packages costs the compilation of ZFS:

    base-HASH/   vmlinuz, initrd.img, root.tar     mmdebstrap, with DKMS building zfs.ko inside
    disk-HASH/   root.img, ssh_key, known_hosts    the base and the files of overlay/, by mke2fs
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
SUITE = "bookworm"
COMPONENTS = "main contrib"
TEST_TOOLS = ("pytest", "pytest-asyncio", "hypothesis")  # Debian's are older than the tests need
GUEST_PYTHON = "3.11"
DISK_SIZE = "6G"  # sparse: what is not written costs nothing
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # mke2fs is in sbin
KEPT = 3  # entries of each stage: a developer goes back and forth between branches


Build = Callable[[Path], None]
"""Fills the empty directory it is given."""


class ImageError(Exception):
    """The image cannot be built here; the message says what is missing."""


@dataclass(frozen=True)
class Image:
    """What qemu boots: a kernel, its initramfs, a disk to copy, and the key to log in with."""

    kernel: Path
    initrd: Path
    disk: Path
    ssh_key: Path
    known_hosts: Path
    name: str


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mvirt-zfs-dbus"


def ensure() -> Image:
    """The image for the files as they are now: from the cache, or built (about 8 minutes)."""
    _require("mmdebstrap", "mke2fs", "ssh-keygen", "tar", "qemu-system-x86_64")
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    base_files = [HERE / "packages.txt", HERE / "strip-base"]
    base_key = digest([SUITE, COMPONENTS], base_files)
    base = cached(cache, "base", base_key, _build_base)
    disk_files = [HERE / "make-disk", *_files(HERE / "overlay")]
    tools = test_tools((HERE.parents[1] / "pyproject.toml").read_text())
    disk_key = digest([base_key, DISK_SIZE, GUEST_PYTHON, *tools], disk_files)
    disk = cached(cache, "disk", disk_key, lambda target: _build_disk(base, tools, target))
    return Image(
        kernel=base / "vmlinuz",
        initrd=base / "initrd.img",
        disk=disk / "root.img",
        ssh_key=disk / "ssh_key",
        known_hosts=disk / "known_hosts",
        name=disk.name,
    )


def packages(text: str) -> list[str]:
    """Package names of a list with comments from `#` to the end of the line."""
    return [word for line in text.splitlines() for word in line.partition("#")[0].split()]


def test_tools(pyproject: str) -> list[str]:
    """What the guest's tests run with, as pyproject.toml requires it."""
    required = tomllib.loads(pyproject)["project"]["optional-dependencies"]["test"]
    return [line for line in required if re.split("[<>=~! ;]", line)[0] in TEST_TOOLS]


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


def _require(*programs: str) -> None:
    missing = [program for program in programs if not shutil.which(program, path=_PATH)]
    if missing:
        raise ImageError(
            f"not installed: {', '.join(missing)}. `make install-machine` installs what "
            "the test machine needs on Debian and Ubuntu (tests/machine/machine.mk lists it)."
        )


def cached(cache: Path, stage: str, key: str, build: Build) -> Path:
    """The cache's directory of this stage and key, built beside it and renamed into place."""
    entry = cache / f"{stage}-{key}"
    with (cache / f"{stage}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who comes while it is built waits for it
        if entry.is_dir():
            os.utime(entry)
            return entry
        for left in cache.glob(f".{stage}-*"):  # by a build that was killed: the lock is ours
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{stage}-") as scratch:
            target = Path(scratch) / "entry"
            target.mkdir()
            build(target)
            target.rename(entry)
        _prune(cache, stage)
    return entry


def _prune(cache: Path, stage: str) -> None:
    entries = sorted(cache.glob(f"{stage}-*"), key=lambda entry: entry.stat().st_mtime)
    for entry in entries[:-KEPT]:
        shutil.rmtree(entry)


def _build_base(target: Path) -> None:
    """A Debian with a kernel and its ZFS modules, without the compiler that made them."""
    names = packages((HERE / "packages.txt").read_text())
    tar = target / "root.tar"
    with tar.open("wb") as output:  # on stdout: in a user namespace root may not write here
        hook = (HERE / "strip-base").read_text()
        command = [
            *("mmdebstrap", "--variant=minbase", "--format=tar"),
            *(f"--components={COMPONENTS.replace(' ', ',')}", f"--include={','.join(names)}"),
            '--aptopt=APT::Install-Recommends "false"',
            f"--customize-hook={hook}",
            *(SUITE, "-", *mirror()),
        ]
        _run(command, "building the base of the test machine failed", stdout=output)
    for name in ("vmlinuz", "initrd.img"):
        with (target / name).open("wb") as output:
            command = ["tar", "-xOf", str(tar), f"./boot/machine/{name}"]
            _run(command, f"the base has no /boot/machine/{name}", stdout=output)


def _build_disk(base: Path, tools: list[str], target: Path) -> None:
    """A file system image: the base, overlay/, the test tools and a throw-away key for ssh."""
    keys = {key: _ssh_key(target / key) for key in ("ssh_key", "host_key")}
    (target / "known_hosts").write_text(f"machine {keys['host_key']}")
    modules = target / "modules"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(modules)]
    pip += [
        "--root-user-action=ignore",
        "--python-version",
        GUEST_PYTHON,
        "--only-binary=:all:",
        *tools,
    ]
    _run(pip, "installing the test tools for the guest failed")
    overlay = target / "overlay.tar"
    with tarfile.open(overlay, "w") as tar:
        tar.add(HERE / "overlay", ".", filter=_owned_by_root)
        into = f"./usr/local/lib/python{GUEST_PYTHON}/dist-packages"
        tar.add(modules, into, filter=_owned_by_root)
        _add(tar, "./root/.ssh/authorized_keys", keys["ssh_key"].encode())
        _add(tar, "./etc/ssh/ssh_host_ed25519_key", (target / "host_key").read_bytes())
    command = [*_as_root(), "sh", "-c", (HERE / "make-disk").read_text(), "make-disk", DISK_SIZE]
    with (target / "root.img").open("wb") as output:
        trees = subprocess.Popen(["cat", base / "root.tar", overlay], stdout=subprocess.PIPE)
        with trees:
            _run(
                command,
                "making the disk of the test machine failed",
                stdin=trees.stdout,
                stdout=output,
            )
    overlay.unlink()
    shutil.rmtree(modules)


def _ssh_key(path: Path) -> str:
    """Makes a key pair; the public half as its line."""
    _run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)],
        "ssh-keygen failed",
    )
    return path.with_suffix(".pub").read_text()


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same file as root's and readable to all, whatever the checkout's umask was."""
    executable = member.isdir() or bool(member.mode & 0o100)
    member.mode = 0o755 if executable else 0o644
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """A file that only root may read."""
    member = tarfile.TarInfo(name)
    member.mode, member.size = 0o600, len(content)
    tar.addfile(member, io.BytesIO(content))


def _as_root() -> list[str]:
    """Who is not root gets the owners of the tree right in a user namespace."""
    return [] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper"]


def _run(
    command: list[str],
    failure: str,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
) -> None:
    environment = {**os.environ, "PATH": _PATH}
    done = subprocess.run(command, stdin=stdin, stdout=stdout, env=environment, check=False)
    if done.returncode:
        raise ImageError(f"{failure}: {command[0]} exited with {done.returncode}")


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() or path.is_symlink())


def digest(words: Iterable[str], files: Iterable[Path]) -> str:
    """What names a cache entry: the words, and each file's place, mode and content."""
    digest = hashlib.sha256()
    for word in words:
        digest.update(f"{word}\0".encode())
    for file in files:
        mode = "x" if os.access(file, os.X_OK) else "-"
        digest.update(f"{file.relative_to(HERE)}\0{mode}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
