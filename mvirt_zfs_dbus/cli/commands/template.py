"""mvirt-zfsctl template …"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ...client import Inventory, Template
from ...units import format_size, format_time
from .. import render
from ..asking import confirm
from ..context import (
    Context,
    Subparsers,
    add_defer,
    add_id,
    add_labels,
    add_size,
    add_wait,
    add_yes,
    chosen_labels,
    command,
)
from ..labels import add_label_changes, change_labels
from . import job, snapshot


def add(parsers: Subparsers) -> None:
    _add_makers(parsers)
    command(parsers, "list", list_all, "list the templates", "template list")
    _add_template(
        command(
            parsers, "show", show, "show everything about a template", "template show debian-12"
        )
    )
    _add_clone(parsers)

    rename_parser = command(
        parsers,
        "rename",
        rename,
        "give a template another name",
        "template rename debian-12 debian-12.8",
        changes=True,
    )
    _add_template(rename_parser)
    rename_parser.add_argument("new_name", metavar="NEW-NAME")

    label_parser = command(
        parsers,
        "label",
        label,
        "set and remove labels of a template, or show them",
        "template label debian-12 --set os=debian",
        changes=True,
    )
    _add_template(label_parser)
    add_label_changes(label_parser)

    delete_parser = command(
        parsers,
        "delete",
        delete,
        "destroy a template",
        "template delete debian-12",
        "template delete debian-12 --defer --yes",
        changes=True,
    )
    _add_template(delete_parser)
    add_defer(delete_parser)
    add_yes(delete_parser)


def _add_template(parser: ArgumentParser) -> None:
    parser.add_argument("template", help="name or UUID")


def _add_makers(parsers: Subparsers) -> None:
    create_parser = command(
        parsers,
        "create",
        create,
        "make a template of a snapshot, at once; it needs the snapshot as long as it exists",
        "template create golden web-1 fresh",
        changes=True,
    )
    copy_parser = command(
        parsers,
        "copy",
        copy,
        "make a template that is a full copy of a snapshot and does not need it",
        "template copy golden web-1 fresh",
        changes=True,
    )
    for parser in (create_parser, copy_parser):
        parser.add_argument("name", help="of the new template")
        snapshot.add_snapshot(parser)
    add_wait(copy_parser)


def _add_clone(parsers: Subparsers) -> None:
    parser = command(
        parsers,
        "clone",
        clone,
        "make a volume of a template, at once",
        "template clone debian-12 web-1",
        "template clone debian-12 web-1 --size 20G --label vm=web",
        changes=True,
    )
    _add_template(parser)
    parser.add_argument("name", help="of the new volume")
    add_size(parser, "--size", "larger than the template's")
    add_labels(parser)
    add_id(parser)


async def create(context: Context, arguments: Namespace) -> None:
    volume, source = await snapshot.find(context, arguments)
    template = await source.create_template(arguments.name)
    made = f"created template {template.name} of {volume.name} as it was at {source.name}"
    context.output.object(template, made)


async def copy(context: Context, arguments: Namespace) -> None:
    volume, source = await snapshot.find(context, arguments)
    copying = await source.copy_to_template(arguments.name)
    if not arguments.wait:
        context.output.object(copying, copying.id)
        return
    await job.to_its_end(context, copying)
    template = await context.client.manager.template(arguments.name)
    made = f"copied {volume.name} as it was at {source.name} to template {template.name}"
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
    context.output.table(templates, columns, rows)


async def show(context: Context, arguments: Namespace) -> None:
    template = await context.client.manager.template(arguments.template)
    inventory = await context.client.inventory()  # for the names of what its properties name
    context.output.object(template, _description(template, inventory))


def _description(template: Template, inventory: Inventory) -> str:
    return render.fields(
        {
            "Name": template.name,
            "Id": template.id,
            "Size": f"{format_size(template.size_bytes)} ({template.size_bytes} bytes)",
            "Used": format_size(template.used_bytes),
            "Referenced": format_size(template.referenced_bytes),
            "Snapshot": template.snapshot,
            "Clones": ", ".join(inventory.name_of(each) for each in template.clone_paths),
            "Made of": inventory.name_of(template.source_volume_path),
            "Labels": render.labels(template.labels),
            "Source": template.source,
            "Checksum": template.checksum,
            "Created": format_time(template.created_at),
        }
    )


async def clone(context: Context, arguments: Namespace) -> None:
    template = await context.client.manager.template(arguments.template)
    volume = await template.clone(
        arguments.name, id=arguments.id, size=arguments.size, labels=chosen_labels(arguments)
    )
    made = f"cloned {template.name} to volume {volume.name}: {volume.device}"
    context.output.object(volume, made)


async def rename(context: Context, arguments: Namespace) -> None:
    template = await context.client.manager.template(arguments.template)
    before = template.name
    await template.rename(arguments.new_name)
    await template.refresh()
    context.output.object(template, f"template {before} is named {template.name} now")


async def label(context: Context, arguments: Namespace) -> None:
    template = await context.client.manager.template(arguments.template)
    await change_labels(context, template, arguments)


async def delete(context: Context, arguments: Namespace) -> None:
    template = await context.client.manager.template(arguments.template)
    confirm(f"Destroy template {template.name}?", arguments)
    await template.delete(defer=arguments.defer)
    context.output.object(template, f"deleted template {template.name}")
