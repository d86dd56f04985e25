"""What the documentation says one should type, typed; and what it shows, shown."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from console import Shell, Step, steps

from mvirt_zfs_dbus.names import Action, ErrorName

from .ctl import Ctl
from .process import ServiceProcess
from .sshd import machine_with

TOP = Path(__file__).parents[3]
DOCS = TOP / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if any(steps(page)))
NEEDS = {"install", "zfs", "network", "vm", "libvirt", "polkit", "proxy", "ca", "ssh"}


@pytest.fixture
async def shell(
    ctl: Ctl, bus_address: str, tmp_path: Path, images: dict[str, Path]
) -> AsyncIterator[Shell]:
    """A shell as a user has it, in a folder with the images that the pages fetch."""
    programs, folder = tmp_path / "bin", tmp_path / "home"
    programs.mkdir()
    folder.mkdir()
    program = programs / "mvirt-zfsctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mvirt_zfs_dbus.cli.main "$@"\n')
    program.chmod(0o755)
    (folder / "debian-12-nocloud-amd64.qcow2").symlink_to(images["qcow2"])
    (folder / "overlay.qcow2").symlink_to(images["backing"])
    (folder / "half.qcow2").symlink_to(images["truncated"])
    (folder / "web.raw").symlink_to(images["raw"])
    environment = {
        **{key: value for key, value in ctl.environment.items() if key != "MVIRT_ZFS_BUS"},
        "PATH": f"{programs}:{os.environ['PATH']}",
        "DBUS_SYSTEM_BUS_ADDRESS": bus_address,
        "PAGER": "cat",
        "LC_ALL": "C.UTF-8",
    }
    started = await Shell.start(folder, environment)
    yield started
    await started.end()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
async def test_the_sessions_of_a_page_go_as_they_are_shown(page: Path, shell: Shell) -> None:
    for step in steps(page):
        if not step.needs:
            await shell.replay(step)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_says_what_its_sessions_need_in_known_words(page: Path) -> None:
    assert set().union(*(step.needs for step in steps(page))) <= NEEDS


async def test_another_machines_service_answers_over_ssh_as_the_page_shows(
    shell: Shell, service: ServiceProcess, tmp_path: Path
) -> None:
    async with machine_with(service.address, tmp_path) as machine:
        user, _, port = re.split("[@:]", machine.host)
        with (tmp_path / "ssh-config").open("a") as config:
            config.write(f"Host storage-1\nHostName 127.0.0.1\nPort {port}\n")
        ssh, theirs = tmp_path / "our-bin/ssh", machine.bridge.with_name("mvirt-zfsctl")
        ssh.write_text(ssh.read_text().replace('"$@"', f'-l {user} "$@"'))  # who is root here
        ours = (tmp_path / "bin/mvirt-zfsctl").read_text()
        theirs.write_text(ours.replace("exec", f"MVIRT_ZFS_BUS='{service.address}' exec"))
        theirs.chmod(0o755)
        await shell.run(f"PATH={ssh.parent}:$PATH; unset DBUS_SYSTEM_BUS_ADDRESS")
        found = [step for step in steps(DOCS / "howto/another-host.md") if "ssh" in step.needs]
        assert len(found) == 2
        for step in found:
            await shell.replay(step)


async def test_virsh_knows_the_commands_of_the_page(shell: Shell, tmp_path: Path) -> None:
    """libvirt's test driver is a double of a hypervisor: it has machines, but attaches no disks."""
    page = DOCS / "howto/libvirt-and-qemu.md"
    [disk] = (text for name, text in blocks("xml") if name == "howto/libvirt-and-qemu.md")
    host = tmp_path / "host.xml"
    host.write_text(
        f"""<node><domain type="test"><name>web-1</name><memory>65536</memory>
        <os><type>hvm</type></os>
        <devices>{disk}{disk.replace("vda", "vdb")}</devices></domain></node>"""
    )
    await shell.run(
        f"export LIBVIRT_DEFAULT_URI=test://{host}; mvirt-zfsctl volume create web-1 1G"
    )
    found = [step for step in steps(page) if "libvirt" in step.needs]
    attaches = [step for step in found if "-disk " in step.command]
    assert (len(found), len(attaches)) == (5, 2)
    for step in attaches:
        _, said = await shell.run(step.command)
        assert "not supported by the connection driver: virDomain" in said
    for step in found:
        if step not in attaches:
            await shell.replay(step)


