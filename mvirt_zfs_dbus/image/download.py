"""The downloader process: http and https in, a pipe out. The one module that imports aiohttp.

It has the network and nothing else to lose; what it downloads it does not look at.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import aiohttp
from aiohttp.resolver import ThreadedResolver

from .. import __version__
from ..errors import DownloadFailed, Error, Truncated
from . import channel, pipe, protocol, resume, urls

_READ_BUFFER: Final = 1 << 20
"""With aiohttp's own 64 KiB a download takes five times as long."""
_MAX_REDIRECTS: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_RETRIES: Final = 5
"""In a row, without a byte between them."""
RETRY_DELAY: Final = 1.0
"""Seconds before the first one; each further one waits twice as long."""
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that may be another one a moment later."""
_HEADERS: Final = {
    "Accept-Encoding": "identity",
    "User-Agent": f"mvirt-zfs-dbus/{__version__}",
}


def serve(control: channel.Connection, ready: Callable[[], None] = lambda: None) -> None:
    """Download one URL into one pipe. ``ready`` is called when every thread exists.

    Errors are told to the daemon before the pipe is closed, so whoever sees the pipe's end early
    finds the reason already there.
    """
    request, (pipe_fd,) = control.expect(protocol.Fetch)
    loop = asyncio.new_event_loop()  # asyncio.run() would end with starting a thread
    with ThreadPoolExecutor(1) as resolver, contextlib.closing(loop):
        resolver.submit(int).result()
        loop.set_default_executor(resolver)
        ready()
        try:
            loop.run_until_complete(_serve(control, request, pipe_fd))
        except BrokenPipeError:
            control.send(protocol.Unwanted())
        except Error as error:
            control.send(protocol.Failure(error.name, error.message))
        finally:
            os.close(pipe_fd)


async def _serve(
    control: channel.Connection,
    request: protocol.Fetch,
    pipe_fd: int,
) -> None:
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(
        download(
            request.url,
            pipe_fd,
            lambda length: control.send(protocol.Response(length)),
            stall_timeout=request.stall_timeout / 1000,
        )
    )
    # The writing end of a pipe becomes readable (POLLERR) when its reader goes: poll(2).
    loop.add_reader(pipe_fd, work.cancel)
    try:
        control.send(protocol.Fetched(await work))
    except asyncio.CancelledError as error:
        raise BrokenPipeError from error
    finally:
        loop.remove_reader(pipe_fd)


async def download(
    url: str,
    pipe_fd: int,
    started: Callable[[int | None], None],
    *,
    stall_timeout: float,
    retry_delay: float = RETRY_DELAY,
) -> int:
    """Write the body of ``url`` into a non-blocking pipe, and return its bytes.

    ``started`` is told the body's length when the answer begins. A connection that breaks
    afterwards is made again, and the body resumed, where the server can. DownloadFailed: the
    server could not be reached, said no, or stopped sending. Truncated: the body ended early.
    BrokenPipeError: the pipe's reader is gone.
    """
    # None for the whole, one for each wait.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=stall_timeout, sock_read=stall_timeout)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=ThreadedResolver(), ssl=ssl.create_default_context()
        ),
        headers=_HEADERS,
        timeout=timeout,
        read_bufsize=_READ_BUFFER,
        auto_decompress=False,
        trust_env=True,
    ) as session:
        return await _Download(session, urls.check(url), pipe_fd, started).run(retry_delay)


class _Interrupted(Exception):
    """The connection broke, or could not be made again; the error to end with if that stays so."""

    def __init__(self, error: Error) -> None:
        self.error = error


class _Download:
    """One body, over as many connections as it takes."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        pipe_fd: int,
        started: Callable[[int | None], None],
    ) -> None:
        self._session = session
        self._url = url
        self._shown = urls.shown(url)
        self._pipe = pipe_fd
        self._started = started
        self._received = 0
        self._length: int | None = None
        self._validator: str | None = None

    async def run(self, retry_delay: float) -> int:
        failures = 0
        while True:
            before = self._received
            try:
                return await self._attempt()
            except _Interrupted as interrupted:
                failures = 1 if self._received > before else failures + 1
                if self._validator is None or failures > _RETRIES:
                    raise interrupted.error from interrupted
            await asyncio.sleep(retry_delay * 2 ** (failures - 1))

    async def _attempt(self) -> int:
        """Download from where the last attempt ended."""
        try:
            async with await self._response() as response:
                if self._validator is None:
                    self._begin(response)
                else:
                    self._resume(response)
                await self._pump(response)
        except TimeoutError as error:
            raise _Interrupted(
                DownloadFailed(f"{self._shown} sent nothing for {self._stall_timeout:g} seconds")
            ) from error
        except (aiohttp.ClientError, ssl.SSLError) as error:
            raise _Interrupted(
                DownloadFailed(f"{self._shown} could not be downloaded: {_reason(error)}")
            ) from error
        return self._received

    async def _response(self) -> aiohttp.ClientResponse:
        """Follow redirects, to http and https alone."""
        url = self._url
        validator = self._validator
        headers = resume.request_headers(self._received, validator) if validator else None
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._session.get(url, headers=headers, allow_redirects=False)
            if response.status not in _REDIRECTS:
                return response
            response.release()
            url = urls.redirected(url, response.headers.get("Location", ""))
        raise DownloadFailed(f"{self._shown}: more than {_MAX_REDIRECTS} redirects")

    def _begin(self, response: aiohttp.ClientResponse) -> None:
        shown = urls.shown(str(response.url))
        if response.status != 200:
            raise DownloadFailed(f"{shown}: {_answer(response)}")
        _check_encoding(response, shown)
        self._length = response.content_length
        self._validator = resume.validator(response.headers)
        self._started(self._length)

    def _resume(self, response: aiohttp.ClientResponse) -> None:
        """DownloadFailed: what comes is not the rest of the same body."""
        broken = f"{self._shown} broke off after {self._received} bytes, and then"
        if response.status in _PASSING:
            raise _Interrupted(DownloadFailed(f"{broken} {_answer(response)}"))
        if response.status == 200:
            raise DownloadFailed(f"{broken} the server had something else, or could not resume")
        if response.status != 206:
            raise DownloadFailed(f"{broken} {_answer(response)}")
        _check_encoding(response, self._shown)
        content_range = response.headers.get("Content-Range", "")
        resume.check_range(content_range, self._received, self._length)

    async def _pump(self, response: aiohttp.ClientResponse) -> None:
        try:
            async for chunk in response.content.iter_any():
                if self._length is not None and self._received + len(chunk) > self._length:
                    raise DownloadFailed(f"{self._shown} sent more than {self._length} bytes")
                await pipe.write(self._pipe, chunk)
                self._received += len(chunk)
        except (aiohttp.ClientPayloadError, aiohttp.ClientOSError) as error:
            raise _Interrupted(self._cut()) from error
        if self._length is not None and self._received != self._length:
            raise _Interrupted(self._cut())

    def _cut(self) -> Truncated:
        of = "" if self._length is None else f" of {self._length}"
        return Truncated(f"{self._shown}: the connection ended after {self._received}{of} bytes")

    @property
    def _stall_timeout(self) -> float:
        return self._session.timeout.sock_read or 0


def _answer(response: aiohttp.ClientResponse) -> str:
    return f"the server answered {response.status} {response.reason}"


def _check_encoding(response: aiohttp.ClientResponse, shown: str) -> None:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise DownloadFailed(f"{shown}: the server sent it encoded ({encoding}), unasked")


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({error.certificate_error})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {error.host}:{error.port} ({error.strerror or error.os_error})"
    return str(error) or type(error).__name__


def warm_up() -> None:
    """Load now what would be loaded lazily, where the sandbox lets nothing be loaded."""
    "example.org".encode("idna")
    ssl.create_default_context()
