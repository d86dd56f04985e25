"""Downloads that are led where they may not go: by a name, a redirect, or a name that changes."""

from __future__ import annotations

import socket

import pytest

from mvirt_zfs_dbus.errors import AccessDenied, DownloadFailed
from mvirt_zfs_dbus.hosts import HostRules

from .raw_server import head, raw_server
from .test_misbehaving_servers import BODY, WHOLE, get

NO_LOOPBACK = HostRules(deny=["127.0.0.0/8", "::1"])


def redirect(to: str) -> bytes:
    return head(302, Location=to, Content_Length=0)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "0x7f000001", "[::ffff:7f00:1]"]
)
async def test_a_denied_address_is_not_connected_to(host):
    async with raw_server(WHOLE) as server:
        server.url = server.url.replace("127.0.0.1", host)
        with pytest.raises(AccessDenied, match="import-hosts-deny"):
            await get(server, hosts=NO_LOOPBACK)
        assert server.requests == []


@pytest.mark.parametrize(
    "to",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://0xa9fea9fe/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fe80::1%25lo]/",
        "//①⑥⑨.254.169.254/".encode().decode("latin-1"),
        "http://me@169.254.169.254:80/",
    ],
)
async def test_a_redirect_to_a_denied_address_is_not_followed(to):
    async with raw_server(redirect(to)) as server:
        with pytest.raises(AccessDenied, match="import-hosts-allow"):
            await get(server)
        assert len(server.requests) == 1


async def test_a_redirect_to_a_denied_name_is_not_followed():
    rules = HostRules(deny=["localhost"])
    async with raw_server(WHOLE) as other:
        to = other.url.replace("127.0.0.1", "localhost")
        async with raw_server(redirect(to)) as server:
            with pytest.raises(AccessDenied, match="'localhost' is denied by import-hosts-deny"):
                await get(server, hosts=rules)
            assert await get(server) == BODY
        assert len(other.requests) == 1


async def test_a_rest_is_not_fetched_from_where_the_whole_could_not_be():
    first = head(200, Content_Length=len(BODY), ETag='"one"') + BODY[:1000]
    async with raw_server(first, redirect("http://169.254.169.254/")) as server:
        with pytest.raises(AccessDenied, match="import-hosts-allow"):
            await get(server)


class Names:
    """In place of name resolution, which a test cannot make lie: another answer each time."""

    def __init__(self, *answers: list[str]) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)
        self._real = socket.getaddrinfo

    def __call__(self, host, port, *args, **kwargs):
        if host != "images.example":
            return self._real(host, port, *args, **kwargs)
        self.asked.append(host)
        answers = self._answers.pop(0)
        return [each for ip in answers for each in self._real(ip, port, *args, **kwargs)]


async def test_a_name_that_leads_elsewhere_the_second_time_is_not_looked_up_twice(monkeypatch):
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    monkeypatch.setattr(socket, "getaddrinfo", names)
    async with raw_server(WHOLE) as server:
        server.url = server.url.replace("127.0.0.1", "images.example")
        assert await get(server) == BODY
        assert names.asked == ["images.example"]
        with pytest.raises(
            AccessDenied, match=r"leads to 169\.254\.169\.254, which is a link-local"
        ):
            await get(server)
        assert len(server.requests) == 1


async def test_of_several_addresses_only_those_allowed_are_connected_to(monkeypatch):
    names = Names(["169.254.169.254", "127.0.0.1"], ["::ffff:169.254.1.1", "169.254.2.2"])
    monkeypatch.setattr(socket, "getaddrinfo", names)
    async with raw_server(WHOLE) as server:
        server.url = server.url.replace("127.0.0.1", "images.example")
        assert await get(server) == BODY
        with pytest.raises(AccessDenied):
            await get(server)


@pytest.mark.parametrize("url", ["http://a..b/", "http://" + "a" * 64 + "/", "http://%00/"])
async def test_a_host_that_cannot_be_is_an_error_of_ours(url):
    async with raw_server() as server:
        server.url = url
        with pytest.raises(DownloadFailed):
            await get(server, "")
