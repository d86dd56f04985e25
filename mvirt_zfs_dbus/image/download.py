"""A body over http or https into a pipe, whole or not at all. The one module that imports aiohttp.

docs/design.md has a table of what a server may do wrong, and what comes of each.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from .. import __version__
from ..errors import DownloadFailed, Truncated
from ..hosts import ANY_HOST, HostRules
from . import answers, pipe, proxies, resume, retries, urls
from .retries import Interrupted

_READ_BUFFER: Final = 1 << 20
"""With aiohttp's own 64 KiB a download takes five times as long."""
_CONNECT_TIMEOUT: Final = 15.0
"""Seconds for one address of a host; the next one may answer."""
_MAX_REDIRECTS: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {
    "Accept-Encoding": "identity",
    "User-Agent": f"mvirt-zfs-dbus/{__version__}",
}

Started = Callable[[int | None], None]
"""Is told the body's length in bytes, where the server tells it."""


async def download(
    url: str,
    pipe_fd: int,
    started: Started,
    *,
    hosts: HostRules = ANY_HOST,
    stall_timeout: float,
    checked_later: bool = False,
    retry_delay: float = retries.FIRST_DELAY,
) -> int:
    """Write the body of ``url`` into a non-blocking pipe, and return its bytes.

    ``started`` is called when the answer begins. A connection that breaks is made again, and the
    body resumed, where the server can. ``stall_timeout``: seconds for a whole answer's headers,
    and between two pieces of a body. ``checked_later``: the body has a checksum that tells whether
    it is whole, so a server need not.

    DownloadFailed: the server could not be reached, said no, or stopped sending. AccessDenied:
    ``hosts`` denies it. Truncated: the body ended early. BrokenPipeError: the pipe's reader is
    gone.
    """
    trusted = ssl.create_default_context()
    async with (
        _session(_CheckedResolver(hosts), trusted) as direct,
        _session(ThreadedResolver(), trusted) as by_proxy,
    ):
        connections = _Connections(hosts, direct, by_proxy, stall_timeout)
        body = _Body(connections, urls.check(url), pipe_fd, started, checked_later)
        return await body.download(retries.Patience(retry_delay))


class _CheckedResolver(ThreadedResolver):
    """The addresses of a host that may be connected to. They are the very ones that are."""

    def __init__(self, hosts: HostRules) -> None:
        super().__init__()
        self._hosts = hosts

    async def resolve(self, *args: Any, **options: Any) -> list[Any]:
        host = str(args[0])
        try:
            found = await super().resolve(*args, **options)
        except UnicodeError as error:
            raise OSError(None, f"{host[:255]!r} is no host name") from error
        permitted = self._hosts.permitted(host, {result["host"] for result in found})
        return [result for result in found if result["host"] in permitted]


def _session(resolver: ThreadedResolver, trusted: ssl.SSLContext) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, ssl=trusted),
        headers=_HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT),
        read_bufsize=_READ_BUFFER,
        auto_decompress=False,
    )


