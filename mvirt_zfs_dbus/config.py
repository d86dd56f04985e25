"""What the administrator says: the command line, and the same keys in a TOML file below it."""

from __future__ import annotations

import argparse
import logging
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from . import __version__
from .errors import Error
from .hosts import HostRules
from .limits import Limits
from .units import parse_size

CONFIG_FILE: Final = Path("/etc/mvirt-zfs-dbus.toml")
STATE_DIRECTORY: Final = Path("/var/lib/mvirt-zfs-dbus")
IMPORT_DIRECTORIES: Final = (Path("/var/lib/mvirt/images"), Path("/var/lib/libvirt/images"))
MAX_IMAGE_SIZE: Final = 16 * 2**40
"""Bytes; 16 TiB is the largest file ext4 holds."""
MAX_IMPORTS: Final = 4
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class ConfigError(Exception):
    """A wrong option or value; the message says what would be right."""


@dataclass(frozen=True, slots=True)
class Config:
    pool: str
    """A ZFS pool or dataset; empty when ``directory`` is used."""
    directory: Path | None
    bus: str
    """``system``, ``session`` or a D-Bus address."""
    state_directory: Path
    max_imports: int
    max_image_size: int
    log_level: int
    import_directories: tuple[Path, ...] | None
    """Where path sources lie; None for anywhere the process may read."""
    import_block_devices: bool
    """Whether a path source may be a block device."""
    import_hosts: HostRules
    """Where URL sources may lead."""
    limits: Limits


