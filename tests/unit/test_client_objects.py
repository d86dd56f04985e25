"""The typed client knows what the interfaces have."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from mvirt_zfs_dbus.client.job import Job
from mvirt_zfs_dbus.client.manager import Manager
from mvirt_zfs_dbus.client.objects import Pool, Snapshot, Template, Volume
from mvirt_zfs_dbus.client.remote import RemoteObject
from mvirt_zfs_dbus.names import Interface

INTERFACES = Path(__file__).parents[2] / "data/dbus-1/interfaces"
CLASSES: list[type[RemoteObject]] = [Manager, Pool, Volume, Snapshot, Template, Job]


def test_each_interface_has_a_class() -> None:
    assert {each.interface for each in CLASSES} == set(Interface)


@pytest.mark.parametrize("kind", CLASSES)
def test_each_property_of_an_interface_is_read_by_its_class(kind: type[RemoteObject]) -> None:
    source = "".join(inspect.getsource(each) for each in kind.__mro__[:-1])
    xml = (INTERFACES / f"{kind.interface}.xml").read_text()
    names = re.findall(r'<property name="(\w+)"', xml)
    assert names
    assert [name for name in names if f'"{name}"' not in source] == []
