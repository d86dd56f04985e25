"""Writing a non-blocking pipe from an event loop."""

from __future__ import annotations

import asyncio
import os


async def write(pipe: int, data: bytes) -> None:
    """All of it. BrokenPipeError: nobody reads any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(pipe, view) :]
        except BlockingIOError:
            await _writable(pipe)


async def _writable(pipe: int) -> None:
    loop = asyncio.get_running_loop()
    writable = asyncio.Event()
    loop.add_writer(pipe, writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(pipe)
