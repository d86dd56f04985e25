"""Downloads from a real server on loopback, into a real pipe."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import ssl
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from mvirt_zfs_dbus.errors import DownloadFailed, Truncated
from mvirt_zfs_dbus.image import channel, downloader, protocol
from mvirt_zfs_dbus.image.download import download
from mvirt_zfs_dbus.image.downloader import serve, warm_up

BODY = random.Random(1).randbytes(3 << 20)


class Server:
    """Handlers by path; what they have seen."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.asked = asyncio.Event()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.asked.set()
        handler: Callable[[web.Request], AsyncIterator[web.StreamResponse]]
        handler = getattr(self, request.match_info["name"])
        return await handler(request)

    async def body(self, _: web.Request) -> web.Response:
        return web.Response(body=BODY)

    async def chunked(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(BODY), 100_000):
            await response.write(BODY[start : start + 100_000])
        return response

    async def cut(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(BODY))})
        await response.prepare(request)
        await response.write(BODY[:1_000_000])
        request.transport.close()
        return response

    async def cut_chunked(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(BODY[:1_000_000])
        request.transport.close()
        return response

    async def stall(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(BODY))})
        await response.prepare(request)
        await response.write(BODY[:1000])
        await asyncio.Event().wait()
        return response

    async def redirect(self, request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query["to"]})

    async def loop(self, _: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/loop"})

    async def silent(self, _: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def gone(self, _: web.Request) -> web.Response:
        return web.Response(status=404)

    async def packed(self, _: web.Request) -> web.Response:
        return web.Response(body=BODY, headers={"Content-Encoding": "gzip"})


@contextlib.asynccontextmanager
async def serving(
    server: Server | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = server or Server()
    app = web.Application()
    app.router.add_get("/{name}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    server.url = (
        f"{'https' if tls else 'http'}://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    )
    try:
        yield server
    finally:
        await runner.cleanup()


@pytest.fixture
async def server():
    async with serving() as server:
        yield server


async def fetched(
    url: str, *, stall_timeout: float = 30, **options: float
) -> tuple[bytes, int | None]:
    """The body and its announced length."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    parts: list[bytes] = []
    lengths: list[int | None] = []

    def drain() -> None:
        while part := os.read(reading, 1 << 20):
            parts.append(part)

    draining = threading.Thread(target=drain)
    draining.start()
    try:
        received = await download(
            url, writing, lengths.append, stall_timeout=stall_timeout, **options
        )
    finally:
        os.close(writing)
        await asyncio.to_thread(draining.join)
        os.close(reading)
    body = b"".join(parts)
    assert received == len(body)
    return body, lengths[0]


async def test_a_body_arrives_whole_and_its_length_is_known(server):
    assert await fetched(f"{server.url}/body") == (BODY, len(BODY))
    (request,) = server.requests
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["User-Agent"].startswith("mvirt-zfs-dbus/")


async def test_a_body_of_unknown_length_arrives_whole(server):
    assert await fetched(f"{server.url}/chunked") == (BODY, None)


async def test_redirects_are_followed(server):
    url = f"{server.url}/redirect?to=/redirect?to={server.url}/body"
    assert (await fetched(url))[0] == BODY
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "", "http://[x"]
)
async def test_redirects_to_anything_but_http_are_refused(server, to):
    with pytest.raises(DownloadFailed, match=r"redirects to .*only http and https"):
        await fetched(f"{server.url}/redirect?to={to}")


async def test_redirects_without_end_are_refused(server):
    with pytest.raises(DownloadFailed, match="more than 10 redirects"):
        await fetched(f"{server.url}/loop")


async def test_a_server_that_says_no_is_quoted(server):
    with pytest.raises(DownloadFailed, match="/gone: the server answered 404 Not Found"):
        await fetched(f"{server.url}/gone")


async def test_a_body_that_is_encoded_unasked_is_refused(server):
    with pytest.raises(DownloadFailed, match=r"encoded \(gzip\)"):
        await fetched(f"{server.url}/packed")


async def test_a_body_cut_short_is_truncated(server):
    with pytest.raises(Truncated, match=rf"ended after \d+ of {len(BODY)} bytes"):
        await fetched(f"{server.url}/cut")


async def test_a_chunked_body_cut_short_is_truncated(server):
    with pytest.raises(Truncated, match=r"ended after \d+ bytes"):
        await fetched(f"{server.url}/cut_chunked")


@pytest.mark.parametrize(
    ("name", "said"),
    [("stall", "sent nothing for 1 s"), ("silent", "gave no answer within 1 s")],
)
async def test_a_server_that_stops_sending_is_given_up(server, name, said):
    with pytest.raises(DownloadFailed, match=said):
        await fetched(f"{server.url}/{name}", stall_timeout=1)


async def test_a_server_that_is_not_there_is_named():
    with pytest.raises(DownloadFailed, match=r"no connection to 127\.0\.0\.1:1"):
        await fetched("http://127.0.0.1:1/x")


async def test_a_url_that_is_none_is_refused():
    with pytest.raises(DownloadFailed, match="is no URL of http"):
        await fetched("http://127.0.0.1:99999/x")


async def test_a_tls_server_nobody_vouches_for_is_refused(server):
    with pytest.raises(DownloadFailed, match="could not be downloaded"):
        await fetched(server.url.replace("http", "https") + "/body")


async def test_a_password_goes_to_its_own_server_alone_and_into_no_message(server):
    async with serving() as other:
        own = server.url.replace("//", "//me:secret@")
        await fetched(f"{own}/redirect?to=/redirect?to={other.url}/body")
        assert [("Authorization" in r.headers) for r in server.requests] == [True, True]
        assert "Authorization" not in other.requests[0].headers
    with pytest.raises(DownloadFailed) as caught:
        await fetched(f"{own}/gone?token=secret#secret")
    assert "secret" not in str(caught.value)


async def in_thread(url: str, pipe: int, **options) -> channel.AsyncConnection:
    """The downloader's code without its process."""
    ours, theirs = channel.pair()

    def run() -> None:
        with theirs:
            serve(channel.Connection(theirs))

    threading.Thread(target=run).start()
    connection = channel.AsyncConnection(ours)
    request = protocol.Fetch(url, options.get("stall_timeout", 30_000), [], [], False)
    await connection.send(request, [pipe])
    return connection


async def test_the_verdict_is_there_when_the_pipe_ends(server):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    connection = await in_thread(f"{server.url}/cut", writing)
    os.close(writing)
    assert await connection.receive() == (protocol.Response(len(BODY)), [])
    with os.fdopen(reading, "rb") as pipe:
        body = await asyncio.to_thread(pipe.read)
    assert BODY.startswith(body)
    message, _ = channel.receive(connection._sock)
    assert isinstance(message, protocol.Failure)
    assert message.name == Truncated.name
    connection.close()


async def test_a_whole_download_ends_with_its_bytes(server):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    connection = await in_thread(f"{server.url}/body", writing)
    os.close(writing)
    await connection.receive()
    with os.fdopen(reading, "rb") as pipe:
        assert await asyncio.to_thread(pipe.read) == BODY
    assert await connection.receive() == (protocol.Fetched(len(BODY)), [])
    connection.close()


@pytest.mark.parametrize("name", ["body", "stall"])
async def test_a_downloader_whose_reader_goes_stops_at_once(server, name):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    connection = await in_thread(f"{server.url}/{name}", writing)
    os.close(writing)
    await connection.receive()
    assert await asyncio.to_thread(os.read, reading, 1000) == BODY[:1000]
    os.close(reading)
    async with asyncio.timeout(10):
        assert await connection.receive() == (protocol.Unwanted(), [])
    connection.close()


async def test_a_server_that_takes_all_memory_is_an_error_of_its_own(monkeypatch):
    async def exhausted(*_, **__):  # in place of aiohttp, some versions of which do that
        raise MemoryError

    monkeypatch.setattr(downloader, "download", exhausted)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    connection = await in_thread("http://127.0.0.1/", writing)
    message, _ = await connection.receive()
    assert isinstance(message, protocol.Failure)
    assert (message.name, "too much memory" in message.message) == (DownloadFailed.name, True)
    connection.close()
    os.close(reading)
    os.close(writing)


def test_warming_up_needs_no_network():
    warm_up()
