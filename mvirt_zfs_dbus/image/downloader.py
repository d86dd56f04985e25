"""The downloader process: a URL in, a pipe out, and what became of it.

It has the network and nothing else to lose; what it downloads it does not look at.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..errors import DownloadFailed, Error
from ..hosts import HostRules
from . import channel, protocol
from .download import download


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
        except MemoryError:
            message = "the server sent headers that take too much memory"
            control.send(protocol.Failure(DownloadFailed.name, message))
        except Error as error:
            control.send(protocol.Failure(error.name, error.message))
        finally:
            os.close(pipe_fd)


async def _serve(control: channel.Connection, request: protocol.Fetch, pipe_fd: int) -> None:
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(
        download(
            request.url,
            pipe_fd,
            lambda length: control.send(protocol.Response(length)),
            hosts=HostRules(request.allow, request.deny),
            stall_timeout=request.stall_timeout / 1000,
            checked_later=request.checked_later,
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


def warm_up() -> None:
    """Load now what would be loaded lazily, where the sandbox lets nothing be loaded."""
    "example.org".encode("idna")
    ssl.create_default_context()
