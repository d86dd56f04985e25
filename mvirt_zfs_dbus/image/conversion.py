"""One import as the daemon sees it: probe, then write. The work is done in worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ..errors import Error, InvalidSize, NoSpace, from_name
from ..hosts import HostRules
from ..model import Phase
from . import protocol
from .base import FdSource, ImageInfo, Outcome, Progress, Source, UrlSource
from .children import Child

_log = logging.getLogger(__name__)

_PIPE_SIZE: Final = 1 << 20
"""What an unprivileged process may ask for (pipe(7), pipe-max-size)."""
_VERDICT_TIMEOUT: Final = 2.0
"""Seconds for a downloader to notice that the converter has gone."""
_LONGEST_MESSAGE: Final = 2000
_MOST_PROGRAMS: Final = 2
"""An image is inspected once, and converted once."""

Answer = TypeVar("Answer", bound=protocol.Message)


class Conversion:
    """A source that is being brought in. :meth:`Workers.convert` makes one.

    :meth:`probe` is called once, then :meth:`write` once. Both raise ImportFailed errors, NoSpace,
    and Error for a worker that died, whose message names the signal; whatever ``open_spool`` and
    ``resize`` raise comes through.
    """

    def __init__(
        self,
        source: Source,
        converter: Child,
        downloader: Child | None,
        *,
        start_program: Callable[[], Awaitable[Child]],
        image_format: str,
        checksum_algorithm: str | None,
        stall_timeout: float,
        hosts: HostRules,
        open_spool: Callable[[], Awaitable[int]],
        progress: Callable[[Progress], None],
    ) -> None:
        self._source = source
        self._converter = converter
        self._downloader = downloader
        self._start_program = start_program
        self._programs: list[Child] = []
        self._image_format = image_format
        self._checksum_algorithm = checksum_algorithm
        self._stall_timeout = stall_timeout
        self._hosts = hosts
        self._open_spool = open_spool
        self._progress = progress

    async def probe(self) -> ImageInfo:
        """Find out what the source is; nothing is written."""
        if isinstance(self._source, FdSource):
            await self._open(self._source.fd, None)
        else:
            await self._open_download(self._source)
        image = await self._answer(protocol.Image, resize=_nothing_to_resize)
        return ImageInfo(image.format, image.virtual_size, image.allocated)

    async def write(
        self,
        target_fd: int,
        *,
        target_size: int,
        target_is_zero: bool,
        resize: Callable[[int], Awaitable[None]],
    ) -> Outcome:
        """Write the disk into ``target_fd`` (borrowed), and sync it.

        ``resize(size)`` is asked for while a source of unknown length is written, and once more
        with its exact size at the end; ``target_size`` may be anything then.
        """
        order = protocol.Write(target_size, target_is_zero)
        await _tell(self._converter, order, [target_fd])
        done = await self._answer(protocol.Done, resize=resize)
        if self._downloader:
            await self._check_download(self._downloader, done.received)
        return Outcome(done.size, done.digest and _for_people(done.digest))

    async def _open(self, fd: int, length: int | None) -> None:
        request = protocol.Open(self._image_format, self._checksum_algorithm, length)
        await _tell(self._converter, request, [fd])

    async def _open_download(self, source: UrlSource) -> None:
        """Let the downloader begin, and the converter read what it downloads."""
        assert self._downloader
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                _prepare_pipe(writing)
                request = protocol.Fetch(
                    source.url,
                    int(self._stall_timeout * 1000),
                    allow=self._hosts.allow,
                    deny=self._hosts.deny,
                    checked_later=self._checksum_algorithm is not None,
                )
                await _tell(self._downloader, request, [writing])
            finally:
                os.close(writing)
            await self._open(reading, await self._response(self._downloader))
        finally:
            os.close(reading)

    async def _response(self, downloader: Child) -> int | None:
        """The length of what is downloaded, once the server has answered."""
        try:
            message = await _received(downloader)
            if not isinstance(message, protocol.Response):
                raise _failure(message)
        except _WorkerFailed as failed:
            raise failed.error from None
        return message.length

    async def _answer(
        self, expected: type[Answer], *, resize: Callable[[int], Awaitable[None]]
    ) -> Answer:
        """What the converter has to say, its requests answered meanwhile."""
        try:
            while True:
                message = await _received(self._converter)
                if isinstance(message, expected):
                    return message
                await self._handle(message, resize)
                # A converter that floods us with messages must not take the loop for itself.
                await asyncio.sleep(0)
        except _WorkerFailed as failed:
            # A download that broke off looks like a broken image to the converter.
            raise await self._download_error() or failed.error from None

    async def _handle(
        self, message: protocol.Message, resize: Callable[[int], Awaitable[None]]
    ) -> None:
        match message:
            case protocol.Report(phase, done, total) if phase in _PHASES:
                self._progress(Progress(Phase(phase), done, total))
            case protocol.Resize(size, least):
                size = await _resize(resize, size, least)
                await _tell(self._converter, protocol.Resized(size), [])
            case protocol.NeedSpool():
                fd = await self._open_spool()
                try:
                    await _tell(self._converter, protocol.Spool(), [fd])
                finally:
                    os.close(fd)
            case protocol.NeedProgram() if len(self._programs) < _MOST_PROGRAMS:
                await self._pass_program()
            case protocol.AwaitProgram() if self._programs:
                status = await self._programs[-1].exit_status()
                await _tell(self._converter, protocol.Exited(status), [])
            case _:
                raise _failure(message)

    async def _pass_program(self) -> None:
        """Start a process that becomes qemu-img, and let the converter tell it what to do.

        It is the daemon's child still: it ends with the conversion.
        """
        program = await self._start_program()
        self._programs.append(program)
        try:
            await _tell(self._converter, protocol.Program(), [program.control.fileno()])
        finally:
            program.control.close()

    async def _download_error(self) -> Error | None:
        """Why the download failed, if it did and that is why the converter did."""
        if not self._downloader:
            return None
        self._converter.kill()  # the pipe's reader is gone, so the downloader ends in any case
        try:
            async with asyncio.timeout(_VERDICT_TIMEOUT):
                message = await _received(self._downloader)
        except TimeoutError:
            return None
        except _WorkerFailed as failed:
            return failed.error
        if isinstance(message, protocol.Failure):
            return _failure(message).error
        return None

    async def _check_download(self, downloader: Child, received: int) -> None:
        """The end of the converter's input must have been the end of the download."""
        try:
            message = await _received(downloader)
            if not isinstance(message, protocol.Fetched):
                raise _failure(message)
        except _WorkerFailed as failed:
            raise failed.error from None
        if message.received != received:
            raise Error(f"{message.received} bytes were downloaded, {received} were converted")


