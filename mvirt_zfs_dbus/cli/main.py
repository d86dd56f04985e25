"""The command line of mvirt-zfsctl."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..client import Client
from ..errors import Error
from . import exits
from .commands import import_image, job, pool, snapshot, template, volume
from .context import Context, Subparsers, add_global_options
from .render import Output

_GROUPS = {
    "volume": (volume, "volumes: create, list, show, resize, rename, delete"),
    "snapshot": (snapshot, "snapshots: create, list, rollback, delete"),
    "template": (template, "templates: create, list, clone, delete"),
    "job": (job, "jobs: list, show, watch, cancel"),
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="mvirt-zfsctl",
        description="Disks of virtual machines on ZFS: volumes, snapshots, templates, imports.",
        epilog=exits.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_global_options(top)
    top.add_argument("--version", action="version", version=f"mvirt-zfsctl {__version__}")
    groups: Subparsers = top.add_subparsers(metavar="COMMAND", required=True)
    for name, (module, help) in _GROUPS.items():
        group = groups.add_parser(name, help=help, description=help)
        module.add(group.add_subparsers(metavar="COMMAND", required=True))
    import_image.add(groups)
    pool.add(groups)
    return top


async def run(arguments: argparse.Namespace) -> None:
    bus = arguments.bus or os.environ.get("MVIRT_ZFS_BUS") or "system"
    async with Client.connect(bus) as client:
        await arguments.run(Context(client, Output(as_json=arguments.json)), arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status is in ``--help``."""
    arguments = parser().parse_args(argv)
    try:
        asyncio.run(run(arguments))
    except Error as error:
        print(exits.error_line(error), file=sys.stderr)
        return exits.exit_code(error)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough: mvirt-zfsctl … | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exits.SUCCESS


if __name__ == "__main__":
    sys.exit(main())
