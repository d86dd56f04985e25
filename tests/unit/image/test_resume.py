"""A download that breaks off goes on where it broke, and never with another body."""

from __future__ import annotations

import asyncio
import contextlib
import re

import pytest
from aiohttp import web

from mvirt_zfs_dbus.errors import DownloadFailed, Truncated
from mvirt_zfs_dbus.image import resume

from .test_download import BODY, Server, fetched, serving


class Flaky(Server):
    """Sends ``portion`` bytes of the body a connection, then breaks it off."""

    portion = 700_000
    longest_rest = 1 << 40
    etag = '"one"'
    headers: dict[str, str] = {}  # noqa: RUF012
    resume_status = 206
    resume_range = "bytes {start}-{end}/{size}"
    answers_before_resuming: list[int] = []  # noqa: RUF012

    async def flaky(self, request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("Range")
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        if asked:
            if self.answers_before_resuming:
                return web.Response(status=self.answers_before_resuming.pop(0))
            assert request.headers["If-Range"] == self.etag
        response = web.StreamResponse(status=self.resume_status if asked else 200)
        response.headers.update({"ETag": self.etag, **self.headers})
        if asked:
            response.headers["Content-Range"] = self.resume_range.format(
                start=start, end=len(BODY) - 1, size=len(BODY)
            )
        response.content_length = min(len(BODY) - start, self.longest_rest if asked else 1 << 40)
        await response.prepare(request)
        end = min(start + self.portion, start + response.content_length)
        await response.write(BODY[start:end])
        if end < start + response.content_length:
            await self.interrupt(request)
        return response

    async def interrupt(self, request: web.Request) -> None:
        # Only once the client has it all: what a broken connection leaves unread is lost.
        transport = request.transport
        transport.set_write_buffer_limits(0)
        with contextlib.suppress(ConnectionError):
            await request._protocol._drain_helper()
        await asyncio.sleep(0.05)
        transport.close()


@pytest.fixture
async def server():
    async with serving(Flaky()) as server:
        yield server


async def get(server: Flaky, **options) -> tuple[bytes, int | None]:
    return await fetched(f"{server.url}/flaky", retry_delay=0.001, **options)


async def test_a_body_comes_whole_over_as_many_connections_as_it_takes(server):
    assert await get(server) == (BODY, len(BODY))
    assert len(server.requests) > 2


async def test_a_stalled_body_is_resumed_too(server):
    async def stall(_):
        await asyncio.Event().wait()

    server.interrupt = stall
    server.portion = 2_000_000
    assert (await get(server, stall_timeout=1))[0] == BODY
    assert len(server.requests) == 2


async def test_a_rest_that_is_shorter_than_announced_is_not_the_end(server):
    server.longest_rest = 500_000
    assert (await get(server))[0] == BODY


async def test_a_server_that_is_busy_for_a_moment_is_asked_again(server):
    server.answers_before_resuming = [503, 502]
    assert (await get(server))[0] == BODY


async def test_a_server_that_stays_busy_is_given_up(server):
    server.answers_before_resuming = [503] * 100
    with pytest.raises(DownloadFailed, match=r"broke off after .* 503 Service Unavailable"):
        await get(server)
    assert len(server.requests) == 1 + 5


async def test_a_server_that_breaks_off_again_and_again_without_a_byte_is_given_up(server):
    server.portion = 0
    with pytest.raises(Truncated, match="ended after 0 of"):
        await get(server)
    assert len(server.requests) == 1 + 5


async def test_another_body_is_not_taken_for_the_rest(server):
    server.resume_status = 200
    with pytest.raises(DownloadFailed, match="would not go on from there"):
        await get(server)


async def test_an_answer_that_is_no_passing_trouble_ends_it(server):
    server.answers_before_resuming = [404]
    with pytest.raises(DownloadFailed, match="and then the server answered 404 Not Found"):
        await get(server)


@pytest.mark.parametrize(
    "content_range",
    ["bytes 0-{end}/{size}", "bytes {start}-{end}/99", "bytes {start}-5/{size}", "", "x"],
)
async def test_a_rest_that_does_not_fit_is_refused(server, content_range):
    server.resume_range = content_range
    with pytest.raises(DownloadFailed, match="the server resumed"):
        await get(server)


@pytest.mark.parametrize(
    ("etag", "headers"), [('W/"weak"', {}), ('"one"', {"Accept-Ranges": "none"})]
)
async def test_a_body_that_cannot_be_told_from_another_is_not_resumed(server, etag, headers):
    server.etag, server.headers = etag, headers
    with pytest.raises(Truncated):
        await get(server)
    assert len(server.requests) == 1


DATES = {"Date": "Mon, 23 Nov 2026 05:00:02 GMT"}


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({}, None),
        ({"ETag": '"x"'}, '"x"'),
        ({"ETag": 'W/"x"', "Last-Modified": "Mon, 23 Nov 2026 05:00:00 GMT", **DATES}, None),
        (
            {"Last-Modified": "Mon, 23 Nov 2026 05:00:00 GMT", **DATES},
            "Mon, 23 Nov 2026 05:00:00 GMT",
        ),
        ({"Last-Modified": "Mon, 23 Nov 2026 05:00:02 GMT", **DATES}, None),
        ({"Last-Modified": "Mon, 23 Nov 2026 05:00:00 GMT"}, None),
        ({"Last-Modified": "yesterday", **DATES}, None),
    ],
)
def test_only_a_strong_validator_vouches_for_a_body(headers, validator):
    assert resume.validator(headers) == validator


@pytest.mark.parametrize(
    ("content_range", "length", "whole"),
    [
        ("bytes 10-19/20", None, 20),
        ("bytes 10-19/*", 20, 20),
        ("Bytes 10-14/20", 20, 20),  # what is left of it is asked for again
    ],
)
def test_a_rest_tells_how_long_the_whole_is(content_range, length, whole):
    assert resume.whole_length(content_range, 10, length) == whole


@pytest.mark.parametrize(
    ("content_range", "length"),
    [
        ("bytes 10-19/*", None),  # could end anywhere
        ("bytes 9-19/20", None),
        ("bytes 10-20/20", None),
        ("bytes 10-9/20", 20),
        ("bytes 10-19/20", 21),
        ("bytes 10-19/" + "9" * 30, None),
        ("bytes ١٠-19/20", 20),
        ("bytes */20", 20),
        ("10-19/20", 20),
    ],
)
def test_what_is_no_rest_is_refused(content_range, length):
    with pytest.raises(DownloadFailed, match="the server resumed"):
        resume.whole_length(content_range, 10, length)


async def test_a_proxy_of_the_environment_is_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    # An absolute URL in the request line is how a proxy is asked; this server answers as one.
    assert (await fetched("http://images.invalid/body"))[0] == BODY
    (request,) = server.requests
    assert request.raw_path == "http://images.invalid/body"


async def test_a_tls_server_the_system_trusts_is_downloaded_from(tmp_path, monkeypatch):
    import ssl
    import subprocess

    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with serving(Server(), context) as server:
        url = server.url.replace("127.0.0.1", "localhost") + "/body"
        with pytest.raises(DownloadFailed, match="its certificate is not trusted"):
            await fetched(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert (await fetched(url))[0] == BODY
