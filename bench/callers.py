"""Who does what to volumes: a client of the service, and zfs(8)."""

from __future__ import annotations

import os
import re
import time
import uuid
from typing import Any, Final, Protocol

from mvirt_zfs_dbus.bus.library import Variant, bus_address
from mvirt_zfs_dbus.names import (
    BUS_NAME,
    ROOT,
    Interface,
    snapshot_path,
    template_path,
    volume_path,
)

from .raw import RawClient, Reply

SIZE: Final = 64 << 20
BLOCK: Final = 16 << 10
_VOLUME: Final = re.compile(re.escape(volume_path("")).encode() + rb"[0-9a-f_]{36}")
_PATIENCE: Final = 10
"""Seconds for udev to make a device's link before it is told again: it lets a disk alone that it
cannot open, and a busy ZFS answers 512 to that."""
_TRIES: Final = 6


class Caller(Protocol):
    """Each method answers the seconds it took. A volume's id is its name; it has one snapshot."""

    def create(self, volume: str) -> float: ...
    def snapshot(self, volume: str) -> float: ...
    def resize(self, volume: str) -> float: ...
    def clone(self, volume: str, template: str) -> float: ...
    def delete(self, volume: str) -> float: ...
    def delete_snapshot(self, volume: str) -> float: ...
    def make_template(self, volume: str, template: str) -> None:
        """Make what volumes are cloned from of a volume with a snapshot."""

    def close(self) -> None: ...


class Service:
    """A client that is connected already: a call from its first byte to its reply's last."""

    def __init__(self) -> None:
        self._client = RawClient(bus_address("system"))
        self._paths: dict[str, str] = {}
        """Of volumes, whose ids the service chooses."""

    def close(self) -> None:
        self._client.close()

    def create(self, volume: str) -> float:
        call = (ROOT, Interface.MANAGER, "CreateVolume", "st", _name(volume), SIZE)
        return self._made(volume, self._call(*call))

    def snapshot(self, volume: str) -> float:
        call = (self._paths[volume], Interface.VOLUME, "CreateSnapshot", "s", "one")
        return self._call(*call, id=_snapshot(volume)).seconds

    def resize(self, volume: str) -> float:
        call = (self._paths[volume], Interface.VOLUME, "Resize", "t", SIZE * 2)
        return self._call(*call).seconds

    def clone(self, volume: str, template: str) -> float:
        call = (template_path(template), Interface.TEMPLATE, "Clone", "s", _name(volume))
        return self._made(volume, self._call(*call))

    def delete(self, volume: str) -> float:
        return self._call(self._paths.pop(volume), Interface.VOLUME, "Delete", "").seconds

    def delete_snapshot(self, volume: str) -> float:
        path = snapshot_path(_snapshot(volume))
        return self._call(path, Interface.SNAPSHOT, "Delete", "").seconds

    def make_template(self, volume: str, template: str) -> None:
        path, name = snapshot_path(_snapshot(volume)), _name(template)
        self._call(path, Interface.SNAPSHOT, "CreateTemplate", "s", name, id=template)

    def list_all(self, name: str = BUS_NAME, path: str = ROOT) -> float:
        """Of this service, or of another one by its name and its manager's path."""
        manager = "org.freedesktop.DBus.ObjectManager"
        return self._client.call("GetManagedObjects", path=path, interface=manager, to=name).seconds

    def _made(self, volume: str, reply: Reply) -> float:
        found = _VOLUME.search(reply.start)
        assert found, reply.start
        self._paths[volume] = found[0].decode()
        return reply.seconds

    def _call(
        self, path: str, interface: str, member: str, signature: str, *body: Any, **options: str
    ) -> Reply:
        chosen = {name: Variant("s", value) for name, value in options.items()}
        return self._client.call(
            member, f"{signature}a{{sv}}", *body, chosen, path=path, interface=str(interface)
        )


class Zfs:
    """zfs(8), from the process's start to its end, on datasets that are nobody's volumes."""

    def __init__(self, pool: str, *, with_device: bool) -> None:
        """``with_device``: what makes a volume ends when its device is there; ``zfs`` does not
        wait for udev, the service does."""
        self._pool = pool
        self._with_device = with_device

    def close(self) -> None:
        """There is nothing to close."""

    def create(self, volume: str) -> float:
        command = ("zfs", "create", "-s", "-b", str(BLOCK), "-V", str(SIZE), self._dataset(volume))
        return self._made(volume, *command)

    def snapshot(self, volume: str) -> float:
        return seconds_of("zfs", "snapshot", f"{self._dataset(volume)}@one")

    def resize(self, volume: str) -> float:
        return seconds_of("zfs", "set", f"volsize={SIZE * 2}", self._dataset(volume))

    def clone(self, volume: str, template: str) -> float:
        origin = f"{self._dataset(template)}@one"
        return self._made(volume, "zfs", "clone", origin, self._dataset(volume))

    def delete(self, volume: str) -> float:
        return seconds_of("zfs", "destroy", self._dataset(volume))

    def delete_snapshot(self, volume: str) -> float:
        return seconds_of("zfs", "destroy", f"{self._dataset(volume)}@one")

    def make_template(self, volume: str, template: str) -> None:
        seconds_of("zfs", "clone", f"{self._dataset(volume)}@one", self._dataset(template))
        self.snapshot(template)

    def _made(self, volume: str, *command: str) -> float:
        taken = seconds_of(*command)
        if self._with_device:
            taken += _seconds_until_there(f"/dev/zvol/{self._dataset(volume)}")
        return taken

    def _dataset(self, volume: str) -> str:
        return f"{self._pool}/bench-{volume}"


def _seconds_until_there(device: str) -> float:
    began = time.perf_counter()
    for _ in range(_TRIES):
        if not _status_of("udevadm", "wait", f"--timeout={_PATIENCE}", device):
            return time.perf_counter() - began
        _status_of("udevadm", "trigger", "--subsystem-match=block")
    raise SystemExit(f"udev makes no {device}")


def seconds_of(*command: str) -> float:
    """A command from its start to its end, with as little as can be beside it."""
    began = time.perf_counter()
    if status := _status_of(*command):
        raise SystemExit(f"{' '.join(command)}: {status}")
    return time.perf_counter() - began


def _status_of(*command: str) -> int:
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawnp(command[0], list(command), os.environ, file_actions=quiet)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _name(volume: str) -> str:
    return f"bench-{volume}"


def _snapshot(volume: str) -> str:
    return str(uuid.uuid5(uuid.UUID(volume), "one"))