@pytest.mark.parametrize(
    ("shows", "output", "matches"),
    [
        ("a…c", "abc\n", True),
        ("a…c", "ab\nc\n", False),
        ("a\n…\nc", "a\nb\nb\nc\n", True),
        ("…\nc", "a\nb\nc\n", True),
        ("a.c", "abc\n", False),
        ("", "surprise\n", False),
        ("", "", True),
        ("…", "a\nb\n", True),
        ("a\n…", "a\nb\nc\n", True),
        ("a  b", "a      b\n", True),
        ("a 1.5 GiB", "a  20 B\n", True),
        ("a 15", "a 20\n", False),
    ],
)
def test_what_a_session_shows_may_leave_parts_out(shows: str, output: str, matches: bool) -> None:
    assert Step("", shows, frozenset()).has_shown(output) is matches


# Blocks of other kinds


def blocks(kind: str) -> Iterator[tuple[str, str]]:
    for page in sorted(DOCS.rglob("*.md")):
        for text in re.findall(rf"^```{kind}\n((?:.*\n)*?)```$", page.read_text(), re.MULTILINE):
            yield str(page.relative_to(DOCS)), text


@pytest.mark.parametrize(("page", "program"), list(blocks("python")))
async def test_a_program_of_a_page_runs(
    page: str, program: str, ctl: Ctl, bus_address: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        env=os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": bus_address},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    assert b"web-" in said


@pytest.mark.parametrize(("page", "text"), list(blocks("xml")))
def test_xml_of_a_page_is_well_formed(page: str, text: str) -> None:
    ET.fromstring(text)


def test_rules_of_the_pages_let_in_whom_they_say() -> None:
    """node with a double of polkitd's ``polkit`` object; polkitd itself runs in tests/machine."""
    by_group, by_volume, of_own_volumes, nobody = (text for _, text in blocks("js"))

    def decides(rule: str, action: Action, user: str, group: str = "", **details: str) -> str:
        program = f"""
            var decided = null, details = {json.dumps(details)};
            var action = {{ id: "{action}", lookup: (key) => details[key] }};
            var subject = {{ user: "{user}", isInGroup: (name) => name === "{group}" }};
            var polkit = {{
                Result: {{ YES: "yes", NO: "no" }},
                addRule: (rule) => {{ decided = rule(action, subject) || "asks"; }},
            }};
            {rule}
            console.log(decided);
        """
        node = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True)
        return node.stdout.strip()

    assert decides(by_group, Action.CREATE, "me", "vmadmins") == "yes"
    assert decides(by_group, Action.CREATE, "me", "users") == "asks"
    assert decides(by_group, Action.DELETE, "me", "vmadmins") == "asks"
    assert decides(by_volume, Action.DELETE, "ci", name="ci-1") == "yes"
    assert decides(by_volume, Action.DELETE, "ci", name="web-1") == "asks"
    assert decides(by_volume, Action.DELETE, "me", name="ci-1") == "asks"
    assert decides(by_volume, Action.MODIFY, "ci", name="ci-1") == "asks"
    assert decides(of_own_volumes, Action.ROLLBACK, "ci", name="x", source="ci-1") == "yes"
    assert decides(of_own_volumes, Action.ROLLBACK, "ci", name="ci-1", source="web") == "asks"
    assert decides(nobody, Action.IMPORT_PATH, "me") == "no"
    assert decides(nobody, Action.IMPORT_PATH, "root") == "asks"


def test_each_error_of_the_service_has_its_place_in_troubleshooting() -> None:
    text = (DOCS / "troubleshooting.md").read_text()
    headings = ", ".join(re.findall(r"^## (.*)$", text, re.MULTILINE)).split(", ")
    names = {name.rpartition(".")[2] for name in ErrorName}
    assert set(headings) == names | {"ServiceUnreachable"}
