"""docs/tutorial.md from its first command to its last, on a machine without the product.

The packages are those that `make deb` built, the pool is the tutorial's own, and the image comes by
HTTPS from a server that has Debian's name in this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import host
import packages
import pytest
import webserver
from console import steps
from sessions import DOCS, IMAGE, make_image, shell_in, switch_off

TUTORIAL = DOCS / "tutorial.md"
SERVER = "cloud.debian.org"
PLACE = "images/cloud/bookworm/latest"


@pytest.fixture
def bare() -> Iterator[None]:
    with packages.none_installed():
        yield


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


@pytest.mark.skipif(not packages.FILES, reason="make deb has not built the packages")
async def test_a_new_user_gets_from_the_packages_to_a_machines_disk_in_use(
    no_pool: None, image_server: None, tmp_path: Path
) -> None:
    folder = tmp_path / "home"
    async with shell_in(folder) as shell:
        for package in packages.FILES:
            (folder / package.name).symlink_to(package)
        for step in steps(TUTORIAL):
            await shell.replay(step)
            if step.command.startswith("mvirt-zfsctl volume users"):
                switch_off(folder)  # as its user does, with Ctrl-A X
    assert host.run("zfs", "list", "-H", "-t", "volume", "-r", "tank/vm") == ""
