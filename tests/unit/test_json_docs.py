"""docs/json.md and mvirt-zfsctl(1) describe the JSON that the interfaces make."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
KINDS = ("pool", "volume", "snapshot", "template", "job")
TYPES = {
    "s": "string",
    "o": "string",
    "t": "number",
    "u": "number",
    "d": "number",
    "b": "boolean",
    "ao": "array of strings",
    "a{ss}": "object of strings",
}


def properties(kind: str) -> dict[str, str]:
    file = TOP / f"data/dbus-1/interfaces/org.mvirt.Zfs1.{kind.title()}.xml"
    found = ET.parse(file).getroot().iter("property")
    return {"Path": "string"} | {each.attrib["name"]: TYPES[each.attrib["type"]] for each in found}


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_of_json_has_each_key_with_its_type(kind: str) -> None:
    text = (TOP / "docs/json.md").read_text().partition(f"\n## {kind}\n")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)) == properties(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_manual_has_each_key_with_its_type(kind: str) -> None:
    page = (TOP / "man/mvirt-zfsctl.1").read_text()
    text = page.partition(f"\n.It {kind}\nstrings\n")[2]
    text = "\nstrings\n" + re.split(r"\n\.It |\n\.El", text)[0]
    singular = {"strings": "string", "numbers": "number"}
    found = {
        key: singular.get(type, type)
        for type, keys in re.findall(r"\n([a-z ]+)((?:\n\.Va .*)+)", text)
        for key in re.findall(r"[A-Z]\w+", keys.replace(".Va", ""))
    }
    assert found == properties(kind)
