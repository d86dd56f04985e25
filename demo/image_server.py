"""A small web server for the demo: real HTTP on loopback, slow enough to watch a download."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

BYTES_PER_SECOND = 2 << 20
CHUNK = 64 << 10


@asynccontextmanager
async def serve(folder: Path) -> AsyncIterator[str]:
    """Serve the files of ``folder`` at the URL this yields, until the block is left."""

    async def download(request: web.Request) -> web.StreamResponse:
        path = folder / request.match_info["name"]
        if not path.is_file():
            raise web.HTTPNotFound
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = path.stat().st_size
        await response.prepare(request)
        with path.open("rb") as image:
            while chunk := image.read(CHUNK):
                await response.write(chunk)
                await asyncio.sleep(len(chunk) / BYTES_PER_SECOND)
        await response.write_eof()
        return response

    application = web.Application()
    application.router.add_get("/{name}", download)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
