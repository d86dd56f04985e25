"""mvirt-zfsctl job …, and following a job to its end for the commands that start one."""

from __future__ import annotations

import uuid
from argparse import ArgumentParser, Namespace

from ...client import Job
from ...errors import NotFound
from ...units import format_time
from .. import render
from ..context import Context, Subparsers, command
from ..progress import display, progress_text


def add(parsers: Subparsers) -> None:
    list_parser = command(parsers, "list", list_all, "list the jobs, oldest first")
    list_parser.add_argument("--running", action="store_true", help="only unfinished ones")

    _add_job(command(parsers, "show", show, "show everything about a job"))
    _add_job(command(parsers, "watch", watch, "follow a job to its end; Ctrl-C leaves it running"))
    _add_job(command(parsers, "cancel", cancel, "stop a job and remove what it has made"))


def _add_job(parser: ArgumentParser) -> None:
    parser.add_argument("job", help="UUID, or the name of what it makes (the latest such job)")


async def find(context: Context, wanted: str) -> Job:
    try:
        return await context.client.manager.job(str(uuid.UUID(wanted)))
    except ValueError:
        jobs = [job for job in await context.client.jobs() if job.name == wanted]
    if not jobs:
        raise NotFound(f"no job makes {wanted!r}") from None
    return jobs[-1]


async def follow(context: Context, job: Job) -> None:
    """Show a job's progress until it is done; raise what it failed with."""
    with display(as_json=context.output.as_json) as shown:
        async for progress in job:
            shown.show(progress)
    job.raise_failure()


async def list_all(context: Context, arguments: Namespace) -> None:
    jobs = await context.client.jobs()
    if arguments.running:
        jobs = [job for job in jobs if not job.state.finished]
    columns = ("Name", "Operation", "State", "Progress", "Started", "Id")
    rows = [
        (
            job.name,
            job.operation,
            job.state,
            progress_text(job.progress),
            format_time(job.started_at),
            job.id,
        )
        for job in jobs
    ]
    context.output.objects(jobs, render.table(columns, rows))


async def show(context: Context, arguments: Namespace) -> None:
    job = await find(context, arguments.job)
    context.output.object(job, _description(job))


def _description(job: Job) -> str:
    return render.fields(
        {
            "Name": job.name,
            "Id": job.id,
            "Operation": job.operation,
            "Source": job.source,
            "State": job.state,
            "Phase": job.phase,
            "Progress": progress_text(job.progress),
            "Error": job.error_message,
            "Error name": job.error_name,
            "Started by": f"uid {job.started_by_uid}",
            "Started": format_time(job.started_at),
            "Finished": format_time(job.finished_at),
        }
    )


async def watch(context: Context, arguments: Namespace) -> None:
    job = await find(context, arguments.job)
    await follow(context, job)
    context.output.object(job, f"{job.operation} of {job.name}: {job.state}")


async def cancel(context: Context, arguments: Namespace) -> None:
    job = await find(context, arguments.job)
    await job.cancel()
    await job.refresh()
    context.output.object(job, f"{job.operation} of {job.name}: {job.state}")
