"""Operations and listings over D-Bus against zfs(8) on the same pool.

Run as root where ZFS and the service are: ``python3 -m bench.operations POOL``; ``make
bench-machine`` does so in the test machine, and makes tables of what this writes. The pool's
datasets are destroyed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.base import NewDataset
from mvirt_zfs_dbus.store.openzfs import properties

from . import proc
from .callers import BLOCK, SIZE, Caller, Service, Zfs, seconds_of

OURS, THEIRS, WITH_DEVICE = "D-Bus", "zfs", "zfs, then its device"
UDISKS: Final = "UDisks2"
AT_ONCE: Final = 10
_UNIT: Final = "mvirt-zfs-dbus.service"
_UDISKS_NAME, _UDISKS_ROOT = "org.freedesktop.UDisks2", "/org/freedesktop/UDisks2"
_PREPARED: Final = ("volmode=dev",)
"""What docs/administrator.md has a root dataset made with."""
_LISTINGS: Final = 5
_LOOKS: Final = 5
_MAKERS: Final = 8
"""Threads that make volumes; each waits for its transaction group."""

Times = dict[str, dict[str, list[float]]]
"""Operation → who did it → seconds of each round."""
Work = Callable[[Caller, str], float]
"""One operation by a caller on the volume of an id."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pool")
    parser.add_argument("--rounds", type=int, default=50, help="%(default)s")
    parser.add_argument("--volumes", type=int, default=1000, help="to be listed; %(default)s")
    parser.add_argument("--mask", metavar="RULES", help="udev does without them: 69-vdev.rules")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go too")
    given = parser.parse_args()
    subprocess.run(["zfs", "set", *_PREPARED, given.pool], check=True)
    if given.mask:
        _mask(given.mask)
    contest = Contest(given.pool)
    found: dict[str, Any] = {
        "zfs": Path("/sys/module/zfs/version").read_text().strip(),
        "kernel": os.uname().release,
        "processors": os.cpu_count(),
        "masked": given.mask or "",
        "one": _told(contest.run(given.rounds, 1)),
        "ten": _told(contest.run(max(given.rounds // AT_ONCE, 1), AT_ONCE)),
    }
    subprocess.run(["systemctl", "stop", _UNIT], check=True)
    _empty(given.pool)
    _fill(given.pool, given.volumes)
    found["start"] = _told(_start())
    found["udisks"] = _told(_start_udisks())
    found["listing"] = _told(_listing(given.pool, given.volumes))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(found))


def _told(found: Any) -> Any:
    print(json.dumps(found), flush=True)
    return found


class Contest:
    """Ours and theirs in turns on one pool; another one begins each round."""

    def __init__(self, pool: str) -> None:
        self._make: Mapping[str, Callable[[], Caller]] = {
            OURS: Service,
            THEIRS: partial(Zfs, pool, with_device=False),
            WITH_DEVICE: partial(Zfs, pool, with_device=True),
        }
        self._template = {who: self._new_template(make()) for who, make in self._make.items()}

    def run(self, rounds: int, at_once: int) -> Times:
        """Seconds until the last of so many that began together was done."""
        callers = {who: [make() for _ in range(at_once)] for who, make in self._make.items()}
        found: Times = {}
        with ThreadPoolExecutor(at_once) as threads:
            for number in range(rounds):
                for who in _turned(list(callers), number):
                    turn = _Turn(threads, callers[who], self._template[who])
                    for operation, seconds in turn.run().items():
                        found.setdefault(operation, {}).setdefault(who, []).append(seconds)
        for caller in (each for together in callers.values() for each in together):
            caller.close()
        return found

    def _new_template(self, caller: Caller) -> str:
        volume, template = str(uuid.uuid4()), str(uuid.uuid4())
        caller.create(volume)
        caller.snapshot(volume)
        caller.make_template(volume, template)
        caller.close()
        return template


class _Turn:
    """Each caller makes a volume, and all that can be done with it, in step with the others."""

    def __init__(self, threads: ThreadPoolExecutor, callers: list[Caller], template: str) -> None:
        self._threads = threads
        self._callers = callers
        self._template = template

    def run(self) -> dict[str, float]:
        volumes = [str(uuid.uuid4()) for _ in self._callers]
        clones = [str(uuid.uuid4()) for _ in self._callers]
        found = {
            "create": self._together(lambda caller, volume: caller.create(volume), volumes),
            "snapshot": self._together(lambda caller, volume: caller.snapshot(volume), volumes),
            "resize": self._together(lambda caller, volume: caller.resize(volume), volumes),
            "clone": self._together(
                lambda caller, volume: caller.clone(volume, self._template), clones
            ),
            "delete snapshot": self._together(
                lambda caller, volume: caller.delete_snapshot(volume), volumes
            ),
            "delete": self._together(lambda caller, volume: caller.delete(volume), volumes),
        }
        self._together(lambda caller, volume: caller.delete(volume), clones)
        return found

    def _together(self, work: Work, volumes: list[str]) -> float:
        """udev has to be done before: it looks at new devices, and what it looks at is busy."""
        subprocess.run(["udevadm", "settle"], check=True)
        if len(volumes) == 1:
            return work(self._callers[0], volumes[0])
        began = time.perf_counter()
        list(self._threads.map(work, self._callers, volumes))
        return time.perf_counter() - began


def _mask(rules: str) -> None:
    """Until the machine is started again, as an administrator does it in /etc (udev(7))."""
    if not Path("/lib/udev/rules.d", rules).exists():
        raise SystemExit(f"udev has no {rules} to be masked")
    mask = Path("/run/udev/rules.d", rules)
    mask.parent.mkdir(exist_ok=True)
    mask.unlink(missing_ok=True)
    mask.symlink_to(os.devnull)
    subprocess.run(["udevadm", "control", "--reload"], check=True)


def _empty(pool: str) -> None:
    """Destroy what was made so far: the pool shall hold what is listed alone."""
    subprocess.run(["udevadm", "settle"], check=True)
    for kind in ("volume", "filesystem"):
        command = ["zfs", "list", "-H", "-o", "name", "-t", kind, "-r", "-d", "1", pool]
        listed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        for name in listed.stdout.split():
            if name != pool and not name.endswith("/.tmp"):
                subprocess.run(
                    ["zfs", "destroy", "-R", name], stderr=subprocess.DEVNULL, check=False
                )


def _fill(pool: str, volumes: int) -> None:
    """So many volumes of two snapshots each, as the service makes them, without it: over the bus
    each of them would wait for polkit and udev."""
    import libzfs_core

    made = [NewDataset(str(uuid.uuid4()), f"bench-{n}", SIZE, BLOCK) for n in range(volumes)]

    def make(new: NewDataset) -> None:
        name = f"{pool}/{new.id}".encode()
        libzfs_core.lzc_create(name, "zvol", properties.of_dataset(Kind.VOLUME, new))

    with ThreadPoolExecutor(_MAKERS) as threads:
        list(threads.map(make, made))
    for name in ("one", "two"):
        taken = [f"{pool}/{new.id}@{uuid.uuid4()}".encode() for new in made]
        libzfs_core.lzc_snapshot(taken, properties.of_snapshot(name, 1))
    subprocess.run(["udevadm", "settle", "--timeout=600"], check=True)
    # A busy kernel has udev come back later, who does not: the service would wait for that disk.
    for _ in range(_LOOKS):
        if all(Path(f"/dev/zvol/{pool}/{new.id}").exists() for new in made):
            return
        subprocess.run(["udevadm", "trigger", "--subsystem-match=block"], check=True)
        subprocess.run(["udevadm", "settle", "--timeout=600"], check=True)
    raise SystemExit("udev has not linked all disks")


def _listing(pool: str, volumes: int) -> dict[str, Any]:
    """All that is in the pool, over D-Bus and by ``zfs list``, in turns with UDisks2's disks."""
    service = Service()
    found: dict[str, list[float]] = {OURS: [], THEIRS: [], UDISKS: []}
    for _ in range(_LISTINGS):
        found[OURS].append(service.list_all())
        found[UDISKS].append(service.list_all(_UDISKS_NAME, _UDISKS_ROOT))
        found[THEIRS].append(seconds_of("zfs", "list", "-t", "all", "-r", pool))
    service.close()
    return {"volumes": volumes, "snapshots": 2 * volumes, "seconds": found}


def _start() -> dict[str, float]:
    """The service started with all that there is, until systemd has it running."""
    taken = seconds_of("systemctl", "start", _UNIT)
    command = ["systemctl", "show", "--value", "--property=MainPID", _UNIT]
    shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    pid = int(shown.stdout)
    return {"seconds": taken, "cpu": proc.on_cpu(pid), "memory": proc.resident(pid)}


def _start_udisks() -> dict[str, int]:
    """UDisks2 with the disks of all volumes."""
    subprocess.run(["systemctl", "start", "udisks2.service"], check=True)
    command = ["busctl", "tree", "--list", _UDISKS_NAME]
    listed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"disks": sum("/block_devices/zd" in line for line in listed.stdout.split())}


def _turned(names: list[str], by: int) -> list[str]:
    first = by % len(names)
    return [*names[first:], *names[:first]]


if __name__ == "__main__":
    main()
