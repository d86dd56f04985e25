"""The documentation: up to date with the code, complete, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mvirt_zfs_dbus import config
from mvirt_zfs_dbus.names import Action, ErrorName, Interface

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"
PAGES = [*DOCS.rglob("*.md"), *TOP.glob("*.md"), *TOP.glob("examples/*.md")]


def test_the_reference_is_what_the_interfaces_say(tmp_path: Path) -> None:
    fresh = tmp_path / "reference.md"
    subprocess.run([sys.executable, DOCS / "reference.py", fresh], check=True)
    assert fresh.read_text() == (DOCS / "reference.md").read_text(), "run docs/reference.py"


def test_the_reference_has_every_member() -> None:
    text = (DOCS / "reference.md").read_text()
    for interface in Interface:
        xml = (TOP / f"data/dbus-1/interfaces/{interface}.xml").read_text()
        _, _, section = text.partition(f"## {interface}\n")
        section = section.partition("\n## ")[0]
        members = re.findall(r'<(?:method|signal|property) name="(\w+)"', xml)
        assert members
        assert sorted(re.findall(r"^#### (\w+) ", section, re.MULTILINE)) == sorted(members)


@pytest.mark.parametrize("name", ErrorName)
def test_each_error_is_explained(name: ErrorName) -> None:
    text = (DOCS / "errors.md").read_text()
    ours, _, standard = text.partition("## org.freedesktop.DBus.Error")
    section = ours if name.startswith("org.mvirt") else standard
    assert f"\n| `{name.rpartition('.')[2]}` | " in section


def test_the_administrator_finds_each_action_and_each_key_of_the_configuration() -> None:
    text = (DOCS / "administrator.md").read_text()
    assert set(re.findall(r"^\| `(org\.mvirt\.zfs1\.[a-z-]+)` ", text, re.MULTILINE)) == set(Action)
    _, _, keys = text.partition("| key | default |")
    rows = re.findall(r"^\| (`.*?`) \| ", keys.partition("\n\n")[0], re.MULTILINE)
    found = [key for row in rows for key in re.findall("`([a-z-]+)`", row)]
    assert found == list(config._KEYS)


def test_the_administrator_finds_the_defaults_of_the_example_configuration() -> None:
    example = (TOP / "systemd/mvirt-zfs-dbus.toml").read_text()
    bounds = dict(re.findall(r"^# (max-[a-z-]+) = (.*)$", example, re.MULTILINE))
    assert len(bounds) == 7
    text = (DOCS / "administrator.md").read_text()
    shown: dict[str, str] = {}
    for keys, defaults in re.findall(r"^\| (`max-.*?`) \| (`.*?`) \|", text, re.MULTILINE):
        shown |= zip(re.findall("`(.*?)`", keys), re.findall("`(.*?)`", defaults), strict=True)
    assert shown == {key: value.strip('"') for key, value in bounds.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link
    for file in re.findall(r"`((?:systemd|polkit|docs|data)/[\w./-]+)`", text):
        assert (TOP / file).exists(), file
