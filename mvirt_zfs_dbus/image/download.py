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
from yarl import URL

from .. import __version__
from ..errors import DownloadFailed, Error, Truncated
from . import protocol

_READ_BUFFER: Final = 1 << 20
"""With aiohttp's own 64 KiB a download takes five times as long."""
_MAX_REDIRECTS: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {
    "Accept-Encoding": "identity",
    "User-Agent": f"mvirt-zfs-dbus/{__version__}",
}


def serve(control: protocol.Connection, ready: Callable[[], None] = lambda: None) -> None:
    """Download one URL into one pipe. ``ready`` is called when every thread exists.

    Errors are told to the daemon before the pipe is closed, so whoever sees the pipe's end early
    finds the reason already there.
    """
    request, (pipe,) = control.expect(protocol.Fetch)
    loop = asyncio.new_event_loop()  # asyncio.run() would end with starting a thread
    with ThreadPoolExecutor(1) as resolver, contextlib.closing(loop):
        resolver.submit(int).result()
        loop.set_default_executor(resolver)
        ready()
        try:
            loop.run_until_complete(_serve(control, request, pipe))
        except BrokenPipeError:
            control.send(protocol.Unwanted())
        except Error as error:
            control.send(protocol.Failure(error.name, error.message))
        finally:
            os.close(pipe)


async def _serve(
    control: protocol.Connection,
    request: protocol.Fetch,
    pipe: int,
) -> None:
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(
        download(
            request.url,
            pipe,
            lambda length: control.send(protocol.Response(length)),
            stall_timeout=request.stall_timeout / 1000,
        )
    )
    # The writing end of a pipe becomes readable (POLLERR) when its reader goes: poll(2).
    loop.add_reader(pipe, work.cancel)
    try:
        control.send(protocol.Fetched(await work))
    except asyncio.CancelledError as error:
        raise BrokenPipeError from error
    finally:
        loop.remove_reader(pipe)


async def download(
    url: str, pipe: int, started: Callable[[int | None], None], *, stall_timeout: float
) -> int:
    """Write the body of ``url`` into a non-blocking pipe, and return its bytes.

    ``started`` is told the body's length when the answer begins. DownloadFailed: the server could
    not be reached, said no, or stopped sending. Truncated: the body ended early. BrokenPipeError:
    the pipe's reader is gone.
    """
    # aiohttp takes its time-outs as they are: none for the whole, one for each wait.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=stall_timeout, sock_read=stall_timeout)
    try:
        first = URL(url)
    except ValueError as error:
        raise DownloadFailed(f"the source is no URL: {error}") from error
    shown = _shown(first)
    try:
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
            response = await _final_response(session, first)
            async with response:
                length = _checked_length(response)
                started(length)
                return await _pump(response, pipe, length)
    except TimeoutError as error:
        raise DownloadFailed(f"{shown} sent nothing for {stall_timeout:g} seconds") from error
    except (aiohttp.ClientError, ssl.SSLError) as error:
        raise DownloadFailed(f"{shown} could not be downloaded: {_reason(error)}") from error


async def _final_response(session: aiohttp.ClientSession, url: URL) -> aiohttp.ClientResponse:
    """Follow redirects, to http and https alone."""
    for _ in range(_MAX_REDIRECTS + 1):
        response = await session.get(url, allow_redirects=False)
        if response.status not in _REDIRECTS:
            return response
        location = response.headers.get("Location", "")
        response.release()
        url = _redirected(url, location)
    raise DownloadFailed(f"{_shown(url)}: more than {_MAX_REDIRECTS} redirects")


def _redirected(url: URL, location: str) -> URL:
    try:
        target = url.join(URL(location))
    except ValueError:
        target = URL()
    if not location or target.scheme not in ("http", "https") or not target.host:
        raise DownloadFailed(
            f"{_shown(url)} redirects to {location[:200]!r}; only http and https are followed"
        )
    if target.origin() == url.origin() and target.user is None:
        return target.with_user(url.user).with_password(url.password)
    return target


def _checked_length(response: aiohttp.ClientResponse) -> int | None:
    """The body's bytes, where the server says. DownloadFailed: there is no body to be had."""
    shown = _shown(response.url)
    if response.status != 200:
        raise DownloadFailed(f"{shown}: the server answered {response.status} {response.reason}")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise DownloadFailed(f"{shown}: the server sent it encoded ({encoding}), unasked")
    return response.content_length


async def _pump(response: aiohttp.ClientResponse, pipe: int, length: int | None) -> int:
    received = 0
    try:
        async for chunk in response.content.iter_any():
            await _write(pipe, chunk)
            received += len(chunk)
    except (aiohttp.ClientPayloadError, aiohttp.ClientOSError) as error:
        raise Truncated(_cut(response, received, length)) from error
    if length is not None and received != length:
        raise Truncated(_cut(response, received, length))
    return received


def _cut(response: aiohttp.ClientResponse, received: int, length: int | None) -> str:
    of = "" if length is None else f" of {length}"
    return f"{_shown(response.url)}: the connection ended after {received}{of} bytes"


async def _write(pipe: int, data: bytes) -> None:
    """All of it into the non-blocking pipe."""
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


def _shown(url: URL) -> str:
    """A URL as messages quote it: user, password, query and fragment may be secrets."""
    if not url.host:
        return str(url.with_query(None))[:200]
    return str(url.with_user(None).with_query(None).with_fragment(None))


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {error.host}:{error.port} ({error.strerror or error.os_error})"
    return str(error) or type(error).__name__


def warm_up() -> None:
    """Load now what would be loaded lazily, where the sandbox lets nothing be loaded."""
    "example.org".encode("idna")
    ssl.create_default_context()
