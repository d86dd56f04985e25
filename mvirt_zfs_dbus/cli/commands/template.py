"""mvirt-zfsctl template …"""

from __future__ import annotations

from argparse import Namespace

from ...units import format_size
from .. import render
from ..context import (
    Context,
    Subparsers,
    add_labels,
    add_size,
    add_yes,
    chosen_labels,
    command,
    confirm,
)
from . import job, snapshot


def add(parsers: Subparsers) -> None:
    create_parser = command(parsers, "create", create, "make a template of a snapshot")
    create_parser.add_argument("name")
    create_parser.add_argument("volume", help="name or UUID")
    create_parser.add_argument("snapshot", help="name or UUID")
    create_parser.add_argument(
        "--copy", action="store_true", help="a full copy, which does not need the snapshot"
    )

    command(parsers, "list", list_all, "list the templates")

    clone_parser = command(parsers, "clone", clone, "make a volume of a template, at once")
    clone_parser.add_argument("template", help="name or UUID")
    clone_parser.add_argument("name")
    add_size(clone_parser, "--size", "larger than the template's")
    add_labels(clone_parser)

    delete_parser = command(parsers, "delete", delete, "destroy a template")
    delete_parser.add_argument("template", help="name or UUID")
    delete_parser.add_argument(
        "--defer", action="store_true", help="where it has clones, go with the last of them"
    )
    add_yes(delete_parser)


async def create(context: Context, arguments: Namespace) -> None:
    volume, source = await snapshot.find(context, arguments)
    if arguments.copy:
        await job.follow(context, await source.copy_to_template(arguments.name))
        template = await context.client.manager.template(arguments.name)
    else:
        template = await source.create_template(arguments.name)
    made = f"created template {template.name} of {volume.name} as it was at {source.name}"
    context.output.object(template, made)


async def list_all(context: Context, _: Namespace) -> None:
    templates = (await context.client.inventory()).templates
    columns = ("Name", "size", "used", "clones", "Id")
    rows = [
        (
            template.name,
            format_size(template.size_bytes),
            format_size(template.used_bytes),
            str(template.clone_count),
            template.id,
        )
        for template in templates
    ]
    context.output.objects(templates, render.table(columns, rows))


async def clone(context: Context, arguments: Namespace) -> None:
    template = await context.client.manager.template(arguments.template)
    volume = await template.clone(
        arguments.name, size=arguments.size, labels=chosen_labels(arguments)
    )
    made = f"cloned {template.name} to volume {volume.name}: {volume.device}"
    context.output.object(volume, made)


async def delete(context: Context, arguments: Namespace) -> None:
    template = await context.client.manager.template(arguments.template)
    confirm(f"Destroy template {template.name}?", arguments)
    await template.delete(defer=arguments.defer)
    context.output.text(f"deleted template {template.name}")
