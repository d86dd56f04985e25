"""Downloads through a proxy that the service's environment names."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import subprocess
from pathlib import Path

import pytest

from mvirt_zfs_dbus.errors import AccessDenied, DownloadFailed
from mvirt_zfs_dbus.hosts import HostRules
from mvirt_zfs_dbus.image.proxies import proxy_for

from .raw_server import Connection, Request, head, raw_server
from .test_misbehaving_servers import BODY, WHOLE, get


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(key, certificate) of localhost and of images.invalid."""
    folder = tmp_path_factory.mktemp("tls")
    names = "subjectAltName=DNS:localhost,DNS:images.invalid"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", names,
         "-keyout", folder / "key", "-out", folder / "certificate"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "key", folder / "certificate"


def tunnel(port: str):
    """What a proxy does with CONNECT, whatever host is asked for."""

    async def answer(connection: Connection, request: Request) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        await connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(1 << 16):
                target.write(data)
                await target.drain()
            target.close()

        try:
            await asyncio.gather(
                pass_on(connection._reader, writer), pass_on(reader, connection.writer)
            )
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    return answer


async def test_https_goes_through_the_proxy_unread(certificate, monkeypatch):
    key, chain = certificate
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    async with (
        raw_server(WHOLE, tls=tls) as origin,
        raw_server(tunnel(origin.url.rpartition(":")[2])) as proxy,
    ):
        monkeypatch.setenv("https_proxy", proxy.url.replace("//", "//me:secret@"))
        origin.url = "https://you:hidden@images.invalid"
        assert await get(origin) == BODY
    (connect,), (request,) = proxy.requests, origin.requests
    assert connect.line.startswith("CONNECT images.invalid:443 ")
    assert "authorization" not in connect.headers
    assert connect.headers["proxy-authorization"] == basic("me:secret")
    assert request.headers["authorization"] == basic("you:hidden")
    assert "proxy-authorization" not in request.headers


def basic(login: str) -> str:
    return f"Basic {base64.b64encode(login.encode()).decode()}"


async def test_a_proxys_password_goes_to_the_proxy_alone(monkeypatch):
    async with raw_server(WHOLE) as proxy, raw_server(WHOLE) as direct:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:secret@"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        await get(direct)
        assert "proxy-authorization" not in direct.requests[0].headers
        direct.url = "http://images.invalid"
        assert await get(direct) == BODY
        assert proxy.requests[0].line == "GET http://images.invalid/image HTTP/1.1"
        assert proxy.requests[0].headers["proxy-authorization"] == basic("me:secret")


@pytest.mark.parametrize("answer", [head(407, Content_Length=0), head(403, Content_Length=0)])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_says_no_is_quoted_without_its_password(scheme, answer, monkeypatch):
    async with raw_server(answer) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url.replace("//", "//me:secret@"))
        proxy.url = f"{scheme}://images.invalid"
        with pytest.raises(DownloadFailed, match="So it is") as caught:
            await get(proxy)
        assert "secret" not in str(caught.value)
        assert len(proxy.requests) == 1


async def test_a_proxy_that_is_busy_for_a_moment_is_asked_again(monkeypatch):
    async with raw_server(head(503, Content_Length=0)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        proxy.url = "https://images.invalid"
        with pytest.raises(DownloadFailed, match="could not be downloaded: So it is"):
            await get(proxy)
        assert len(proxy.requests) == 6


async def test_a_proxy_is_asked_whatever_addresses_are_denied_but_not_for_denied_hosts(monkeypatch):
    hosts = HostRules(deny=["127.0.0.0/8", "*.internal"])
    async with raw_server(WHOLE) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        for url in ("http://a.internal", "http://127.0.0.1", "http://169.254.169.254"):
            proxy.url = url
            with pytest.raises(AccessDenied):
                await get(proxy, hosts=hosts)
        assert proxy.requests == []
        proxy.url = "http://images.invalid"
        assert await get(proxy, hosts=hosts) == BODY


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "http://a/b", None),
        ({"http_proxy": "http://p:3128"}, "http://a/b", "http://p:3128"),
        ({"http_proxy": "http://p:3128"}, "https://a/b", None),
        ({"HTTPS_PROXY": "http://p"}, "https://a/b", "http://p"),
        ({"http_proxy": "p:3128"}, "http://a/b", "http://p:3128"),
        ({"all_proxy": "http://p"}, "https://a/b", "http://p"),
        ({"http_proxy": "http://p", "no_proxy": "*"}, "http://a/b", None),
        ({"http_proxy": "http://p", "no_proxy": "x, .example.org"}, "http://a.example.org/b", None),
        ({"http_proxy": "http://p", "no_proxy": "a:81"}, "http://u:p@a:81/b", None),
        ({"http_proxy": "http://p", "no_proxy": "a:81"}, "http://u:p@a:82/b", "http://p"),
    ],
)
def test_the_environment_says_which_proxy(environment, url, proxy, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == proxy


@pytest.mark.parametrize("proxy", ["socks5://p:1080", "http://", "http://[x", "http://p:0"])
def test_a_proxy_of_another_kind_is_refused(proxy, monkeypatch):
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(DownloadFailed, match="http_proxy of the service's environment"):
        proxy_for("http://a/b")
