"""mvirt-zfsctl import"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...errors import InvalidArgs, NotFound
from ...rules import IMAGE_FORMATS
from ...units import format_size
from ..context import (
    Context,
    Subparsers,
    add_id,
    add_labels,
    add_size,
    add_wait,
    chosen_labels,
    command,
)
from .job import to_its_end

_STDIN: Final = "-"


def add(parsers: Subparsers) -> None:
    parser = command(
        parsers,
        "import",
        run,
        "make a volume or a template of a disk image",
        "import web-1 ./web.qcow2",
        "import debian-12 https://cloud.debian.org/…/debian-12-generic-amd64.qcow2 --template",
        "import web-1 - <web.raw",
        "import web-1 web.raw.zst --checksum sha256:$(sha256sum web.raw.zst | cut -c1-64)",
        changes=True,
    )
    parser.add_argument("name", help="of the new volume or template")
    parser.add_argument(
        "source",
        help="a file, an http:// or https:// URL, or - for standard input; a file you may read"
        " is opened by you, any other by the service, if it lets you",
    )
    parser.add_argument("--template", action="store_true", help="make a template")
    parser.add_argument(
        "--format",
        help=f"{', '.join(IMAGE_FORMATS)} (default: auto, its content decides)",
    )
    parser.add_argument(
        "--checksum", metavar="sha256:HEX", help="of the source's bytes; sha512: as well"
    )
    add_size(parser, "--size", "larger than the image")
    parser.add_argument("--block-size", type=int, metavar="BYTES", help="default: 16384")
    parser.add_argument("--thick", action="store_true", help="reserve its whole size in the pool")
    add_labels(parser)
    add_id(parser)
    add_wait(parser)


async def run(context: Context, arguments: Namespace) -> None:
    with opened(arguments.source, arguments.name, context.host) as source:
        job = await context.client.manager.import_image(
            arguments.name,
            source,
            template=arguments.template,
            id=arguments.id,
            format=arguments.format,
            checksum=arguments.checksum,
            size=arguments.size,
            block_size=arguments.block_size,
            thin=False if arguments.thick else None,
            labels=chosen_labels(arguments),
        )
    if not arguments.wait:
        context.output.object(job, job.id)
        return
    # What fills standard input has ended of the same Ctrl-C, so there is nothing to go on with.
    await to_its_end(context, job, cancel_unasked=arguments.source == _STDIN)
    manager = context.client.manager
    made = await (manager.template if arguments.template else manager.volume)(arguments.name)
    kind = "template" if arguments.template else "volume"
    done = f"imported {kind} {made.name} of {format_size(made.size_bytes)}, id {made.id}"
    context.output.object(made, done)


@contextmanager
def opened(source: str, name: str, host: str | None = None) -> Iterator[str | int]:
    """The source as the service is given it: a URL, an open file, or a path.

    A file is opened here where that is allowed, so that the service, which is root, need not be
    trusted with the decision what this user may read. Nothing open goes to another ``host``: an
    absolute path is one over there.
    """
    if source.startswith(("http://", "https://")):
        yield source
    elif host:
        yield _path_over_there(source, name, host)
    elif source == _STDIN:
        yield sys.stdin.fileno()
    else:
        with _opened_here(Path(source).absolute()) as found:
            yield found


def _path_over_there(source: str, name: str, host: str) -> str:
    if source.startswith("/"):
        return source
    given = "" if source == _STDIN else f" <{source}"
    raise InvalidArgs(
        f"an open file cannot be passed to {host}: name a path that exists there, or a URL, or let"
        f" the client over there read it: ssh {host} mvirt-zfsctl import {name} -{given}"
    )


@contextmanager
def _opened_here(path: Path) -> Iterator[str | int]:
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
