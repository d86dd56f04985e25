"""The command line of mvirt-zfsctl."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from .. import __version__
from ..client import Client
from ..errors import Error
from . import completion, exits
from .agent import password_agent
from .commands import import_image, job, monitor, pool, snapshot, template, volume
from .context import Context, Subparsers, add_global_options, group
from .render import Output

_GROUPS = {
    "volume": (volume, "volumes: create, list, show, resize, rename, label, delete, users"),
    "snapshot": (snapshot, "snapshots: create, list, rollback, delete"),
    "template": (template, "templates: create, copy, list, show, clone, rename, label, delete"),
    "job": (job, "jobs: list, show, watch, cancel, remove"),
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="mvirt-zfsctl",
        description="Disks of virtual machines on ZFS: volumes, snapshots, templates, imports.",
        epilog=exits.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_global_options(top)
    top.add_argument("--version", action="version", version=f"mvirt-zfsctl {__version__}")
    groups: Subparsers = top.add_subparsers(metavar="COMMAND", required=True)
    for name, (module, help) in _GROUPS.items():
        module.add(group(groups, name, help))
    import_image.add(groups)
    monitor.add(groups)
    pool.add(groups)
    completion.add(groups)
    return top


async def run(arguments: argparse.Namespace) -> None:
    interactive = not arguments.no_ask_password
    async with Client.connect(
        chosen_bus(arguments), host=arguments.host, interactive=interactive
    ) as client:
        context = Context(client, Output(as_json=arguments.json), arguments.host)
        await arguments.run(context, arguments)


def chosen_bus(arguments: argparse.Namespace) -> str:
    return arguments.bus or os.environ.get("MVIRT_ZFS_BUS") or "system"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status is in ``--help``."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == [completion.COMPLETE]:
        return completion.main(parser(), words[1:])
    arguments = parser().parse_args(words)
    if "shell" in arguments:
        print(completion.script(arguments.shell), end="")
        return exits.SUCCESS
    try:
        with password_agent() if _may_be_asked(arguments) else nullcontext():
            asyncio.run(run(arguments))
    except Error as error:
        _tell(error, arguments)
        return exits.exit_code(error)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough: mvirt-zfsctl … | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exits.SUCCESS


def _may_be_asked(arguments: argparse.Namespace) -> bool:
    """Whether polkit may have a question that this terminal can answer."""
    here = not arguments.host and chosen_bus(arguments) == "system"
    return arguments.changes and here and not arguments.no_ask_password


def _tell(error: Error, arguments: argparse.Namespace) -> None:
    print(exits.error_line(error), file=sys.stderr)
    if hint := exits.hint_line(error, arguments):
        print(hint, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
