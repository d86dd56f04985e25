"""mvirt-zfsctl monitor"""

from __future__ import annotations

import json
import time
from argparse import Namespace

from ...client import Event, Inventory, Job, RemoteObject, Snapshot
from ...units import format_size, format_time
from .. import render
from ..context import Context, Subparsers, command
from ..progress import progress_text


def add(parsers: Subparsers) -> None:
    command(
        parsers,
        "monitor",
        run,
        "show what comes, changes and goes, until Ctrl-C",
        "monitor",
        "monitor --json",
    )


async def run(context: Context, _: Namespace) -> None:
    async with context.client.watch() as watch:
        context.output.text("watching; Ctrl-C ends it")
        async for event in watch:
            if context.output.as_json or _is_news(event):
                context.output.answer(_plain(event), _line(event, watch.inventory))


def _plain(event: Event) -> dict[str, object]:
    return {
        "Time": int(time.time() * 1e6),
        "Event": str(event.happened),
        "Kind": _kind(event.object),
        "Changed": dict(event.changed),
        "Object": render.plain(event.object),
    }


def _is_news(event: Event) -> bool:
    """People are told a job's phases; its progress is what ``job watch`` shows."""
    is_progress = isinstance(event.object, Job) and event.changed
    return not is_progress or bool({"State", "Phase"} & set(event.changed))


def _line(event: Event, inventory: Inventory) -> str:
    words = [
        f"{time.strftime('%H:%M:%S')}  {event.happened:<8} {_kind(event.object):<9}",
        _name(event.object, inventory),
    ]
    if isinstance(event.object, Job):
        words.append(_job_text(event.object))
    words += [f"{name}={_shown(name, value, inventory)}" for name, value in _news(event)]
    return render.one_line("  ".join(words))


def _name(found: RemoteObject, inventory: Inventory) -> str:
    if isinstance(found, Snapshot):
        return f"{inventory.name_of(found.volume_path)}@{found.name}"
    return str(found["Name"])


def _job_text(job: Job) -> str:
    step = job.state if job.state.finished else job.phase or job.state
    parts = (step, progress_text(job.progress), job.error_message)
    return "  ".join(part for part in parts if part)


def _news(event: Event) -> list[tuple[str, object]]:
    return [] if isinstance(event.object, Job) else sorted(event.changed.items())


def _shown(name: str, value: object, inventory: Inventory) -> str:
    """A property's value as people read it: sizes and times with units, objects by their names."""
    if isinstance(value, int) and name.endswith("Bytes"):
        return format_size(value)
    if isinstance(value, int) and name.endswith("At"):
        return format_time(value)
    if isinstance(value, str) and value in inventory.by_path:
        return inventory.name_of(value)
    if isinstance(value, list):
        return ",".join(inventory.name_of(path) for path in value) or "-"
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value)


def _kind(found: RemoteObject) -> str:
    """``volume`` of ``org.mvirt.Zfs1.Volume``."""
    return found.interface.rpartition(".")[2].lower()
