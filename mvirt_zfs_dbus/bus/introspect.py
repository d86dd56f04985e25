"""Introspection data, in the format the D-Bus specification gives it.

Names of the bus consist of letters, digits, ``_`` and ``.``: nothing that XML would have escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from .interface import Arg, Interface

_DOCTYPE: Final = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)
_EMITS: Final = "org.freedesktop.DBus.Property.EmitsChangedSignal"

_INTROSPECTABLE: Final = """\
 <interface name="org.freedesktop.DBus.Introspectable">
  <method name="Introspect">
   <arg name="xml_data" type="s" direction="out"/>
  </method>
 </interface>
"""
_PEER: Final = """\
 <interface name="org.freedesktop.DBus.Peer">
  <method name="Ping"/>
  <method name="GetMachineId">
   <arg name="machine_uuid" type="s" direction="out"/>
  </method>
 </interface>
"""
_PROPERTIES: Final = """\
 <interface name="org.freedesktop.DBus.Properties">
  <method name="Get">
   <arg name="interface_name" type="s" direction="in"/>
   <arg name="property_name" type="s" direction="in"/>
   <arg name="value" type="v" direction="out"/>
  </method>
  <method name="GetAll">
   <arg name="interface_name" type="s" direction="in"/>
   <arg name="props" type="a{sv}" direction="out"/>
  </method>
  <method name="Set">
   <arg name="interface_name" type="s" direction="in"/>
   <arg name="property_name" type="s" direction="in"/>
   <arg name="value" type="v" direction="in"/>
  </method>
  <signal name="PropertiesChanged">
   <arg name="interface_name" type="s"/>
   <arg name="changed_properties" type="a{sv}"/>
   <arg name="invalidated_properties" type="as"/>
  </signal>
 </interface>
"""
_OBJECT_MANAGER: Final = """\
 <interface name="org.freedesktop.DBus.ObjectManager">
  <method name="GetManagedObjects">
   <arg name="objpath_interfaces_and_properties" type="a{oa{sa{sv}}}" direction="out"/>
  </method>
  <signal name="InterfacesAdded">
   <arg name="object_path" type="o"/>
   <arg name="interfaces_and_properties" type="a{sa{sv}}"/>
  </signal>
  <signal name="InterfacesRemoved">
   <arg name="object_path" type="o"/>
   <arg name="interfaces" type="as"/>
  </signal>
 </interface>
"""


def document(interfaces: Sequence[Interface], children: Iterable[str], *, manager: bool) -> str:
    """The XML of one node; ``manager`` adds ObjectManager. A node without interfaces is a mere
    step on the way to its children."""
    parts = [_DOCTYPE, "<node>\n", _INTROSPECTABLE, _PEER]
    if interfaces:
        parts.append(_PROPERTIES)
    if manager:
        parts.append(_OBJECT_MANAGER)
    parts += [_interface_xml(type(interface)) for interface in interfaces]
    parts += [f' <node name="{child}"/>\n' for child in children]
    parts.append("</node>\n")
    return "".join(parts)


def _interface_xml(interface: type[Interface]) -> str:
    lines = [f' <interface name="{interface.name}">']
    for method in interface.methods.values():
        lines += [f'  <method name="{method.name}">']
        lines += [_arg(arg, "in") for arg in method.all_ins]
        lines += [_arg(arg, "out") for arg in method.outs]
        lines += ["  </method>"]
    for signal in interface.signals:
        lines += [f'  <signal name="{signal.name}">']
        lines += [_arg(arg) for arg in signal.args]
        lines += ["  </signal>"]
    for prop in interface.properties.values():
        lines += [
            f'  <property name="{prop.name}" type="{prop.signature}" access="read">',
            f'   <annotation name="{_EMITS}" value="{prop.emits}"/>',
            "  </property>",
        ]
    lines += [" </interface>\n"]
    return "\n".join(lines)


def _arg(arg: Arg, direction: str = "") -> str:
    shown = f' direction="{direction}"' if direction else ""
    return f'   <arg name="{arg.name}" type="{arg.signature}"{shown}/>'
