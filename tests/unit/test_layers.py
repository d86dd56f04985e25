"""The arrows of docs/design.md: which part of the package may import which, and what outside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mvirt_zfs_dbus

PACKAGE = Path(mvirt_zfs_dbus.__file__).parent

BELOW = {"names", "errors", "model", "rules", "hosts", "limits"}
BELOW |= {"units", "tasks", "fds", "processes"}
# Each part of the package, and what it may import beside itself.
ARROWS: dict[str, set[str]] = {
    "names": set(),
    "errors": {"names"},
    "model": set(),
    "rules": {"errors"},
    "hosts": {"errors"},
    "limits": set(),
    "units": {"errors"},
    "tasks": set(),
    "fds": set(),
    "processes": set(),
    "garbage": set(),
    "store": BELOW,
    "image": BELOW,
    "core": BELOW | {"store.base", "image"},  # a store's driver is the daemon's choice
    "bus": {"names", "errors", "fds"},  # knows nothing of volumes
    "api": BELOW | {"core", "bus"},
    "client": BELOW | {"bus"},
    "cli": BELOW | {"client"},  # talks to the service over the bus
    "systemd": set(),
    "logs": set(),
    "config": BELOW,
    "daemon": BELOW
    | {"store", "image", "core", "bus", "api", "systemd", "logs", "config", "garbage"},
    "__main__": {"daemon"},
    "__init__": set(),
}
# Each library that one place alone imports.
HOMES = {
    "libzfs_core": "store/zfs.py",
    "aiohttp": "image/download.py",
    "yarl": "image/",  # URLs, as aiohttp takes them
    "dbus_fast": "bus/",
    "dbus_next": "bus/",
    "rich": "cli/",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def where(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imported(path: Path) -> Iterator[str]:
    """The full name of everything a module imports, at its top or anywhere in it."""
    package = ["mvirt_zfs_dbus", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def is_in(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


@pytest.mark.parametrize("path", MODULES, ids=where)
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert own in ARROWS, f"{own} is a new part of the package: say here what it may import"
    for name in imported(path):
        inside = name.removeprefix("mvirt_zfs_dbus.")
        if inside in (name, "__version__") or is_in(inside, own):
            continue
        assert any(is_in(inside, part) for part in ARROWS[own]), f"{own} may not import {name}"


@pytest.mark.parametrize("path", MODULES, ids=where)
def test_a_library_is_imported_in_its_one_place(path: Path) -> None:
    for name in imported(path):
        home = HOMES.get(name.partition(".")[0])
        assert home is None or where(path).startswith(home), f"{name} belongs into {home}"


def test_the_arrows_have_no_circle() -> None:
    def reached(part: str, seen: tuple[str, ...] = ()) -> None:
        assert part not in seen, " → ".join([*seen, part])
        for target in ARROWS[part]:
            reached(target.partition(".")[0], (*seen, part))

    for part in ARROWS:
        reached(part)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from ..model import Volume", ["mvirt_zfs_dbus.model.Volume"]),
        ("from .. import rules", ["mvirt_zfs_dbus.rules"]),
        ("from . import base", ["mvirt_zfs_dbus.core.base"]),
        ("def f():\n    import aiohttp.web", ["aiohttp.web"]),
        ("importlib.import_module('libzfs_core')", ["libzfs_core"]),
    ],
)
def test_every_way_to_import_is_seen(
    source: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    module = tmp_path / "core" / "module.py"
    module.parent.mkdir()
    module.write_text(source)
    assert list(imported(module)) == names
