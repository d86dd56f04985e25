"""The Debian packages that `make deb` built, on a machine without the product.

As an administrator has them: installed, used, upgraded, removed, purged. As a new user does:
docs/tutorial.md from its first command to its last, with a pool of its own, and the image by HTTPS
from a server that has Debian's name in this machine.

The product that the other tests use is put back at the end.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import host
import pytest
import webserver
from console import steps
from host import CONFIG, UNIT
from sessions import DOCS, IMAGE, make_image, shell_in, switch_off

FILES = sorted(Path("/root/packages").glob("*.deb"))
NAMES = ["mvirt-zfs-dbus", "mvirt-zfsctl", "python3-mvirt-zfs-dbus"]
STATE = Path("/var/lib/mvirt-zfs-dbus")
UNPACKAGED = [
    "/usr/lib/python3/dist-packages/mvirt_zfs_dbus",
    "/usr/lib/systemd/system/mvirt-zfs-dbus.service",
    "/usr/bin/mvirt-zfs-dbus",
    "/usr/bin/mvirt-zfsctl",
]
"""What guest/install brings that would be in a package's way, or hide what one lacks."""

TUTORIAL = DOCS / "tutorial.md"
SERVER = "cloud.debian.org"
PLACE = "images/cloud/bookworm/latest"

# `make test-machine` builds them before and ends where it cannot, so that nothing is skipped there;
# who works on a machine that is kept running need not have them.
needs_packages = pytest.mark.skipif(not FILES, reason="make deb has not built the packages")


@pytest.fixture(scope="module")
def bare() -> Iterator[None]:
    """Nobody has installed the product."""
    host.run("systemctl", "disable", "--now", UNIT)
    host.run("rm", "-rf", CONFIG, STATE, *UNPACKAGED)
    host.run("systemctl", "daemon-reload")
    yield
    subprocess.run(["apt-get", "-q", "-y", "purge", *NAMES], check=False, capture_output=True)
    host.run(Path(__file__).with_name("install"))


def apt(*arguments: str | Path) -> str:
    """There is no network: what the packages depend on has to be there."""
    options = (
        "-y",
        "--no-install-recommends",
        "-o",
        "Dpkg::Options::=--force-confold",
    )
    return host.run("apt-get", "-q", *options, *arguments)


def installed() -> set[str]:
    shown = host.run("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", "*mvirt*")
    return {line.split()[0] for line in shown.splitlines() if line.endswith(" installed")}


def newer(package: Path, into: Path) -> Path:
    """The same package as the next version would be."""
    tree = into / package.stem
    host.run("dpkg-deb", "--raw-extract", package, tree)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    [version] = [line.split()[1] for line in lines if line.startswith("Version: ")]
    control.write_text("\n".join(lines).replace(version, f"{version}+next") + "\n")
    return Path(
        host.run("dpkg-deb", "-Znone", "--build", tree, into).rpartition("in '")[2].rstrip("'.")
    )


@needs_packages
def test_the_packages_are_installed_used_upgraded_removed_and_purged(
    bare: None, tmp_path: Path
) -> None:
    # Installed: it does not run before it is told which pool to serve.
    apt("install", *FILES)
    assert installed() == set(NAMES)
    assert host.unit("ActiveState") == "inactive" and host.unit("UnitFileState") == "disabled"

    # Used: one line of configuration, one command.
    CONFIG.write_text(CONFIG.read_text().replace('pool = "mvirt"', f'pool = "{host.POOL}"'))
    host.run("systemctl", "enable", "--now", UNIT)
    host.run("mvirt-zfsctl", "volume", "create", "packaged", "1M")
    assert "packaged" in host.run("mvirt-zfsctl", "volume", "list")

    # Upgraded: the running service is the new one, and what was configured stays.
    pid = host.unit("MainPID")
    apt("install", *(newer(package, tmp_path) for package in FILES))
    assert host.run("dpkg-query", "-W", "-f", "${Version}", NAMES[0]).endswith("+next")
    assert host.unit("ActiveState") == "active" and host.unit("MainPID") != pid
    assert f'pool = "{host.POOL}"' in CONFIG.read_text()
    assert "packaged" in host.run("mvirt-zfsctl", "volume", "list")
    host.run("mvirt-zfsctl", "volume", "delete", "--yes", "packaged")

    # Removed: the service is stopped; configuration and job records stay, as the policy has it.
    apt("remove", *NAMES)
    assert host.unit("ActiveState") == "inactive" and not Path(UNPACKAGED[0]).exists()
    assert CONFIG.exists() and STATE.exists()

    # Purged: nothing of it is left on the system. The disks are in the pool, not here.
    apt("purge", *NAMES)
    left = host.run("find", "/etc", "/usr", "/var/lib", "-xdev", "-name", "*mvirt*")
    images = str(host.IMAGES.parent)  # the administrator's
    assert not [path for path in left.splitlines() if "dpkg" not in path and path != images]


@pytest.fixture
def no_pool(bare: None) -> Iterator[None]:
    """The machine's own pool has the name that the tutorial gives to its."""
    host.run("zpool", "export", host.POOL)
    yield
    host.run("systemctl", "stop", host.UNIT)
    host.run("zpool", "destroy", host.POOL)
    host.run("zpool", "import", "-d", "/dev/disk/by-id", host.POOL)


@pytest.fixture
def image_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = webserver.public(tmp_path_factory.mktemp("server"))
    (folder / "www" / PLACE).mkdir(parents=True)
    make_image(folder / "www" / PLACE / IMAGE)
    authority = webserver.make_authority(folder, "Tutorial test CA")
    webserver.trust(authority.certificate, "tutorial-test.crt")
    with (
        webserver.known_as_this_machine(SERVER),
        webserver.serving(folder, authority, SERVER, port=443),
    ):
        yield


@needs_packages
async def test_a_new_user_gets_from_the_packages_to_a_machines_disk_in_use(
    no_pool: None, image_server: None, tmp_path: Path
) -> None:
    folder = tmp_path / "home"
    async with shell_in(folder) as shell:
        for package in FILES:
            (folder / package.name).symlink_to(package)
        for step in steps(TUTORIAL):
            await shell.replay(step)
            if step.command.startswith("mvirt-zfsctl volume users"):
                switch_off(folder)  # as its user does, with Ctrl-A X
    assert host.run("zfs", "list", "-H", "-t", "volume", "-r", "tank/vm") == ""
