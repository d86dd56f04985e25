"""What can be called, and what each call may answer: read from ``data/dbus-1/interfaces/``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.dom import minidom

INTERFACES = Path(__file__).parents[3] / "data" / "dbus-1" / "interfaces"
_OPTION = re.compile(r'^\s*- "([a-z-]+)" \(([a-z{}]+)\)', re.MULTILINE)
_ERRORS = re.compile(r"^\s*Errors: ([A-Za-z, \n]+)", re.MULTILINE)


@dataclass(frozen=True)
class Method:
    interface: str
    name: str
    args: tuple[tuple[str, str], ...]
    """Name and signature of each, the trailing options not among them."""
    takes_options: bool
    options: dict[str, str] = field(hash=False)
    errors: frozenset[str]
    """The last part of each name its documentation has."""

    @property
    def signature(self) -> str:
        return "".join(kind for _, kind in self.args) + ("a{sv}" if self.takes_options else "")


@dataclass(frozen=True)
class Property:
    interface: str
    name: str


def interfaces() -> Iterator[minidom.Element]:
    for file in sorted(INTERFACES.glob("*.xml")):
        yield from minidom.parse(str(file)).getElementsByTagName("interface")


def methods() -> list[Method]:
    return [
        _method(interface.getAttribute("name"), element)
        for interface in interfaces()
        for element in interface.getElementsByTagName("method")
    ]


def properties() -> list[Property]:
    return [
        Property(interface.getAttribute("name"), element.getAttribute("name"))
        for interface in interfaces()
        for element in interface.getElementsByTagName("property")
    ]


def _method(interface: str, element: minidom.Element) -> Method:
    args = [
        (arg.getAttribute("name"), arg.getAttribute("type"))
        for arg in element.getElementsByTagName("arg")
        if arg.getAttribute("direction") != "out"
    ]
    takes_options = bool(args) and args[-1][0] == "options"
    text = _comment(element)
    found = _ERRORS.search(text)
    return Method(
        interface=interface,
        name=element.getAttribute("name"),
        args=tuple(args[:-1] if takes_options else args),
        takes_options=takes_options,
        options=dict(_OPTION.findall(text)),
        errors=frozenset(re.findall("[A-Za-z]+", found.group(1)) if found else ()),
    )


def _comment(element: minidom.Element) -> str:
    """The documentation before an element."""
    node = element.previousSibling
    while node is not None and node.nodeType != node.COMMENT_NODE:
        node = node.previousSibling
    return str(node.data) if node is not None else ""
