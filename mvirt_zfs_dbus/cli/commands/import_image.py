"""mvirt-zfsctl import"""

from __future__ import annotations

import asyncio
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...client import Job
from ...errors import Error, InvalidArgs, NotFound
from ...units import format_size
from ..context import Context, Subparsers, add_labels, add_size, chosen_labels, command
from .job import follow

_STDIN: Final = "-"


def add(parsers: Subparsers) -> None:
    parser = command(parsers, "import", run, "make a volume or a template of a disk image")
    parser.add_argument("name", help="of the new volume or template")
    parser.add_argument(
        "source",
        help="a file, an http:// or https:// URL, or - for standard input; a file you may read"
        " is opened by you, any other by the service, if it lets you",
    )
    parser.add_argument("--template", action="store_true", help="make a template")
    parser.add_argument("--format", help="auto, raw or qcow2 (default: auto, its content decides)")
    parser.add_argument(
        "--checksum", metavar="sha256:HEX", help="of the source's bytes; sha512: as well"
    )
    add_size(parser, "--size", "larger than the image")
    add_labels(parser)
    waiting = parser.add_mutually_exclusive_group()
    waiting.add_argument(
        "--wait",
        dest="wait",
        action="store_true",
        default=True,
        help="show the progress to its end; Ctrl-C cancels the import (default)",
    )
    waiting.add_argument(
        "--no-wait", dest="wait", action="store_false", help="start it and print the job's UUID"
    )


async def run(context: Context, arguments: Namespace) -> None:
    with opened(arguments.source) as source:
        job = await context.client.manager.import_image(
            arguments.name,
            source,
            template=arguments.template,
            format=arguments.format,
            checksum=arguments.checksum,
            size=arguments.size,
            labels=chosen_labels(arguments),
        )
    if not arguments.wait:
        context.output.object(job, job.id)
        return
    await _to_its_end(context, job)
    manager = context.client.manager
    made = await (manager.template if arguments.template else manager.volume)(arguments.name)
    kind = "template" if arguments.template else "volume"
    done = f"imported {kind} {made.name} of {format_size(made.size_bytes)}, id {made.id}"
    context.output.object(made, done)


async def _to_its_end(context: Context, job: Job) -> None:
    try:
        await follow(context, job)
    except asyncio.CancelledError:  # Ctrl-C: who started the import wants it gone
        try:
            await job.cancel()
            print("mvirt-zfsctl: the import is cancelled", file=sys.stderr)
        except Error as error:
            print(f"mvirt-zfsctl: not cancelled: {error.message}", file=sys.stderr)
        raise


@contextmanager
def opened(source: str) -> Iterator[str | int]:
    """The source as the service is given it: a URL, an open file, or a path.

    A file is opened here where that is allowed, so that the service, which is root, need not be
    trusted with the decision what this user may read.
    """
    if source == _STDIN:
        yield sys.stdin.fileno()
        return
    if source.startswith(("http://", "https://")):
        yield source
        return
    path = Path(source).absolute()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        yield str(path)
        return
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:
        raise InvalidArgs(f"{path} cannot be opened: {error.strerror}") from error
    try:
        yield fd
    finally:
        os.close(fd)
