"""What the service process holds, seen from outside."""

from __future__ import annotations

import asyncio
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from service.process import ServiceProcess

_HELD = re.compile(r"held now: (\d+) tasks, (\d+) threads, (\d+) open files")
MIB = 2**20


@dataclass(frozen=True)
class Held:
    tasks: int
    threads: int
    files: int
    memory: int
    """Bytes, without what is shared with other processes."""

    def __str__(self) -> str:
        memory = f"{self.memory / MIB:.1f} MiB"
        return f"{self.tasks} tasks, {self.threads} threads, {self.files} files, {memory}"


async def held(service: ServiceProcess) -> Held:
    """Ask it, by a signal, and read what it logs."""
    assert service.process
    before = len(_HELD.findall(service.log.read_text(errors="replace")))
    service.process.send_signal(signal.SIGUSR1)
    async with asyncio.timeout(30):
        while True:
            said = _HELD.findall(service.log.read_text(errors="replace"))
            if len(said) > before:
                break
            await asyncio.sleep(0.01)
    tasks, threads, files = map(int, said[-1])
    return Held(tasks, threads, files, _memory(service.process.pid))


def _memory(pid: int) -> int:
    """proc(5), /proc/pid/status: RssAnon."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    assert found
    return int(found.group(1)) * 1024
