"""Writes docs/reference.md from the introspection XML: ``python docs/reference.py [OUTPUT]``."""

from __future__ import annotations

import sys
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
XML = HERE.parent / "data/dbus-1/interfaces"
ORDER = ("Manager", "Pool", "Volume", "Snapshot", "Template", "Job")
TOLD = {
    "const": "never changes",
    "true": "changes are told by `PropertiesChanged`",
    "false": "changes are not told",
}

TITLE = """\
# Reference

The interfaces of `org.mvirt.Zfs1`, from `data/dbus-1/interfaces/` by `docs/reference.py`; change
those files, not this one. What the errors mean is in [errors.md](errors.md).
"""


def main(output: Path) -> None:
    output.write_text("\n".join([TITLE, *(interface(XML / file(name)) for name in ORDER)]))


def file(name: str) -> str:
    return f"org.mvirt.Zfs1.{name}.xml"


def interface(path: Path) -> str:
    builder = ET.TreeBuilder(insert_comments=True)
    root = ET.parse(path, ET.XMLParser(target=builder)).getroot()
    (element, comment), *_ = documented(root)
    members = list(documented(element))
    lines = [f"## {element.get('name')}", "", description(comment), ""]
    for title, tag in (("Methods", "method"), ("Signals", "signal")):
        of_kind = [found for found in members if found[0].tag == tag]
        if of_kind:
            lines += [f"### {title}", ""]
        for member, text in of_kind:
            lines += [f"#### {call(member)}", "", *arguments(member, text), description(text), ""]
    lines += ["### Properties", ""]
    for member, text in members:
        if member.tag == "property":
            told = TOLD[member[0].get("value", "")]
            lines += [f"#### {member.get('name')} `{member.get('type')}`", ""]
            lines += [description(text), "", f"*{told}*", ""]
    return "\n".join(lines)


def documented(parent: ET.Element) -> Iterator[tuple[ET.Element, str]]:
    """Each child with the comment before it."""
    comment = ""
    for child in parent:
        if not isinstance(child.tag, str):  # a comment's tag is the function that makes one
            comment = textwrap.dedent(child.text or "").strip()
        else:
            yield child, comment


def description(comment: str) -> str:
    """A comment without its title and what it says of arguments."""
    _, _, rest = comment.partition("\n")
    lines = [line for line in rest.splitlines() if not line.startswith("@")]
    return "\n".join(bold(line) for line in lines).strip()


def bold(line: str) -> str:
    for word in ("Errors of the job:", "Errors:", "Authorisation:", "Options:"):
        if line.startswith(word):
            return f"**{word}**{line.removeprefix(word)}"
    return line


def call(member: ET.Element) -> str:
    taken = [argument for argument in member.iter("arg") if argument.get("direction") != "out"]
    given = [argument for argument in member.iter("arg") if argument.get("direction") == "out"]
    answer = f" → {shown(given)}" if given else ""
    return f"{member.get('name')} `({shown(taken)}){answer}`"


def shown(arguments: list[ET.Element]) -> str:
    return ", ".join(f"{found.get('type')} {found.get('name')}" for found in arguments)


def arguments(member: ET.Element, comment: str) -> list[str]:
    """A list of the arguments the signature alone does not explain."""
    said = [line for line in comment.splitlines() if line.startswith("@")]
    found = [line[1:].partition(": ") for line in said if not line.startswith("@options:")]
    return [*(f"- `{name}`: {text}" for name, _, text in found), ""] if found else []


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "reference.md")
