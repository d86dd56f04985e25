"""Where an administrator lets images come from."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.errors import AccessDenied
from mvirt_zfs_dbus.names import ErrorName, Interface

from .process import Client, ServiceProcess


@pytest.fixture
async def server(image: Path) -> AsyncIterator[str]:
    """Has the image at /image, and leads everywhere from /to?…"""

    async def lead(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query_string})

    async def serve(_: web.Request) -> web.FileResponse:
        return web.FileResponse(image)

    application = web.Application()
    application.router.add_get("/to", lead)
    application.router.add_get("/image", serve)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_an_address_nobody_may_reach_is_refused_before_a_job_is_made(client: Client) -> None:
    for url in ("http://169.254.169.254/latest", "http://0xa9fea9fe/", "https://[fe80::1]/"):
        with pytest.raises(AccessDenied, match="import-hosts-allow"):
            await client.import_path("web", url)
    assert await client.manager("ListJobs", "a{sv}", {}) == []
    await client.create("web")  # the name is free


async def test_a_redirect_to_such_an_address_fails_the_job(client: Client, server: str) -> None:
    job = await client.import_path("web", f"{server}/to?http://169.254.169.254/secret?token")
    ended = await client.completed(job)
    assert (ended["State"], ended["ErrorName"]) == ("failed", ErrorName.ACCESS_DENIED)
    assert "'169.254.169.254' is a link-local address" in ended["ErrorMessage"]


async def test_the_lists_are_the_configurations_and_are_read_again(
    bus_address: str, directory: Path, connected: Client, server: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text('import-hosts-deny = ["*.example.org", "127.0.0.0/8", "::1"]\n')
    process = ServiceProcess(bus_address, directory, "--config", str(file))
    await process.start(connected.connection)
    try:
        for url in (f"{server}/image", "http://images.example.org/"):
            with pytest.raises(AccessDenied, match="denied by import-hosts-deny"):
                await connected.import_path("web", url)
        job = await connected.import_path("web", server.replace("127.0.0.1", "localhost"))
        ended = await connected.completed(job)
        assert ended["ErrorName"] == ErrorName.ACCESS_DENIED
        assert "'localhost' leads to " in ended["ErrorMessage"]

        assert process.process
        file.write_text('import-hosts-deny = ["*"]\nimport-hosts-allow = ["127.0.0.1"]\n')
        process.process.send_signal(signal.SIGHUP)
        while "was read again" not in process.log.read_text():
            await connected.get(names.ROOT, Interface.MANAGER, "Version")
        job = await connected.import_path("web", f"{server}/image")
        assert (await connected.completed(job))["State"] == "done"
    finally:
        await process.stop()
