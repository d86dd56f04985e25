"""Builds the test machine's kernel and disk, once, into the user's cache.

Two stages, each a directory named by a hash of all that goes into it, so that a change to a file
of the machine costs seconds and only a change to the list of packages costs the compilation of ZFS:

    base-HASH/   vmlinuz, initrd.img, root.tar     mmdebstrap, with DKMS building zfs.ko inside
    disk-HASH/   root.img, ssh_key, known_hosts    the base and the files of overlay/, by mke2fs
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.machine.cache import cache_directory, cached, digest
from tests.machine.debian import COMPONENTS, SUITE, as_root, bootstrap, packages, require, run

HERE = Path(__file__).parent
TEST_TOOLS = ("pytest", "pytest-asyncio", "pytest-xdist", "hypothesis")
"""Debian's are older than the tests need."""
GUEST_PYTHON = "3.11"
DISK_SIZE = "6G"  # sparse: what is not written costs nothing


@dataclass(frozen=True)
class Image:
    """What qemu boots: a kernel, its initramfs, a disk to copy, and the key to log in with."""

    kernel: Path
    initrd: Path
    disk: Path
    ssh_key: Path
    known_hosts: Path


def ensure() -> Image:
    """The image for the files as they are now: from the cache, or built (about 4 minutes)."""
    require("mmdebstrap", "mke2fs", "ssh-keygen", "tar", "qemu-system-x86_64")
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
    )


def test_tools(pyproject: str) -> list[str]:
    """What the guest's tests run with, as pyproject.toml requires it."""
    required = tomllib.loads(pyproject)["project"]["optional-dependencies"]["test"]
    return [line for line in required if re.split("[<>=~! ;]", line)[0] in TEST_TOOLS]


def _build_base(target: Path) -> None:
    """A Debian with a kernel and its ZFS modules, without the compiler that made them."""
    tar = target / "root.tar"
    names = packages((HERE / "packages.txt").read_text())
    bootstrap(names, tar, hook=(HERE / "strip-base").read_text())
    for name in ("vmlinuz", "initrd.img"):
        with (target / name).open("wb") as output:
            command = ["tar", "-xOf", str(tar), f"./boot/machine/{name}"]
            run(command, f"the base has no /boot/machine/{name}", stdout=output)


def _build_disk(base: Path, tools: list[str], target: Path) -> None:
    """A file system image: the base, overlay/, the test tools and a throw-away key for ssh."""
    keys = {key: _ssh_key(target / key) for key in ("ssh_key", "host_key")}
    (target / "known_hosts").write_text(f"machine {keys['host_key']}")
    modules = target / "modules"
    options = ["--quiet", "--root-user-action=ignore", "--only-binary=:all:"]
    options += ["--python-version", GUEST_PYTHON, "--target", str(modules)]
    pip = [sys.executable, "-m", "pip", "install", *options, *tools]
    run(pip, "installing the test tools for the guest failed")
    overlay = target / "overlay.tar"
    with tarfile.open(overlay, "w") as tar:
        tar.add(HERE / "overlay", ".", filter=_owned_by_root)
        into = f"./usr/local/lib/python{GUEST_PYTHON}/dist-packages"
        tar.add(modules, into, filter=_owned_by_root)
        _add(tar, "./root/.ssh/authorized_keys", keys["ssh_key"].encode())
        _add(tar, "./etc/ssh/ssh_host_ed25519_key", (target / "host_key").read_bytes())
    with (target / "root.img").open("wb") as output:
        make_disk("machine", DISK_SIZE, [base / "root.tar", overlay], output)
    overlay.unlink()
    shutil.rmtree(modules)


def make_disk(hostname: str, size: str, tars: list[Path], output: IO[bytes]) -> None:
    """Writes a file system image of tars of root file systems, each laid over those before it."""
    script = (HERE / "make-disk").read_text()
    command = [*as_root(), "sh", "-c", script, "make-disk", hostname, size]
    with subprocess.Popen(["cat", *tars], stdout=subprocess.PIPE) as trees:
        run(command, "making a disk image failed", stdin=trees.stdout, stdout=output)


def _ssh_key(path: Path) -> str:
    """Makes a key pair; the public half as its line."""
    run(
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


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() or path.is_symlink())
