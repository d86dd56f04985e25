"""What the service holds that would grow if it leaked, seen from outside."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .process import ServiceProcess

_HELD = re.compile(rb"held now: (\d+) tasks, (\d+) threads, (\d+) open files")
MIB = 2**20


@dataclass(frozen=True)
class Held:
    tasks: int
    threads: int
    files: int
    memory: int
    """Bytes, without what is shared with other processes."""
    fork_server_files: int
    fork_server_memory: int

    def __str__(self) -> str:
        return (
            f"{self.tasks} tasks, {self.threads} threads, {self.files} files,"
            f" {self.memory / MIB:.1f} MiB; fork server: {self.fork_server_files} files,"
            f" {self.fork_server_memory / MIB:.1f} MiB"
        )


async def held(service: ServiceProcess) -> Held:
    """Ask it, by a signal, and read what it logs."""
    assert service.process
    with service.log.open("rb") as log:
        log.seek(0, os.SEEK_END)
        service.process.send_signal(signal.SIGUSR1)
        said = b""
        async with asyncio.timeout(30):
            while not (found := _HELD.search(said)):
                await asyncio.sleep(0.01)
                said += log.read()
    tasks, threads, files = map(int, found.groups())
    (fork_server,) = children(service.process.pid)
    return Held(
        tasks,
        threads,
        files,
        _memory(service.process.pid),
        len(list(Path(f"/proc/{fork_server}/fd").iterdir())),
        _memory(fork_server),
    )


def _memory(pid: int) -> int:
    """proc(5), /proc/pid/status: RssAnon."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    assert found
    return int(found.group(1)) * 1024


def children(pid: int) -> list[int]:
    """proc(5), /proc/pid/task/tid/children."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends meanwhile
                found += (task / "children").read_text().split()
    return [int(child) for child in found]


def descendants(pid: int) -> list[int]:
    """A process's children and theirs."""
    return [found for child in children(pid) for found in (child, *descendants(child))]


async def gone(pid: int) -> None:
    """Return when a process that is not our child has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, ended.set)
    await ended.wait()
    loop.remove_reader(fd)
    os.close(fd)


async def no_worker(service: ServiceProcess) -> None:
    """Return when the fork server has no child left."""
    assert service.process
    for fork_server in children(service.process.pid):
        for worker in descendants(fork_server):
            await gone(worker)
