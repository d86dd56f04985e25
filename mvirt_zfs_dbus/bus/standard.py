"""The interfaces of every object: Properties, Introspectable, Peer; ObjectManager on the root."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .. import errors
from .entries import MANAGED
from .interface import Interface, PropertySpec
from .objects import OBJECT_MANAGER, PROPERTIES, Node, ObjectTree
from .wire import Variant

INTROSPECTABLE: Final = "org.freedesktop.DBus.Introspectable"
PEER: Final = "org.freedesktop.DBus.Peer"
_NAMES: Final = (PROPERTIES, INTROSPECTABLE, PEER, OBJECT_MANAGER)

_MACHINE_ID: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
"""machine-id(5), and where D-Bus had it before."""

Body = list[Any]


@dataclass(frozen=True, slots=True)
class StandardMethod:
    signature: str
    out_signature: str
    answer: Callable[..., Body | Coroutine[Any, Any, Body]]
    """Takes the tree, the path and the arguments; answers the body of the reply, or raises."""


def find(interface: str, member: str) -> StandardMethod | None:
    """A standard method; a call without an interface finds it by its name alone."""
    if interface:
        return _METHODS.get((interface, member))
    return next((found for (_, name), found in _METHODS.items() if name == member), None)


def is_standard(interface: str) -> bool:
    return interface in _NAMES


def object_at(tree: ObjectTree, path: str) -> Node:
    node = tree.get(path)
    if node is None:
        raise errors.UnknownObject(f"there is no object at {path}")
    return node


def _get(
    tree: ObjectTree, path: str, interface_name: str, name: str
) -> Body | Coroutine[Any, Any, Body]:
    interface, spec = _property(object_at(tree, path), path, interface_name, name)
    if spec.emits == "false":
        return _get_fresh(tree, path, interface, spec)
    return [object_at(tree, path).values[interface.name][spec.name]]


async def _get_fresh(tree: ObjectTree, path: str, interface: Interface, spec: PropertySpec) -> Body:
    with suppress(errors.NotFound):  # it went meanwhile, as will show
        await interface.refresh(object_at(tree, path).key)
    tree.changed(path)
    return [object_at(tree, path).values[interface.name][spec.name]]


def _get_all(tree: ObjectTree, path: str, interface_name: str) -> Body | Coroutine[Any, Any, Body]:
    node = object_at(tree, path)
    if is_standard(interface_name):
        return [{}]
    interfaces = _interfaces(node, path, interface_name)
    if any(spec.emits == "false" for found in interfaces for spec in found.properties.values()):
        return _get_all_fresh(tree, path, interfaces)
    return [_all_values(node, interfaces)]


async def _get_all_fresh(tree: ObjectTree, path: str, interfaces: tuple[Interface, ...]) -> Body:
    """With what a failing ``refresh`` left as it was: all else is worth reading even then."""
    for interface in interfaces:
        try:
            await interface.refresh(object_at(tree, path).key)
        except errors.UnknownObject:
            raise
        except errors.Error:
            continue
    tree.changed(path)
    return [_all_values(object_at(tree, path), interfaces)]


def _all_values(node: Node, interfaces: tuple[Interface, ...]) -> dict[str, Variant]:
    return {
        name: value
        for interface in interfaces
        for name, value in node.values[interface.name].items()
    }


def _set(tree: ObjectTree, path: str, interface_name: str, name: str, value: Variant) -> Body:
    _, spec = _property(object_at(tree, path), path, interface_name, name)
    raise errors.PropertyReadOnly(
        f"property {spec.name} cannot be set: every change is made by a method"
    )


def _property(
    node: Node, path: str, interface_name: str, name: str
) -> tuple[Interface, PropertySpec]:
    interfaces = () if is_standard(interface_name) else _interfaces(node, path, interface_name)
    for interface in interfaces:
        if name in interface.properties:
            return interface, interface.properties[name]
    raise errors.UnknownProperty(f"{interface_name or path} has no property {name!r}")


def _interfaces(node: Node, path: str, name: str) -> tuple[Interface, ...]:
    """The interface of that name; all of them if the name is empty, as the specification has it."""
    if not name:
        return node.interfaces
    interface = node.interface(name)
    if interface is None:
        raise errors.UnknownInterface(f"the object at {path} has no interface {name!r}")
    return (interface,)


def _introspect(tree: ObjectTree, path: str) -> Body:
    xml = tree.introspection(path)
    if xml is None:
        raise errors.UnknownObject(f"there is no object at {path}")
    return [xml]


def _ping(tree: ObjectTree, path: str) -> Body:
    return []


def _get_machine_id(tree: ObjectTree, path: str) -> Body:
    for file in _MACHINE_ID:
        try:
            return [file.read_text(encoding="ascii").strip()]
        except OSError:
            continue
    raise errors.Error(f"this machine has no {_MACHINE_ID[0]}")


def _get_managed_objects(tree: ObjectTree, path: str) -> Body:
    if path != tree.root:
        raise errors.UnknownInterface(f"the ObjectManager is at {tree.root}, not at {path}")
    return [tree.managed()]


_METHODS: Final = {
    (PROPERTIES, "Get"): StandardMethod("ss", "v", _get),
    (PROPERTIES, "GetAll"): StandardMethod("s", "a{sv}", _get_all),
    (PROPERTIES, "Set"): StandardMethod("ssv", "", _set),
    (INTROSPECTABLE, "Introspect"): StandardMethod("", "s", _introspect),
    (PEER, "Ping"): StandardMethod("", "", _ping),
    (PEER, "GetMachineId"): StandardMethod("", "s", _get_machine_id),
    (OBJECT_MANAGER, "GetManagedObjects"): StandardMethod("", MANAGED, _get_managed_objects),
}
