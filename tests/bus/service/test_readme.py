"""What the README tells a newcomer to type under "Use it", typed on a session bus."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from console import Shell

TOP = Path(__file__).parents[3]
PACKAGING = re.compile("python3 -m build|pipx ")
"""Those are in test_distribution.py."""


def commands() -> list[str]:
    section = (TOP / "README.md").read_text().partition("\n## Use it\n")[2].partition("\n## ")[0]
    lines = "".join(re.findall(r"^    (.*\n)", section, re.MULTILINE))
    found = lines.replace("\\\n", "").splitlines()
    assert found
    return [command for command in found if not PACKAGING.match(command)]


@pytest.fixture
def home(tmp_path: Path, images: Mapping[str, Path]) -> Path:
    """A checkout as `make` leaves it, and what a newcomer has."""
    folder = tmp_path / "home"
    (folder / "disks").mkdir(parents=True)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "man").symlink_to(TOP / "man")
    (folder / "debian-12.qcow2").symlink_to(images["qcow2"])
    return folder


@pytest.fixture
async def shell(home: Path, bus_address: str) -> AsyncIterator[Shell]:
    environment = {key: value for key, value in os.environ.items() if key != "MVIRT_ZFS_BUS"}
    environment |= {"HOME": str(home), "DBUS_SESSION_BUS_ADDRESS": bus_address, "PAGER": "cat"}
    started = await Shell.start(home, environment)
    yield started
    await started.run("kill $!; wait")
    await started.end()


async def test_the_commands_of_the_readme_work_one_after_the_other(
    shell: Shell, image_url: str, bus_address: str
) -> None:
    async def works(command: str) -> None:
        status, said = await shell.run(command)
        assert status == 0, f"$ {command}\n{said}"

    for command in commands():
        if command.startswith("gdbus monitor"):
            await begins(command, bus_address)
        elif re.search("rollback|delete", command):  # they ask, and so need a terminal
            await works(f"script --quiet --return --command {shlex.quote(command)} /dev/null <<<y")
        else:
            await works(command.replace("https://example.org/rescue.img", image_url))
        if command.startswith("mvirt-zfs-dbus"):
            await works("gdbus wait --session org.mvirt.Zfs1")  # a person takes longer to type
    await works("mvirt-zfsctl job watch rescue && mvirt-zfsctl template show rescue")
    await works("mvirt-zfsctl volume show web-2 && ! mvirt-zfsctl volume show web-1")


async def begins(command: str, bus_address: str) -> None:
    process = await asyncio.create_subprocess_shell(
        f"exec {command}",
        env=os.environ | {"DBUS_SESSION_BUS_ADDRESS": bus_address, "LC_ALL": "C"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    assert await process.stdout.readline() == (
        b"Monitoring signals from all objects owned by org.mvirt.Zfs1\n"
    )
    process.send_signal(signal.SIGTERM)
    await process.communicate()


@pytest.mark.parametrize(
    "command", ["man man/mvirt-zfsctl.1", "source <(mvirt-zfsctl completion bash)"]
)
async def test_what_the_readme_says_in_passing_works(command: str, shell: Shell) -> None:
    assert f"`{command}`" in (TOP / "README.md").read_text()
    status, said = await shell.run(f"PATH=$PWD/.venv/bin:$PATH; {command}")
    assert status == 0, said
