"""The objects on the bus: what exists at which path, what was last said of it, and what to say now.

Nothing is said before :meth:`ObjectTree.publish`. From then on every object is announced with
InterfacesAdded before anything else is said of it, all changes of one turn of the event loop leave
as one PropertiesChanged an interface, and only what really differs is in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from .. import names
from . import introspect
from .entries import Entries, entry, padded
from .interface import Interface, PropertySpec
from .library import check_size
from .values import converter, variant
from .wire import Message, Variant

_log = logging.getLogger(__name__)

PROPERTIES: Final = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER: Final = "org.freedesktop.DBus.ObjectManager"

Values = dict[str, dict[str, Variant]]
"""Interface name → property name → value."""


class Node:
    """One object: its interfaces and the values its properties last had on the bus."""

    __slots__ = ("_entry", "announced", "interfaces", "key", "values")

    def __init__(self, key: str, interfaces: Sequence[Interface]) -> None:
        self.key = key
        self.interfaces = tuple(interfaces)
        self.values: Values = {interface.name: {} for interface in interfaces}
        self.announced = False
        self._entry = b""

    def entry(self, path: str) -> bytes:
        """What it is in the answer to GetManagedObjects, kept until it changes."""
        if not self._entry:
            self._entry = padded(entry(path, self.values))
        return self._entry

    def update(self, interface: Interface) -> dict[str, Variant]:
        """Read every property again; answers those that emit and differ from what was said."""
        values = self.values[interface.name]
        changed = {}
        for spec in interface.properties.values():
            if _read(values, spec, getattr(interface, spec.attribute)(self.key)):
                changed[spec.name] = values[spec.name]
                self._entry = b""
        return {
            name: value
            for name, value in changed.items()
            if interface.properties[name].emits == "true"
        }

    def interface(self, name: str) -> Interface | None:
        for interface in self.interfaces:
            if interface.name == name:
                return interface
        return None


def _read(values: dict[str, Variant], spec: PropertySpec, value: Any) -> bool:
    """Keep a property's value; True if it is another one than before."""
    old = values.get(spec.name)
    if old is None:
        values[spec.name] = variant(spec.signature, value)
        return True
    value = converter(spec.signature)(value)
    if old.value == value:
        return False
    values[spec.name] = Variant(spec.signature, value)
    return True


class ObjectTree:
    """All objects, below and including ``root``, which is also the ObjectManager."""

    def __init__(self, root: str = names.ROOT) -> None:
        self.root = root
        self._nodes: dict[str, Node] = {}
        self._children: dict[str, dict[str, None]] = {"/": {}}
        self._send: Callable[[Message], object] | None = None
        self._pending: dict[str, None] = {}
        self._scheduled = False

    def publish(self, send: Callable[[Message], object]) -> None:
        """Say from now on what changes. What is there already is found by asking."""
        for node in self._nodes.values():
            node.announced = True
        self.flush()  # what changed meanwhile is read; with nobody to send to, nothing is said
        self._send = send

    # Changes

    def add(self, path: str, key: str, interfaces: Sequence[Interface]) -> None:
        """A new object; its interfaces are asked for their properties with ``key`` once all that
        changes in this turn of the event loop has changed."""
        if path in self._nodes:
            raise ValueError(f"there is an object at {path} already")
        self._nodes[path] = Node(key, interfaces)
        self._link(path)
        self._later(path)

    def remove(self, path: str) -> None:
        """The object is gone. Removing what is not there does nothing."""
        node = self._nodes.pop(path, None)
        if node is None:
            return
        self._pending.pop(path, None)
        self._unlink(path)
        if node.announced and path != self.root:
            removed = [interface.name for interface in node.interfaces]
            self._emit(self.root, OBJECT_MANAGER, "InterfacesRemoved", "oas", [path, removed])

    def changed(self, path: str) -> None:
        """Properties of this object may have changed; an object that is gone does not matter."""
        if path in self._nodes:
            self._later(path)

    def flush(self, path: str | None = None) -> None:
        """Say now what is waiting to be said of this object, or of all."""
        for pending in list(self._pending) if path is None else [path]:
            if pending in self._pending:
                del self._pending[pending]
                try:
                    self._announce(pending, self._nodes[pending])
                except Exception:
                    _log.exception("the properties of %s cannot be read", pending)

    def emit(self, path: str, interface_name: str, signal_name: str, *args: Any) -> None:
        """Send a signal of an object, after all that is waiting to be said of the object."""
        self.flush(path)
        interface = self._nodes[path].interface(interface_name)
        if interface is None:
            raise ValueError(f"the object at {path} has no interface {interface_name}")
        signal = interface.signal(signal_name)
        body = [
            converter(arg.signature)(value) for arg, value in zip(signal.args, args, strict=True)
        ]
        self._emit(path, interface.name, signal.name, signal.signature, body)

    # What there is

    def paths(self) -> list[str]:
        return list(self._nodes)

    def get(self, path: str) -> Node | None:
        """The object at a path, with everything waiting to be said of it said."""
        self.flush(path)
        return self._nodes.get(path)

    def managed(self) -> Entries:
        """The answer to GetManagedObjects. LimitsExceeded: it is larger than a bus takes."""
        self.flush()
        managed = {path: node for path, node in self._nodes.items() if path != self.root}
        entries, size = [], 0
        for path, node in managed.items():
            entries.append(node.entry(path))
            size += len(entries[-1])
            check_size(size)
        if managed:
            path, last = next(reversed(managed.items()))
            entries[-1] = entry(path, last.values)
        return Entries(entries)

    def introspection(self, path: str) -> str | None:
        """The XML of an object, or of a step on the way to one; None where there is neither."""
        children: Iterable[str] | None = self._children.get(path)
        node = self._nodes.get(path)
        if node is None and children is None:
            return None
        interfaces = node.interfaces if node is not None else ()
        return introspect.document(
            interfaces, children or (), manager=node is not None and path == self.root
        )

    # How it is said

    def _later(self, path: str) -> None:
        self._pending[path] = None
        if self._send is not None and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush_all)

    def _flush_all(self) -> None:
        self._scheduled = False
        self.flush()

    def _announce(self, path: str, node: Node) -> None:
        for interface in node.interfaces:
            changed = node.update(interface)
            if node.announced and changed:
                body = [interface.name, changed, []]
                self._emit(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", body)
        if not node.announced and self._send is not None:
            node.announced = True
            if path != self.root:
                body = [path, node.values]
                self._emit(self.root, OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", body)

    def _emit(
        self, path: str, interface: str, member: str, signature: str, body: list[Any]
    ) -> None:
        if self._send is not None:
            self._send(Message.new_signal(path, interface, member, signature, body))

    def _link(self, path: str) -> None:
        self._children.setdefault(path, {})
        while path != "/":
            parent, _, name = path.rpartition("/")
            parent = parent or "/"
            known = parent in self._children
            self._children.setdefault(parent, {})[name] = None
            if known:
                return
            path = parent

    def _unlink(self, path: str) -> None:
        while path != "/" and path not in self._nodes and not self._children[path]:
            del self._children[path]
            parent, _, name = path.rpartition("/")
            path = parent or "/"
            del self._children[path][name]
