"""mvirt-zfsctl volume …"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ...client import Inventory, Volume
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
    add_yes,
    chosen_labels,
    command,
)
from ..labels import add_label_changes, change_labels


def add(parsers: Subparsers) -> None:
    _add_create(parsers)
    command(parsers, "list", list_all, "list the volumes", "volume list", "volume list --json")
    _add_volume(
        command(parsers, "show", show, "show everything about a volume", "volume show web-1")
    )
    resize_parser = command(
        parsers,
        "resize",
        resize,
        "grow a volume; the guest sees it when the hypervisor tells it",
        "volume resize web-1 20G",
        changes=True,
    )
    _add_volume(resize_parser)
    add_size(resize_parser, "size", "its new size")

    rename_parser = command(
        parsers,
        "rename",
        rename,
        "give a volume another name; its UUID and its device stay",
        "volume rename web-1 db-1",
        changes=True,
    )
    _add_volume(rename_parser)
    rename_parser.add_argument("new_name", metavar="NEW-NAME")

    label_parser = command(
        parsers,
        "label",
        label,
        "set and remove labels of a volume, or show them",
        "volume label web-1 --set vm=web --set owner=ops",
        "volume label web-1 --remove owner",
        "volume label web-1",
        changes=True,
    )
    _add_volume(label_parser)
    add_label_changes(label_parser)
    _add_delete(parsers)
    _add_volume(
        command(
            parsers, "users", users, "show who has a volume's device open", "volume users web-1"
        )
    )


def _add_volume(parser: ArgumentParser) -> None:
    parser.add_argument("volume", help="name or UUID")


def _add_create(parsers: Subparsers) -> None:
    parser = command(
        parsers,
        "create",
        create,
        "make an empty volume",
        "volume create web-1 10G",
        "volume create db-1 1.5TiB --thick --label vm=db",
        changes=True,
    )
    parser.add_argument("name")
    add_size(parser, "size", "its size")
    parser.add_argument("--block-size", type=int, metavar="BYTES", help="default: 16384")
    parser.add_argument("--compression", help="as zfsprops(7) has it: lz4, zstd, off …")
    parser.add_argument("--thick", action="store_true", help="reserve its whole size in the pool")
    add_labels(parser)
    add_id(parser)


def _add_delete(parsers: Subparsers) -> None:
    parser = command(
        parsers,
        "delete",
        delete,
        "destroy a volume and its data",
        "volume delete web-1",
        "volume delete web-1 --snapshots --yes",
        changes=True,
    )
    _add_volume(parser)
    parser.add_argument("--snapshots", action="store_true", help="its snapshots as well")
    add_defer(parser)
    add_yes(parser)


async def create(context: Context, arguments: Namespace) -> None:
    volume = await context.client.manager.create_volume(
        arguments.name,
        arguments.size,
        id=arguments.id,
        block_size=arguments.block_size,
        compression=arguments.compression,
        thin=False if arguments.thick else None,
        labels=chosen_labels(arguments),
    )
    made = f"created volume {volume.name} of {format_size(volume.size_bytes)}: {volume.device}"
    context.output.object(volume, made)


async def list_all(context: Context, _: Namespace) -> None:
    inventory = await context.client.inventory()
    columns = ("Name", "size", "used", "snapshots", "Origin", "Id")
    rows = [
        (
            volume.name,
            format_size(volume.size_bytes),
            format_size(volume.used_bytes),
            str(len(volume.snapshot_paths)),
            inventory.name_of(volume.origin_path) or "-",
            volume.id,
        )
        for volume in inventory.volumes
    ]
    context.output.table(inventory.volumes, columns, rows)


async def show(context: Context, arguments: Namespace) -> None:
    volume = await context.client.manager.volume(arguments.volume)
    inventory = await context.client.inventory()  # for the names of what its properties name
    context.output.object(volume, _description(volume, inventory))


def _description(volume: Volume, inventory: Inventory) -> str:
    return render.fields(
        {
            "Name": volume.name,
            "Id": volume.id,
            "Device": volume.device,
            "Size": f"{format_size(volume.size_bytes)} ({volume.size_bytes} bytes)",
            "Block size": format_size(volume.block_size),
            "Used": format_size(volume.used_bytes),
            "Referenced": format_size(volume.referenced_bytes),
            "Compression": f"{volume.compression_ratio:.2f}x",
            "Thin": "yes" if volume.thin else "no",
            "Origin": inventory.name_of(volume.origin_path),
            "Snapshots": ", ".join(inventory.name_of(each) for each in volume.snapshot_paths),
            "Labels": render.labels(volume.labels),
            "Source": volume.source,
            "Checksum": volume.checksum,
            "Created": format_time(volume.created_at),
        }
    )


async def resize(context: Context, arguments: Namespace) -> None:
    volume = await context.client.manager.volume(arguments.volume)
    await volume.resize(arguments.size)
    await volume.refresh()
    done = f"volume {volume.name} has {format_size(volume.size_bytes)} now"
    context.output.object(volume, done)


async def rename(context: Context, arguments: Namespace) -> None:
    volume = await context.client.manager.volume(arguments.volume)
    before = volume.name
    await volume.rename(arguments.new_name)
    await volume.refresh()
    context.output.object(volume, f"volume {before} is named {volume.name} now")


async def label(context: Context, arguments: Namespace) -> None:
    volume = await context.client.manager.volume(arguments.volume)
    await change_labels(context, volume, arguments)


async def delete(context: Context, arguments: Namespace) -> None:
    volume = await context.client.manager.volume(arguments.volume)
    size = format_size(volume.size_bytes)
    count = len(volume.snapshot_paths)
    along = f" and its {count} snapshots" if arguments.snapshots and count else ""
    confirm(f"Destroy volume {volume.name} of {size}{along}, with all data?", arguments)
    await volume.delete(snapshots=arguments.snapshots, defer=arguments.defer)
    context.output.object(volume, f"deleted volume {volume.name}")


async def users(context: Context, arguments: Namespace) -> None:
    volume = await context.client.manager.volume(arguments.volume)
    found = await volume.users()
    rows = [(str(user["pid"]), str(user["command"])) for user in found]
    nobody = f"nobody has {volume.device} open"
    context.output.answer(found, render.table(("pid", "Command"), rows) if rows else nobody)
