"""What an administrator does on a shell of this machine, for the tests to call."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

POOL = "tank"
MIB = 1 << 20
SMALL = "small"
"""The name of a pool beside it."""
UNIT = "mvirt-zfs-dbus.service"
CONFIG = Path("/etc/mvirt-zfs-dbus.toml")
IMAGES = Path("/var/lib/mvirt/images")
PATIENCE = 30.0
"""Seconds that a killed process is given to end. Its last system call may take some of them."""
WOKEN_AFTER = 5.0
"""Seconds after which it is woken (``frozen``), which does nothing to one that is awake."""


def run(*command: str | Path) -> str:
    """What a command prints; its complaint is in the AssertionError when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr or done.stdout}"
    return done.stdout.strip()


def get(name: str, dataset: str, column: str = "value") -> str:
    """What a property of a dataset is, in bytes where it is a size; or where it comes from."""
    return run("zfs", "get", "-H", "-p", "-o", column, name, dataset)


def unit(property_name: str) -> str:
    return run("systemctl", "show", "--value", "-p", property_name, UNIT)


def datasets(pool: str = POOL) -> set[str]:
    """Names below the pool, snapshots too, without the pool's own directory for what is made."""
    names = run("zfs", "list", "-H", "-o", "name", "-t", "all", "-r", pool).splitlines()
    return {name.removeprefix(f"{pool}/") for name in names} - {pool, ".tmp", ".tmp/volumes"}


def destroy(tree: str) -> None:
    """A dataset with all below it, once udev holds none of it open."""
    run("udevadm", "settle")
    run("zfs", "destroy", "-R", tree)


def empty(pool: str = POOL) -> None:
    """Destroys all that the pool holds, as `zfs destroy -R` does it.

    Again, as long as that takes something away: the service, told of the first that goes, may look
    at the device of the next.
    """
    left = datasets(pool)
    while left:
        run("udevadm", "settle")
        for name in sorted(left):
            if "/" not in name and "@" not in name:
                subprocess.run(["zfs", "destroy", "-R", f"{pool}/{name}"], check=False)
        before, left = left, datasets(pool)
        assert left < before, f"they stay: {', '.join(sorted(left))}"


@contextmanager
def serving(pool: str) -> Iterator[None]:
    """The service serves another pool, and is stopped afterwards."""
    before = CONFIG.read_text()
    CONFIG.write_text(before.replace(f'pool = "{POOL}"', f'pool = "{pool}"'))
    run("systemctl", "restart", UNIT)
    try:
        yield
    finally:
        run("systemctl", "stop", UNIT)
        CONFIG.write_text(before)


@contextmanager
def small_pool(device: str) -> Iterator[None]:
    run("zpool", "create", "-O", "mountpoint=none", SMALL, device)
    try:
        yield
    finally:
        run("udevadm", "settle")
        run("zpool", "destroy", SMALL)


def write(device: str, data: bytes, offset: int = 0) -> None:
    fd = os.open(device, os.O_WRONLY)
    try:
        os.pwrite(fd, data, offset)
        os.fsync(fd)
    finally:
        os.close(fd)


def feed(pipe: int, amount: int) -> None:
    """Writes random bytes to a pipe, until its reader is gone."""
    with suppress(BrokenPipeError):
        for _ in range(0, amount, MIB):
            data = os.urandom(MIB)
            while data:
                data = data[os.write(pipe, data) :]


@contextmanager
def fed(amount: int) -> Iterator[int]:
    """The reading end of a pipe with so many random bytes."""
    reading, writing = os.pipe()

    def fill() -> None:
        feed(writing, amount)
        os.close(writing)

    feeding = threading.Thread(target=fill, daemon=True)
    feeding.start()
    try:
        yield reading
    finally:
        os.close(reading)
        feeding.join()


def read(device: str, length: int, offset: int = 0) -> bytes:
    fd = os.open(device, os.O_RDONLY)
    try:
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)


@contextmanager
def udev_standing_still() -> Iterator[None]:
    """It hears of everything, and does nothing of it before the end."""
    run("udevadm", "control", "--stop-exec-queue")
    try:
        yield
    finally:
        run("udevadm", "control", "--start-exec-queue")


@contextmanager
def journal(unit_name: str) -> Iterator[Iterator[str]]:
    """The journal's lines of a unit from here on, as they come."""
    run("journalctl", "--sync")
    cursor = run("journalctl", "--lines=0", "--show-cursor").partition("cursor: ")[2]
    command = ["journalctl", "--follow", "--output=cat", "--unit", unit_name]
    command += ["--after-cursor", cursor]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        try:
            yield iter(following.stdout.readline, "")
        finally:
            following.terminate()


@contextmanager
def stirring() -> Iterator[None]:
    """Wakes processes of the service that were killed and are still there a second later.

    Before the service itself gives up on them (``frozen`` tells what they need it for).
    """
    over = threading.Event()

    def stir() -> None:
        before: set[int] = set()
        while not over.wait(1):
            killed = {pid for pid in processes() if is_killed(pid)}
            for pid in before & killed:
                with suppress(OSError), frozen(pid):  # or it has ended after all
                    time.sleep(0.5)  # the kernel freezes while it goes on
            before = killed

    stirrer = threading.Thread(target=stir)
    stirrer.start()
    try:
        yield
    finally:
        over.set()
        stirrer.join()


def processes() -> list[int]:
    """Those of the service; none where it does not run."""
    try:
        text = Path(f"/sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs").read_text()
    except OSError:
        return []
    return [int(pid) for pid in text.split()]


def is_killed(pid: int) -> bool:
    """Whether a thread of it has not heeded its SIGKILL yet."""
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with suppress(OSError):
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
            pending = int(fields["SigPnd"], 16) >> (signal.SIGKILL - 1) & 1
            if pending and not fields["State"].startswith(("Z", "X")):
                return True
    return False


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL, and returns when the process is gone."""
    process.kill()
    try:
        process.wait(WOKEN_AFTER)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError), frozen(process.pid), suppress(subprocess.TimeoutExpired):
            process.wait(1)  # the kernel freezes while it goes on
        process.wait(PATIENCE)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Freeze and thaw a process that was killed and is still there: either may wake it.

    Linux 6.1.0-56 with ZFS 2.1.11 under qemu 7.2, with one processor as with two, leaves a thread
    asleep now and then, in futex_wait or in a pipe_read of zfs receive: SIGKILL is pending for it,
    and its flags (read by a kprobe) are without TIF_SIGPENDING. No further signal wakes it.
    """
    group = Path("/sys/fs/cgroup/killed")
    group.mkdir(exist_ok=True)
    (group / "cgroup.procs").write_text(str(pid))
    (group / "cgroup.freeze").write_text("1")
    try:
        yield
    finally:
        (group / "cgroup.freeze").write_text("0")
