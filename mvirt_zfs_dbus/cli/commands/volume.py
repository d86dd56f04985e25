"""mvirt-zfsctl volume …"""

from __future__ import annotations

from argparse import Namespace

from ...client import Inventory, Volume
from ...units import format_size, format_time
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


def add(parsers: Subparsers) -> None:
    create_parser = command(parsers, "create", create, "make an empty volume")
    create_parser.add_argument("name")
    add_size(create_parser, "size", "its size")
    create_parser.add_argument("--block-size", type=int, metavar="BYTES")
    create_parser.add_argument("--compression", help="as zfsprops(7) has it: lz4, zstd, off …")
    create_parser.add_argument(
        "--thick", action="store_true", help="reserve its whole size in the pool"
    )
    add_labels(create_parser)

    command(parsers, "list", list_all, "list the volumes")

    show_parser = command(parsers, "show", show, "show everything about a volume")
    show_parser.add_argument("volume", help="name or UUID")

    resize_parser = command(parsers, "resize", resize, "grow a volume")
    resize_parser.add_argument("volume", help="name or UUID")
    add_size(resize_parser, "size", "its new size")

    rename_parser = command(parsers, "rename", rename, "give a volume another name")
    rename_parser.add_argument("volume", help="name or UUID")
    rename_parser.add_argument("new_name", metavar="NEW-NAME")

    delete_parser = command(parsers, "delete", delete, "destroy a volume and its data")
    delete_parser.add_argument("volume", help="name or UUID")
    delete_parser.add_argument("--snapshots", action="store_true", help="its snapshots as well")
    delete_parser.add_argument(
        "--defer", action="store_true", help="where clones need it, go with the last of them"
    )
    add_yes(delete_parser)


async def create(context: Context, arguments: Namespace) -> None:
    volume = await context.client.manager.create_volume(
        arguments.name,
        arguments.size,
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
    context.output.objects(inventory.volumes, render.table(columns, rows))


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


async def delete(context: Context, arguments: Namespace) -> None:
    volume = await context.client.manager.volume(arguments.volume)
    size = format_size(volume.size_bytes)
    count = len(volume.snapshot_paths)
    along = f" and its {count} snapshots" if arguments.snapshots and count else ""
    confirm(f"Destroy volume {volume.name} of {size}{along}, with all data?", arguments)
    await volume.delete(snapshots=arguments.snapshots, defer=arguments.defer)
    context.output.text(f"deleted volume {volume.name}")