class _WorkerFailed(Exception):
    """A worker's fault, kept apart from the errors of the daemon's own callbacks."""

    def __init__(self, error: Error) -> None:
        self.error = error


_PHASES: Final = frozenset(Phase)


def _failure(message: protocol.Message) -> _WorkerFailed:
    if isinstance(message, protocol.Failure):
        return _WorkerFailed(from_name(message.name, _for_people(message.message)))
    if isinstance(message, protocol.Fault):
        lines = map(_for_people, message.text.splitlines())
        _log.error("an import worker failed:\n    %s", "\n    ".join(lines))
        return _WorkerFailed(Error("a fault of an import worker; the service's log has it"))
    return _WorkerFailed(Error(f"an import worker sent {message} out of turn"))


def _for_people(text: str) -> str:
    """What a worker says, as it may be shown and kept: a server, an image, or whoever has taken the
    worker over may have put anything into it, as what terminals obey and what no bus carries."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in text[:_LONGEST_MESSAGE]
    )


async def _tell(child: Child, message: protocol.Message, fds: list[int]) -> None:
    """A worker that is dead has left its last words, or shows when it is listened to."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await child.control.send(message, fds)


async def _received(child: Child) -> protocol.Message:
    try:
        message, fds = await child.control.receive()
    except EOFError:
        raise _WorkerFailed(await child.fate()) from None
    except Error as error:
        raise _WorkerFailed(error) from None
    for fd in fds:  # no worker has one to give
        os.close(fd)
    return message


async def _resize(resize: Callable[[int], Awaitable[None]], size: int, least: int) -> int:
    """Make room ahead, or where that is refused, the room that is needed."""
    try:
        await resize(size)
    except (InvalidSize, NoSpace):
        if size == least:
            raise
        await resize(least)
        return least
    return size


async def _nothing_to_resize(_size: int) -> None:
    raise Error("an import worker asked to resize a disk that does not exist yet")


def _prepare_pipe(fd: int) -> None:
    """Non-blocking for the downloader, and large: a switch of processes for every MiB."""
    os.set_blocking(fd, False)
    with contextlib.suppress(PermissionError):  # pipe(7): pipe-user-pages-soft is used up
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
