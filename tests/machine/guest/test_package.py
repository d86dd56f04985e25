"""The Debian packages, as an administrator has them: installed, used, upgraded, removed, purged.

They are those that `make deb` built. The product that the other tests use is put back at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import host
import packages
import pytest
from host import UNIT
from packages import CONFIG, NAMES, STATE, UNPACKAGED


def apt(*arguments: str | Path) -> str:
    """There is no network: what the packages depend on has to be there."""
    options = (
        "-y",
        "--no-install-recommends",
        "-o",
        "Dpkg::Options::=--force-confold",
    )
    return host.run("apt-get", "-q", *options, *arguments)


@pytest.fixture
def bare() -> Iterator[None]:
    with packages.none_installed():
        yield


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
    return Path(host.run("dpkg-deb", "--build", tree, into).rpartition("in '")[2].rstrip("'."))


@pytest.mark.skipif(not packages.FILES, reason="make deb has not built the packages")
def test_the_packages_are_installed_used_upgraded_removed_and_purged(
    bare: None, tmp_path: Path
) -> None:
    # Installed: it does not run before it is told which pool to serve.
    apt("install", *packages.FILES)
    assert installed() == set(NAMES)
    assert host.unit("ActiveState") == "inactive" and host.unit("UnitFileState") == "disabled"

    # Used: one line of configuration, one command.
    CONFIG.write_text(CONFIG.read_text().replace('pool = "mvirt"', f'pool = "{host.POOL}"'))
    host.run("systemctl", "enable", "--now", UNIT)
    host.run("mvirt-zfsctl", "volume", "create", "packaged", "1M")
    assert "packaged" in host.run("mvirt-zfsctl", "volume", "list")

    # Upgraded: the running service is the new one, and what was configured stays.
    pid = host.unit("MainPID")
    apt("install", *(newer(package, tmp_path) for package in packages.FILES))
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