def load(arguments: Sequence[str]) -> Config:
    """The configuration of a command line, with the config file for what it leaves open.

    ConfigError: something is wrong with it. SystemExit: ``--help`` or ``--version`` was asked for.
    """
    parsed = _parser().parse_args(arguments)
    given = {key: value for key, value in vars(parsed).items() if value is not None}
    file = Path(given.pop("config", CONFIG_FILE))
    values = _read(file, required=parsed.config is not None)
    if "pool" in given or "directory" in given:  # one store; the command line says which
        values.pop("pool", None)
        values.pop("directory", None)
    return _config(values | {key.replace("_", "-"): value for key, value in given.items()})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ConfigError(f"{message}; see mvirt-zfs-dbus --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mvirt-zfs-dbus",
        description="Serve ZFS volumes, snapshots, templates and image imports over D-Bus.",
        epilog=f"The same keys, without the dashes in front, can stand in {CONFIG_FILE};"
        " the command line wins.",
        allow_abbrev=False,
    )
    store = parser.add_mutually_exclusive_group()
    store.add_argument("--pool", metavar="NAME", help="keep disks in this ZFS pool or dataset")
    store.add_argument("--directory", metavar="PATH", help="keep disks as files in this directory")
    parser.add_argument(
        "--bus",
        metavar="system|session|ADDRESS",
        help="where to serve (default: system with --pool, session with --directory)",
    )
    parser.add_argument(
        "--state-directory",
        metavar="PATH",
        help="where jobs are remembered"
        f" (default: {STATE_DIRECTORY}, or .state in the --directory)",
    )
    parser.add_argument(
        "--max-imports",
        metavar="N",
        help=f"how many imports run at a time (default: {MAX_IMPORTS})",
    )
    parser.add_argument(
        "--max-image-size",
        metavar="SIZE",
        help="the largest disk an image may hold, as 500G or 16TiB (default: 16TiB)",
    )
    parser.add_argument("--config", metavar="FILE", help=f"instead of {CONFIG_FILE}")
    parser.add_argument(
        "--log-level", metavar="LEVEL", help="debug, info, warning or error (default: info)"
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _read(file: Path, *, required: bool) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError as error:
        if required:
            raise ConfigError(f"the config file {file} does not exist") from error
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the config file {file} cannot be read: {error}") from error


def _config(values: Mapping[str, Any]) -> Config:
    unknown = sorted(set(values) - set(_KEYS))
    if unknown:
        raise ConfigError(f"unknown key {unknown[0]!r}; the keys are {', '.join(_KEYS)}")
    checked = {key: _KEYS[key](key, value) for key, value in values.items()}
    pool, directory = checked.get("pool", ""), checked.get("directory")
    if bool(pool) == bool(directory):
        raise ConfigError("one of --pool NAME and --directory PATH is needed, and not both")
    bus = checked.get("bus") or ("system" if pool else "session")
    return Config(
        pool=pool,
        directory=directory,
        bus=bus,
        state_directory=checked.get("state-directory") or _state_directory(directory),
        max_imports=checked.get("max-imports", MAX_IMPORTS),
        max_image_size=checked.get("max-image-size", MAX_IMAGE_SIZE),
        log_level=checked.get("log-level", logging.INFO),
        import_directories=(
            checked.get("import-directories", IMPORT_DIRECTORIES) if bus == "system" else None
        ),
        import_block_devices=checked.get("import-block-devices", bus != "system"),
        import_hosts=_hosts(
            checked.get("import-hosts-allow", ()), checked.get("import-hosts-deny", ())
        ),
        limits=_limits(checked),
    )


def _state_directory(directory: Path | None) -> Path:
    if directory:
        return directory / ".state"
    return Path(os.environ.get("STATE_DIRECTORY", STATE_DIRECTORY))  # systemd.exec(5)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key} takes a text, not {value!r}")
    return value


def _pool(key: str, value: Any) -> str:
    text = _text(key, value)
    if text.startswith(("/", "-")) or text.endswith("/") or "@" in text or "//" in text:
        raise ConfigError(
            f"{key} takes the name of a pool or dataset, as tank or tank/vm: {text!r}"
        )
    return text


def _path(key: str, value: Any) -> Path:
    path = Path(_text(key, value))
    if not path.is_absolute():
        path = Path.cwd() / path
    return path


def _bus(key: str, value: Any) -> str:
    text = _text(key, value)
    if text not in ("system", "session") and ":" not in text:
        raise ConfigError(f"{key} takes system, session or an address as unix:path=…: {text!r}")
    return text


def _count(key: str, value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1000:
        raise ConfigError(f"{key} takes a number from 1 to 1000, not {value!r}")
    return value


def _number(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 10**6:
        raise ConfigError(f"{key} takes a number from 1 to 1000000, not {value!r}")
    return value


def _size(key: str, value: Any) -> int:
    try:
        size = parse_size(str(value))
    except Error as error:
        raise ConfigError(f"{key}: {error}") from error
    if size <= 0:
        raise ConfigError(f"{key} takes a size over 0, not {value!r}")
    return size


def _log_level(key: str, value: Any) -> int:
    if value not in LOG_LEVELS:
        raise ConfigError(f"{key} takes one of {', '.join(LOG_LEVELS)}, not {value!r}")
    return int(getattr(logging, str(value).upper()))


def _paths(key: str, value: Any) -> tuple[Path, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{key} takes a list of absolute paths, not {value!r}")
    for text in value:
        if not Path(_text(key, text)).is_absolute():
            raise ConfigError(f"{key} takes absolute paths, not {text!r}")
    return tuple(map(Path, value))


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{key} takes true or false, not {value!r}")
    return value


def _host_list(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ConfigError(f"{key} takes a list of hosts, addresses and networks, not {value!r}")
    try:
        return tuple(HostRules(value).allow)
    except Error as error:
        raise ConfigError(f"{key}: {error}") from error


def _hosts(allow: Sequence[str], deny: Sequence[str]) -> HostRules:
    try:
        return HostRules(allow, deny)
    except Error as error:
        raise ConfigError(f"import-hosts-allow, import-hosts-deny: {error}") from error


def _limits(checked: Mapping[str, Any]) -> Limits:
    given = {name: checked.get(key) for key, name in _LIMITS.items()}
    return Limits(**{name: value for name, value in given.items() if value is not None})


_LIMITS: Final = {f"max-{each.name.replace('_', '-')}": each.name for each in fields(Limits)}
_KEYS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "pool": _pool,
    "directory": _path,
    "bus": _bus,
    "state-directory": _path,
    "max-imports": _count,
    "max-image-size": _size,
    **{key: _size if key == "max-spool" else _number for key in _LIMITS},
    "log-level": _log_level,
    "import-directories": _paths,
    "import-block-devices": _flag,
    "import-hosts-allow": _host_list,
    "import-hosts-deny": _host_list,
}