@dataclass
class _Connections:
    """Where requests go, and what becomes of them."""

    hosts: HostRules
    direct: aiohttp.ClientSession
    by_proxy: aiohttp.ClientSession
    stall_timeout: float
    answered: set[tuple[str, str | None, int]] = field(default_factory=set)

    async def get(self, url: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """The answer of the last one of all redirects, which lead to http and https alone."""
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._request(url, headers)
            if response.status not in _REDIRECTS:
                return response
            response.close()
            url = urls.redirected(url, response.headers.get("Location", ""))
        raise DownloadFailed(f"{urls.shown(url)}: more than {_MAX_REDIRECTS} redirects")

    async def _request(self, url: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        proxy = proxies.proxy_for(url)
        session = self.by_proxy if proxy else self.direct
        with self._failures(url):
            target = URL(url)
            host = target.raw_host or ""
            if proxy:
                self.hosts.check_unresolved(host)
            else:
                self.hosts.check(host)
            async with asyncio.timeout(self.stall_timeout):
                response = await session.get(
                    target, headers=headers, allow_redirects=False, proxy=proxy
                )
        self.answered.add(urls.origin(url))
        return response

    @contextlib.contextmanager
    def _failures(self, url: str) -> Iterator[None]:
        """What went wrong before an answer, as the error it is.

        A server that never answered is not tried again, for most likely there is none.
        """
        try:
            yield
        except (aiohttp.ClientError, OSError, ValueError) as error:
            said = f"could not be downloaded: {_reason(error)}"
            if isinstance(error, TimeoutError):
                said = f"gave no answer within {self.stall_timeout:g} seconds"
            failed = DownloadFailed(f"{urls.shown(url)} {said}")
            if _may_pass(error, answered=urls.origin(url) in self.answered):
                raise Interrupted(failed) from error
            raise failed from error


@dataclass
class _Body:
    """One body, over as many connections as it takes."""

    connections: _Connections
    url: str
    pipe_fd: int
    started: Started
    checked_later: bool
    begun: bool = False
    received: int = 0
    length: int | None = None
    validator: str | None = None

    @property
    def shown(self) -> str:
        return urls.shown(self.url)

    async def download(self, patience: retries.Patience) -> int:
        while True:
            before = self.received
            try:
                await self._attempt()
                return self.received
            except Interrupted as interrupted:
                if self.received and self.validator is None:
                    raise interrupted.error from interrupted
                progress = self.received > before
                wait = patience.wait(interrupted, progress=progress)
            await asyncio.sleep(wait)

    async def _attempt(self) -> None:
        """Download from where the last attempt ended."""
        headers = {}
        if self.received and self.validator:
            headers = resume.request_headers(self.received, self.validator)
        response = await self.connections.get(self.url, headers)
        async with response:
            if self.received:
                self._resume(response)
            else:
                self._begin(response)
            await self._pump(response)

    def _begin(self, response: aiohttp.ClientResponse) -> None:
        shown = urls.shown(str(response.url))
        if response.status != 200:
            raise self._refused(response, f"{shown}:")
        length = response.content_length
        answers.check_encoding(response.headers, shown)
        answers.check_length(length, shown)
        if not (self.checked_later or answers.has_an_end(response.headers, length)):
            raise DownloadFailed(
                f"{shown}: the server tells neither a length nor an end, so a file cut short would"
                " look whole; give the checksum of it"
            )
        if self.begun and length != self.length:
            raise DownloadFailed(f"{shown} had {self.length} bytes, and now it has {length}")
        self.length = length
        self.validator = resume.validator(response.headers)
        if not self.begun:
            self.begun = True
            self.started(length)

    def _resume(self, response: aiohttp.ClientResponse) -> None:
        """DownloadFailed: what comes is not the rest of the same body."""
        assert self.validator
        broken = f"{self.shown} broke off after {self.received} bytes, and then"
        if response.status == 200:
            same = resume.validator(response.headers) == self.validator
            what = "would not go on from there" if same else "had another file"
            raise DownloadFailed(f"{broken} the server {what}")
        if response.status != 206:
            raise self._refused(response, broken)
        answers.check_encoding(response.headers, self.shown)
        resume.check_same(response.headers, self.validator)
        content_range = response.headers.get("Content-Range", "")
        self.length = resume.whole_length(content_range, self.received, self.length)

    def _refused(self, response: aiohttp.ClientResponse, shown: str) -> Exception:
        error = DownloadFailed(f"{shown} the server answered {response.status} {response.reason}")
        if response.status in retries.PASSING:
            return Interrupted(error, wait=retries.retry_after(response.headers))
        return error

    async def _pump(self, response: aiohttp.ClientResponse) -> None:
        connection = response.connection.protocol if response.connection else None
        while chunk := await self._piece(response):
            if self.length is not None and self.received + len(chunk) > self.length:
                raise DownloadFailed(f"{self.shown} sent more than {self.length} bytes")
            await pipe.write(self.pipe_fd, chunk)
            self.received += len(chunk)
        if self.length is not None and self.received != self.length:
            raise Interrupted(self._cut())
        after = connection.exception() if connection is not None else None
        if isinstance(after, HttpProcessingError):  # what follows is no other answer
            raise DownloadFailed(f"{self.shown} sent more than {self.received} bytes")

    async def _piece(self, response: aiohttp.ClientResponse) -> bytes:
        """Some bytes of the body, and none at its end."""
        timeout = self.connections.stall_timeout
        try:
            async with asyncio.timeout(timeout):
                return await response.content.readany()
        except TimeoutError as error:
            raise Interrupted(
                DownloadFailed(f"{self.shown} sent nothing for {timeout:g} seconds")
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Interrupted(self._cut()) from error

    def _cut(self) -> Truncated:
        of = "" if self.length is None else f" of {self.length}"
        return Truncated(f"{self.shown}: the connection ended after {self.received}{of} bytes")


def _may_pass(error: Exception, *, answered: bool) -> bool:
    """Whether the same request may get an answer a moment later."""
    match error:
        case aiohttp.ClientSSLError():
            return False
        case TimeoutError() | aiohttp.ClientConnectorError():
            return answered
        case aiohttp.ClientResponseError(status=status):  # a proxy's, or of what is no HTTP: 400
            return status in retries.PASSING
        case _:  # no URL is a ValueError
            return not isinstance(error, ValueError)


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({error.certificate_error})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {error.host}:{error.port} ({error.strerror or error.os_error})"
    if isinstance(error, aiohttp.ClientResponseError):  # its text has the whole URL
        return f"what came is no HTTP ({error.message})" if error.status == 400 else error.message
    if isinstance(error, ValueError):
        return "the URL is not valid"
    return str(error) or type(error).__name__
