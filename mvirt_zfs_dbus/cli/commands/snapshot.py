"""mvirt-zfsctl snapshot …"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ...client import Snapshot, Volume
from ...errors import NotFound
from ...units import format_size, format_time
from ..asking import confirm
from ..context import Context, Subparsers, add_defer, add_yes, command


def add(parsers: Subparsers) -> None:
    create_parser = command(
        parsers,
        "create",
        create,
        "keep a volume as it is now",
        "snapshot create web-1 fresh",
        changes=True,
    )
    create_parser.add_argument("volume", help="name or UUID")
    create_parser.add_argument("name", help="of the new snapshot")

    list_parser = command(
        parsers,
        "list",
        list_all,
        "list the snapshots, oldest first",
        "snapshot list",
        "snapshot list web-1",
    )
    list_parser.add_argument("volume", nargs="?", help="name or UUID; without it, of all volumes")

    rollback_parser = command(
        parsers,
        "rollback",
        rollback,
        "turn a volume back to a snapshot; what came later is lost",
        "snapshot rollback web-1 fresh",
        "snapshot rollback web-1 fresh --destroy-newer --yes",
        changes=True,
    )
    add_snapshot(rollback_parser)
    rollback_parser.add_argument(
        "--destroy-newer", action="store_true", help="destroy the snapshots after it"
    )
    add_yes(rollback_parser)

    delete_parser = command(
        parsers,
        "delete",
        delete,
        "destroy a snapshot",
        "snapshot delete web-1 fresh",
        changes=True,
    )
    add_snapshot(delete_parser)
    add_defer(delete_parser)
    add_yes(delete_parser)


def add_snapshot(parser: ArgumentParser) -> None:
    parser.add_argument("volume", help="name or UUID")
    parser.add_argument("snapshot", help="name or UUID")


async def find(context: Context, arguments: Namespace) -> tuple[Volume, Snapshot]:
    """The volume and the snapshot of it that ``arguments`` name; an id wins."""
    volume = await context.client.manager.volume(arguments.volume)
    snapshots = await volume.snapshots()
    wanted = arguments.snapshot
    for snapshot in snapshots:
        if snapshot.id == wanted.lower():
            return volume, snapshot
    for snapshot in snapshots:
        if snapshot.name == wanted:
            return volume, snapshot
    names = ", ".join(snapshot.name for snapshot in snapshots) or "none"
    raise NotFound(f"volume {volume.name} has no snapshot {wanted!r}; it has: {names}")


async def create(context: Context, arguments: Namespace) -> None:
    volume = await context.client.manager.volume(arguments.volume)
    snapshot = await volume.create_snapshot(arguments.name)
    context.output.object(snapshot, f"created snapshot {snapshot.name} of {volume.name}")


async def list_all(context: Context, arguments: Namespace) -> None:
    inventory = await context.client.inventory()
    snapshots = inventory.snapshots
    if arguments.volume is not None:
        volume = await context.client.manager.volume(arguments.volume)
        snapshots = [each for each in snapshots if each.volume_path == volume.path]
    columns = ("Volume", "Name", "size", "used", "clones", "Created", "Id")
    rows = [
        (
            inventory.name_of(snapshot.volume_path),
            snapshot.name,
            format_size(snapshot.size_bytes),
            format_size(snapshot.used_bytes),
            str(len(snapshot.clone_paths)),
            format_time(snapshot.created_at),
            snapshot.id,
        )
        for snapshot in snapshots
    ]
    context.output.table(snapshots, columns, rows)


async def rollback(context: Context, arguments: Namespace) -> None:
    volume, snapshot = await find(context, arguments)
    taken = format_time(snapshot.created_at)
    confirm(
        f"Turn volume {volume.name} back to {snapshot.name} of {taken},"
        " and lose what was written since?",
        arguments,
    )
    await snapshot.rollback(destroy_newer=arguments.destroy_newer)
    await volume.refresh()
    context.output.object(volume, f"volume {volume.name} is back at {snapshot.name}")


async def delete(context: Context, arguments: Namespace) -> None:
    volume, snapshot = await find(context, arguments)
    confirm(f"Destroy snapshot {snapshot.name} of volume {volume.name}?", arguments)
    await snapshot.delete(defer=arguments.defer)
    context.output.object(snapshot, f"deleted snapshot {snapshot.name} of {volume.name}")
