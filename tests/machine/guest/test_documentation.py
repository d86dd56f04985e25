"""The sessions of the documentation in the machine: on real ZFS, with systemd and polkit.

What needs no more than the service is compared on the directory store as well, in
tests/bus/service. The tutorial has a test of its own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import host
import pytest
import webserver
from console import Shell, Step, steps
from sessions import DOCS, make_images, shell_in, switch_off

OF_THEIR_OWN = {"tutorial.md", "polkit.md", "proxies-and-cas.md"}
PAGES = sorted(
    page for page in DOCS.rglob("*.md") if page.name not in OF_THEIR_OWN and any(steps(page))
)
ELSEWHERE = {"libvirt", "ssh"}
"""What tests/bus/service/test_documentation.py has of these pages."""
RULES = Path("/etc/polkit-1/rules.d/40-documentation-test.rules")
CI = "ci"


def page_named(name: str) -> Path:
    return DOCS / "howto" / name


def as_a_user(step: Step) -> Step:
    """What one does at a ``$`` that says polkit is needed; root would not be asked."""
    if step.as_root or "polkit" not in step.needs:
        return step
    return replace(step, command=f"runuser -u {CI} -- bash -c {shlex.quote(step.command)}")


@pytest.fixture(scope="module")
def user() -> Iterator[None]:
    host.run("useradd", "--no-create-home", CI)
    yield
    host.run("userdel", CI)


@pytest.fixture
async def shell(service: None, user: None, tmp_path: Path) -> AsyncIterator[Shell]:
    refresh = ("org.mvirt.Zfs1", "/org/mvirt/Zfs1", "org.mvirt.Zfs1.Manager", "Refresh")
    async with shell_in(tmp_path / "home") as started:
        make_images(tmp_path / "home")
        host.run("busctl", "call", *refresh, "a{sv}", "0")  # what was destroyed before has gone
        yield started


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
async def test_the_sessions_of_a_page_go_as_they_are_shown(
    page: Path, shell: Shell, tmp_path: Path
) -> None:
    for step in steps(page):
        if step.command.startswith("journalctl"):
            host.run("journalctl", "--sync")  # what was logged just now may not be in it yet
        if not step.needs & ELSEWHERE:
            await shell.replay(as_a_user(step))
        if "vm" in step.needs:
            switch_off(tmp_path / "home")


@pytest.fixture
def rules_of_the_page() -> Iterator[None]:
    text = page_named("polkit.md").read_text()
    written = RULES.with_suffix(".new")
    written.write_text("\n".join(re.findall(r"^```js\n((?:.*\n)*?)```$", text, re.MULTILINE)))
    host.run("systemctl", "start", "polkit.service")
    with host.journal("polkit.service") as lines:
        written.rename(RULES)
        next(line for line in lines if "Finished loading" in line)
    yield
    RULES.unlink()


async def test_the_rules_of_the_page_decide_as_it_shows(
    rules_of_the_page: None, shell: Shell
) -> None:
    for step in steps(page_named("polkit.md")):
        await shell.replay(step)


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server and a proxy of example.org; the folder that has their authority's certificate."""
    folder = webserver.public(tmp_path_factory.mktemp("outside"))
    (folder / "www").mkdir()
    (folder / "www/image.qcow2").write_bytes(bytes(host.MIB))  # a raw one, whatever its name
    authority = webserver.make_authority(folder, "Documentation test CA")
    with (
        webserver.known_as_this_machine("example.org", "proxy.example.org"),
        webserver.serving(
            folder, authority, "example.org", port=443, more=webserver.PROXY.format(port=3128)
        ),
    ):
        yield folder


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[Path]:
    """Who edits a drop-in: writes what the page says into it."""
    text = page_named("proxies-and-cas.md").read_text()
    [drop_in] = re.findall(r"^```ini\n((?:.*\n)*?)```$", text, re.MULTILINE)
    (tmp_path / "drop-in").write_text(drop_in)
    made = tmp_path / "editor"
    made.write_text(f'#!/bin/sh\nexec cp {tmp_path}/drop-in "$1"\n')
    made.chmod(0o755)
    yield made
    host.run("systemctl", "revert", host.UNIT)
    host.run("systemctl", "restart", host.UNIT)


async def test_a_drop_in_brings_a_proxy_and_an_authority_is_added_as_the_page_shows(
    outside: Path, editor: Path, shell: Shell
) -> None:
    [edit, *others] = steps(page_named("proxies-and-cas.md"))
    terminal = (
        f"SYSTEMD_EDITOR={editor} script --quiet --return --command {shlex.quote(edit.command)}"
    )
    status, said = await shell.run(f"{terminal} /dev/null")
    assert status == 0, said
    host.run("systemctl", "restart", host.UNIT)
    # No name server knows this name, so only the proxy can have answered.
    host.run("mvirt-zfsctl", "import", "proxied", "http://images.invalid/image.qcow2")
    host.run("systemctl", "revert", host.UNIT)
    host.run("systemctl", "restart", host.UNIT)

    status, _ = await shell.run(f"cp {outside}/ca.crt our-ca.crt")
    assert status == 0
    for step in others:
        await shell.replay(step)
    host.run("mvirt-zfsctl", "import", "trusted", "https://example.org/image.qcow2")
