"""mvirt-zfsctl job …, and following a job to its end for the commands that start one."""

from __future__ import annotations

import asyncio
import sys
import uuid
from argparse import ArgumentParser, Namespace

from ...client import Job
from ...errors import Error, NotFound
from ...units import format_time
from .. import render
from ..asking import says_yes, somebody_is_there
from ..context import Context, Subparsers, command
from ..progress import display, progress_text


def add(parsers: Subparsers) -> None:
    list_parser = command(
        parsers, "list", list_all, "list the jobs, oldest first", "job list", "job list --running"
    )
    list_parser.add_argument("--running", action="store_true", help="only unfinished ones")

    _add_job(command(parsers, "show", show, "show everything about a job", "job show debian-12"))
    _add_job(
        command(
            parsers,
            "watch",
            watch,
            "follow a job to its end; Ctrl-C leaves it running",
            "job watch debian-12",
        )
    )
    _add_job(
        command(
            parsers,
            "cancel",
            cancel,
            "stop a job and remove what it has made",
            "job cancel debian-12",
            changes=True,
        )
    )
    _add_job(
        command(
            parsers, "remove", remove, "forget a finished job", "job remove debian-12", changes=True
        )
    )


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


async def to_its_end(context: Context, job: Job, *, cancel_unasked: bool = False) -> None:
    """Follow a job that this command has started; Ctrl-C asks what is to become of it.

    Where nobody can be asked, who started the job wants it gone.
    """
    try:
        await follow(context, job)
    except asyncio.CancelledError:
        if cancel_unasked or not somebody_is_there() or says_yes(f"Cancel {_what(job)}?"):
            await _cancel(job)
        else:
            _tell(f"{_what(job)} goes on: mvirt-zfsctl job watch {job.name}")
        raise


async def _cancel(job: Job) -> None:
    try:
        await job.cancel()
        _tell(f"{_what(job)} is cancelled")
    except Error as error:
        _tell(f"not cancelled: {error.message}")


def _what(job: Job) -> str:
    return f"the {job.operation} of {job.name}"


def _tell(text: str) -> None:
    print(f"mvirt-zfsctl: {render.one_line(text)}", file=sys.stderr)


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
    context.output.table(jobs, columns, rows)


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


async def remove(context: Context, arguments: Namespace) -> None:
    job = await find(context, arguments.job)
    await job.remove()
    context.output.object(job, f"removed the job {job.id}")
