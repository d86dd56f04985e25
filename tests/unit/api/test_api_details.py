"""What polkit is told of a call: rules decide by it, and the prompt shows it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mvirt_zfs_dbus.api.manager import ManagerInterface
from mvirt_zfs_dbus.api.snapshot import SnapshotInterface
from mvirt_zfs_dbus.api.template import TemplateInterface
from mvirt_zfs_dbus.api.volume import VolumeInterface
from mvirt_zfs_dbus.bus.interface import Call
from mvirt_zfs_dbus.core.service import Service
from mvirt_zfs_dbus.errors import InvalidArgs
from mvirt_zfs_dbus.model import Pool, Snapshot, Template, Volume

VOLUME = Volume("V", "web", 4096, 512, 0, "/dev/zvol/tank/V", source="http://host/web.img")
TEMPLATE = Template("T", "debian", 2048, 512, 0, "/dev/zvol/tank/T", source="/a.img")
SNAPSHOT = Snapshot("S", "before", "V", 1024, 0)

# A double of the service: the details of a call need nothing but the catalog's look-ups.
SERVICE = cast(
    Service,
    SimpleNamespace(
        catalog=SimpleNamespace(
            pool=Pool("tank", "ONLINE"),
            volume={"V": VOLUME}.__getitem__,
            template={"T": TEMPLATE}.__getitem__,
            snapshot={"S": SNAPSHOT}.__getitem__,
        )
    ),
)
NEW = "0b0d4e4c-97c2-44e4-9e50-0f9e0d0c2a11"
MANAGER, VOLUMES = ManagerInterface(SERVICE), VolumeInterface(SERVICE)
TEMPLATES, SNAPSHOTS = TemplateInterface(SERVICE), SnapshotInterface(SERVICE)


@pytest.mark.parametrize(
    ("interface", "key", "member", "args", "options", "details"),
    [
        (MANAGER, "", "CreateVolume", ("new", 512), {}, ("new", "", "", "512")),
        (MANAGER, "", "ImportVolume", ("new", "/a"), {"size": 9}, ("new", "", "/a", "9")),
        (MANAGER, "", "ImportTemplate", ("new", "http://u:p@h/"), {}, ("new", "", "http://h/", "")),
        (MANAGER, "", "ImportVolumeFromFd", ("new", 7), {"id": NEW}, ("new", NEW, "", "")),
        (VOLUMES, "V", "Resize", (8192,), {}, ("web", "V", VOLUME.source, "8192")),
        (VOLUMES, "V", "Delete", (), {}, ("web", "V", VOLUME.source, "4096")),
        (VOLUMES, "V", "CreateSnapshot", ("new",), {"id": NEW}, ("new", NEW, "web", "4096")),
        (SNAPSHOTS, "S", "Delete", (), {}, ("before", "S", "web", "1024")),
        (SNAPSHOTS, "S", "Rollback", (), {}, ("before", "S", "web", "1024")),
        (SNAPSHOTS, "S", "CreateTemplate", ("new",), {}, ("new", "", "web@before", "1024")),
        (
            SNAPSHOTS,
            "S",
            "CopyToTemplate",
            ("new",),
            {"id": NEW},
            ("new", NEW, "web@before", "1024"),
        ),
        (TEMPLATES, "T", "Clone", ("new",), {}, ("new", "", "debian", "2048")),
        (TEMPLATES, "T", "Clone", ("new",), {"id": NEW, "size": 9}, ("new", NEW, "debian", "9")),
        (TEMPLATES, "T", "Delete", (), {}, ("debian", "T", "/a.img", "2048")),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalpha() else "",
)
def test_polkit_is_told_what_would_come_to_be_or_change(
    interface: ManagerInterface | VolumeInterface | SnapshotInterface | TemplateInterface,
    key: str,
    member: str,
    args: tuple[object, ...],
    options: dict[str, Any],
    details: tuple[str, str, str, str],
) -> None:
    call = Call(":1.1", 1000, False, "/", interface.name, member, args, options)
    told = dict(zip(("name", "id", "source", "size"), details, strict=True))
    expected = {name: value for name, value in told.items() if value}
    assert interface.details(call, key) == {"pool": "tank", **expected}


@pytest.mark.parametrize(("interface", "key"), [(VOLUMES, "V"), (TEMPLATES, "T")])
def test_polkit_is_told_the_old_name_and_the_new_one(
    interface: VolumeInterface | TemplateInterface, key: str
) -> None:
    call = Call(":1.1", 1000, False, "/", interface.name, "Rename", ("new",))
    told = interface.details(call, key)
    assert (told["id"], told["new-name"]) == (key, "new")
    assert told["name"] in ("web", "debian")


@pytest.mark.parametrize(
    ("interface", "key", "member", "args", "options"),
    [
        (MANAGER, "", "CreateVolume", ("no name", 512), {}),
        (MANAGER, "", "CreateVolume", ("new", 512), {"id": "no uuid"}),
        (MANAGER, "", "CreateVolume", ("new", 512), {"id": ""}),
        (MANAGER, "", "ImportVolume", ("new", "no source"), {}),
        (VOLUMES, "V", "Rename", ("no name",), {}),
        (VOLUMES, "V", "CreateSnapshot", ("no name",), {}),
        (SNAPSHOTS, "S", "CreateTemplate", ("no name",), {}),
        (TEMPLATES, "T", "Clone", ("no name",), {}),
    ],
)
def test_nobody_is_asked_about_what_is_refused_anyway(
    interface: ManagerInterface | VolumeInterface | SnapshotInterface | TemplateInterface,
    key: str,
    member: str,
    args: tuple[object, ...],
    options: dict[str, Any],
) -> None:
    call = Call(":1.1", 1000, False, "/", interface.name, member, args, options)
    with pytest.raises(InvalidArgs, match="no "):
        interface.details(call, key)
