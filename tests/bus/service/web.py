"""A web server on loopback, for as long as a test needs it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web


@asynccontextmanager
async def serving(application: web.Application) -> AsyncIterator[str]:
    """Its URL, without a slash at the end."""
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await web.SockSite(runner, listener).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        await runner.cleanup()


def files_of(folder: Path) -> web.Application:
    application = web.Application()
    application.router.add_static("/", folder)
    return application
