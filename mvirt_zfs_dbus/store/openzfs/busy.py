"""Changes that have to wait until nobody has a device open."""

from __future__ import annotations

import asyncio
from typing import Final

from ...errors import DeviceBusy
from . import device
from .kernel import Kernel
from .programs import Outcome

PATIENCE: Final = 5.0
"""Seconds in which a scanner (udev's blkid, LVM, multipath) has had its look at a new disk."""
_PAUSE: Final = 0.1


async def when_free(
    kernel: Kernel, what: str, program: str, *, dataset: str, **arguments: object
) -> Outcome:
    """Run a program again and again while it finds ``dataset`` open. DeviceBusy names who has it.

    Nothing tells when the kernel closes a zvol: the last close is done after everybody was told.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while True:
        outcome = await kernel.change(what, program, dataset=dataset, **arguments)
        if outcome.refused not in ("busy", "again"):
            return outcome
        if loop.time() > deadline:
            holder = await kernel.run(device.holder_of, dataset)
            raise DeviceBusy(
                f"{what}: {device.device_path(dataset)} is in use"
                + (f" by {holder}" if holder else "")
            )
        await asyncio.sleep(_PAUSE)
