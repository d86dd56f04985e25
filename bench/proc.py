"""What processes and their descendants take, as proc(5) tells it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM, _DEAD_USER, _DEAD_SYSTEM = 13, 14, 15, 16
"""Fields of /proc/PID/stat, from 0 (proc(5)); the latter two are of children waited for."""


def cpu(top: int) -> tuple[float, float]:
    """User and system CPU seconds of a process and all its descendants, dead ones too."""
    user = system = 0
    for pid in processes(top):
        if fields := _stat(pid):
            user += int(fields[_USER]) + int(fields[_DEAD_USER])
            system += int(fields[_SYSTEM]) + int(fields[_DEAD_SYSTEM])
    return user / _TICK, system / _TICK


def on_cpu(pid: int) -> float:
    """CPU seconds of a process's threads that live, to the nanosecond; time spent waiting
    for a processor is not in it (Documentation/scheduler/sched-stats)."""
    return sum(int(text.split()[0]) for text in _tasks(pid, "schedstat")) / 1e9


def wakeups(top: int) -> int:
    """How often threads of a process and its descendants have gone to sleep until something
    happened."""
    texts = (text for pid in processes(top) for text in _tasks(pid, "status"))
    return sum(int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in texts)


def resident(pid: int) -> int:
    """Bytes of memory that a process has, shared ones in full."""
    return _rollup(pid, "Rss")


def resident_all(top: int) -> int:
    """Bytes that a process and its descendants have together; what they share counts once."""
    return sum(_rollup(pid, "Pss") for pid in processes(top))


def peak(pid: int) -> int:
    """Bytes of memory that a process has had at most; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


def children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def processes(top: int) -> Iterator[int]:
    """The process and all its descendants, as of now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[3]), []).append(int(entry.name))
    waiting = [top]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def _tasks(pid: int, file: str) -> Iterator[str]:
    """A file of each thread of a process, as far as they are still there."""
    for path in Path(f"/proc/{pid}/task").glob(f"*/{file}"):
        with suppress(FileNotFoundError, ProcessLookupError):
            yield path.read_text()


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat; none if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    name_end = text.rindex(")")
    return [str(pid), "", *text[name_end + 2 :].split()]


def _rollup(pid: int, name: str) -> int:
    """Bytes, of smaps_rollup; 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:")), 0)
