"""Every command of mvirt-zfsctl: the examples of its help work, and a mistake is told."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from ctl_commands import COMMANDS, EXAMPLES

from .ctl import Ctl
from .terminal import CTRL_C, terminal

MAKES_WEB_1 = ("volume create", "template clone", "import web-1")
ASKS = re.compile(r"(volume|snapshot|template) (delete|rollback) (?!.*--yes)")
NOWHERE = "--bus unix:path=/absent"

BAD = {
    # Of each command: one that has to fail, with its exit status, and what is said.
    "volume create": ("volume create web/1 1G", 2, "(InvalidName)"),
    "volume list": (f"volume list {NOWHERE}", 10, "(ServiceUnreachable)"),
    "volume show": ("volume show absent", 3, "(NotFound)"),
    "volume resize": ("volume resize web-1 1M", 2, "(WouldShrink)"),
    "volume rename": ("volume rename web-1 web/1", 2, "(InvalidName)"),
    "volume label": ("volume label web-1 --remove absent", 3, "(NotFound)"),
    "volume delete": ("volume delete web-1 --yes", 5, "(HasSnapshots)"),
    "volume users": ("volume users absent", 3, "(NotFound)"),
    "snapshot create": ("snapshot create web-1 fresh", 4, "(AlreadyExists)"),
    "snapshot list": ("snapshot list absent", 3, "(NotFound)"),
    "snapshot rollback": ("snapshot rollback web-1 fresh --yes", 5, "(NewerSnapshots)"),
    "snapshot delete": ("snapshot delete web-1 fresh", 2, "--yes"),
    "template create": ("template create debian-12 web-1 fresh", 4, "(AlreadyExists)"),
    "template copy": ("template copy golden web-1 absent", 3, "(NotFound)"),
    "template list": (f"template list {NOWHERE}", 10, "(ServiceUnreachable)"),
    "template show": ("template show web-1", 3, "(NotFound)"),
    "template clone": ("template clone debian-12 small --size 1M", 2, "(InvalidSize)"),
    "template rename": ("template rename debian-12 -- -12", 2, "(InvalidName)"),
    "template label": ("template label debian-12 --set os", 2, "KEY=VALUE"),
    "template delete": ("template delete debian-12 --yes", 5, "(HasClones)"),
    "job list": (f"job list {NOWHERE}", 10, "(ServiceUnreachable)"),
    "job show": ("job show absent", 3, "(NotFound)"),
    "job watch": ("job watch absent", 3, "(NotFound)"),
    "job cancel": ("job cancel debian-12", 5, "(NotCancelable)"),
    "job remove": ("job remove absent", 3, "(NotFound)"),
    "import": ("import debian-12 ./disk.raw --template", 4, "(AlreadyExists)"),
    "monitor": (f"monitor {NOWHERE}", 10, "(ServiceUnreachable)"),
    "pool": ("pool tank", 2, "unrecognized arguments: tank"),
    "completion": ("completion tcsh", 2, "'tcsh'"),
}


@pytest.fixture
def environment(
    ctl: Ctl, images: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Where the program is found; the images that the examples have lie in this folder."""
    folder, program = tmp_path / "home", tmp_path / "bin/mvirt-zfsctl"
    for each in (folder, program.parent):
        each.mkdir()
    shutil.copyfile(images["qcow2"], folder / "web.qcow2")
    shutil.copyfile(images["raw"], folder / "web.raw")
    shutil.copyfile(images["raw"], folder / "web.raw.zst")  # what packs it is told from the bytes
    monkeypatch.chdir(folder)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mvirt_zfs_dbus.cli.main "$@"\n')
    program.chmod(0o755)
    return {**ctl.environment, "PATH": f"{program.parent}:{os.environ['PATH']}"}


async def prepare(ctl: Ctl, example: str, image: Path, slow_url: str) -> None:
    """Makes what the example is about: web-1 and its snapshot, the template debian-12, its job."""
    if example == "job cancel debian-12":
        await ctl("import", "debian-12", slow_url, "--template", "--no-wait")
        return
    if not example.startswith("import debian-12"):
        await ctl("import", "debian-12", image, "--template")
    if not example.startswith(MAKES_WEB_1):
        await ctl("volume", "create", "web-1", "10G", "--label", "owner=me")
        if example != "volume delete web-1" and not example.startswith("snapshot create"):
            await ctl("snapshot", "create", "web-1", "fresh")


@pytest.mark.parametrize(("command", "example"), EXAMPLES, ids=lambda text: text)
async def test_an_example_of_the_help_works_on_a_terminal(
    command: str,
    example: str,
    ctl: Ctl,
    environment: dict[str, str],
    image: Path,
    image_url: str,
    slow_url: str,
) -> None:
    await prepare(ctl, example, image, slow_url)
    typed = re.sub(r"https://\S+", image_url, f"mvirt-zfsctl {example}")
    typed = typed.replace("1.5TiB --thick", "1.5MiB --thick")  # whoever runs this has less room
    async with terminal("bash", "-c", typed, environment=environment, columns=120) as shown:
        if ASKS.match(example):
            await shown.until("[y/N] ")
            await shown.type("y\n")
        if command == "monitor":
            seen = asyncio.create_task(shown.until("other"))
            for number in itertools.takewhile(lambda _: not seen.done(), itertools.count()):
                await ctl("volume", "create", f"other-{number}", "1M")
            await seen
            await shown.type(CTRL_C)
        status = await shown.end()
    assert status == (130 if command == "monitor" else 0), shown.shown
    assert "mvirt-zfsctl: " not in shown.shown


def test_every_command_has_a_bad_example_here() -> None:
    assert set(BAD) == set(COMMANDS)


async def test_each_commands_mistake_is_told_and_changes_nothing(ctl: Ctl, image: Path) -> None:
    await ctl("import", "debian-12", image, "--template")
    await ctl("template", "clone", "debian-12", "clone")
    await ctl("volume", "create", "web-1", "10M")
    for name in ("fresh", "newer"):
        await ctl("snapshot", "create", "web-1", name)

    async def all_there_is() -> list[object]:
        return [await ctl.json(kind, "list") for kind in ("volume", "snapshot", "template", "job")]

    before = await all_there_is()
    for command, (example, status, said) in BAD.items():
        assert example.startswith(command)
        outcome = await ctl.run(*example.replace("./disk.raw", str(image)).split())
        assert (outcome.status, outcome.out) == (status, ""), example
        assert said in outcome.err, example
    assert await all_there_is() == before
