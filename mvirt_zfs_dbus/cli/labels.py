"""``volume label`` and ``template label``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..client import Template, Volume
from ..errors import NotFound
from .context import Context, label
from .render import one_line


def add_label_changes(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        dest="labels",
        action="append",
        default=[],
        type=label,
        metavar="KEY=VALUE",
        help="set a label; may be given again",
    )
    parser.add_argument(
        "--remove",
        action="append",
        default=[],
        metavar="KEY",
        help="remove a label; may be given again",
    )


async def change_labels(context: Context, disk: Volume | Template, arguments: Namespace) -> None:
    """Set and remove what the command says, and show what there is then."""
    labels = dict(disk.labels)
    for key in arguments.remove:
        if key not in labels:
            had = ", ".join(sorted(labels)) or "none"
            raise NotFound(f"{disk.name} has no label {key!r}; it has: {had}")
        del labels[key]
    labels.update(arguments.labels)
    if labels != disk.labels:
        await disk.set_labels(labels)
        await disk.refresh()
    shown = "\n".join(one_line(f"{key}={value}") for key, value in sorted(disk.labels.items()))
    context.output.object(disk, shown or f"{disk.name} has no labels")
