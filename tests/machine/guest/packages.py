"""The Debian packages that `make deb` built, in this machine, and a machine without the product."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import host
from host import UNIT

FILES = sorted(Path("/root/packages").glob("*.deb"))
NAMES = ["mvirt-zfs-dbus", "mvirt-zfsctl", "python3-mvirt-zfs-dbus"]
CONFIG = Path("/etc/mvirt-zfs-dbus.toml")
STATE = Path("/var/lib/mvirt-zfs-dbus")
UNPACKAGED = [
    "/usr/lib/python3/dist-packages/mvirt_zfs_dbus",
    "/usr/lib/systemd/system/mvirt-zfs-dbus.service",
    "/usr/bin/mvirt-zfs-dbus",
    "/usr/bin/mvirt-zfsctl",
]
"""What guest/install brings that would be in a package's way, or hide what one lacks."""

_INSTALL = Path(__file__).with_name("install")


@contextmanager
def none_installed() -> Iterator[None]:
    """A machine on which nobody has installed the product, which is put back at the end."""
    host.run("systemctl", "disable", "--now", UNIT)
    host.run("rm", "-rf", CONFIG, STATE, *UNPACKAGED)
    host.run("systemctl", "daemon-reload")
    yield
    subprocess.run(["apt-get", "-q", "-y", "purge", *NAMES], check=False, capture_output=True)
    host.run(_INSTALL)
