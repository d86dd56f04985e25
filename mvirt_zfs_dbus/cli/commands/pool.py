"""mvirt-zfsctl pool"""

from __future__ import annotations

from argparse import Namespace

from ...client import Pool
from ...units import format_size
from .. import render
from ..context import Context, Subparsers, command


def add(parsers: Subparsers) -> None:
    command(parsers, "pool", show, "show the pool: health, space, how much is provisioned", "pool")


async def show(context: Context, _: Namespace) -> None:
    pools = [await pool.refresh() for pool in (await context.client.inventory()).pools]
    context.output.answer(
        [render.plain(pool) for pool in pools], "\n\n".join(map(_description, pools))
    )


def _description(pool: Pool) -> str:
    return render.fields(
        {
            "Name": pool.name,
            "Health": pool.health,
            "Size": format_size(pool.size_bytes),
            "Allocated": format_size(pool.allocated_bytes),
            "Free": format_size(pool.free_bytes),
            "Available": format_size(pool.available_bytes),
            "Provisioned": format_size(pool.provisioned_bytes),
            "Compression": f"{pool.compression_ratio:.2f}x",
            "Volumes": str(pool.volume_count),
            "Templates": str(pool.template_count),
        }
    )
