"""Names as the outside sees them: well formed, and escaped as systemd escapes them."""

from __future__ import annotations

import ctypes
import re
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.names import Action, ErrorName, Interface

# D-Bus Specification, "Valid Names" and "Valid Object Paths".
BUS_NAME = re.compile(r"[A-Za-z_-][A-Za-z0-9_-]*(\.[A-Za-z_-][A-Za-z0-9_-]*)+")
INTERFACE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+")
PATH = re.compile(r"(/[A-Za-z0-9_]+)+")

# What a D-Bus string may hold: any Unicode text without NUL.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


try:
    libsystemd = ctypes.CDLL("libsystemd.so.0")
except OSError:
    libsystemd = None


def systemd_escapes(label: str) -> str:
    """sd_bus_path_encode(3) itself."""
    path = ctypes.c_char_p()
    assert libsystemd.sd_bus_path_encode(b"/x", label.encode(), ctypes.byref(path)) >= 0
    assert path.value
    return path.value.decode().removeprefix("/x/")


def unescaped(label: str) -> str:
    def bytes_of(text: str) -> Iterator[int]:
        position = 0
        while position < len(text):
            if text[position] == "_":
                yield int(text[position + 1 : position + 3], 16)
                position += 3
            else:
                yield ord(text[position])
                position += 1

    return "" if label == "_" else bytes(bytes_of(label)).decode()


@pytest.mark.skipif(libsystemd is None, reason="needs libsystemd")
@given(texts)
def test_a_label_is_escaped_as_systemd_does(label: str) -> None:
    assert names.escape_label(label) == systemd_escapes(label)


@given(texts)
def test_an_escaped_label_is_one_path_element_and_can_be_read_back(label: str) -> None:
    escaped = names.escape_label(label)
    assert re.fullmatch(r"[A-Za-z0-9_]+", escaped)
    assert unescaped(escaped) == label


@pytest.mark.parametrize(
    ("pool", "path"),
    [
        ("mvirt", "/org/mvirt/Zfs1/pool/mvirt"),
        ("tank/vm", "/org/mvirt/Zfs1/pool/tank_2fvm"),
        ("9pool-a", "/org/mvirt/Zfs1/pool/_39pool_2da"),
        ("a_b9", "/org/mvirt/Zfs1/pool/a_5fb9"),
        ("", "/org/mvirt/Zfs1/pool/_"),
    ],
)
def test_a_pool_has_its_escaped_name_in_its_path(pool: str, path: str) -> None:
    assert names.pool_path(pool) == path


@given(st.uuids().map(str))
def test_an_object_has_its_uuid_in_its_path(object_id: str) -> None:
    for kind, path in (
        ("volume", names.volume_path(object_id)),
        ("snapshot", names.snapshot_path(object_id)),
        ("template", names.template_path(object_id)),
        ("job", names.job_path(object_id)),
    ):
        assert PATH.fullmatch(path)
        assert path.startswith(f"{names.ROOT}/{kind}/")
        assert str(uuid.UUID(path.rpartition("/")[2].replace("_", "-"))) == object_id


def test_the_names_are_ones_dbus_and_polkit_allow() -> None:
    assert BUS_NAME.fullmatch(names.BUS_NAME)
    assert f"/{names.BUS_NAME.replace('.', '/')}" == names.ROOT
    assert all(INTERFACE.fullmatch(name) for name in (*Interface, *ErrorName))
    assert all(name.startswith(f"{names.BUS_NAME}.") for name in Interface)
    assert all(re.fullmatch(r"org\.mvirt\.zfs1\.[a-z]+(-[a-z]+)*", action) for action in Action)


@pytest.mark.parametrize("name", ErrorName)
def test_an_error_is_ours_or_a_standard_one(name: ErrorName) -> None:
    assert name.rpartition(".")[0] in (
        f"{names.BUS_NAME}.Error",
        "org.freedesktop.DBus.Error",
    )
