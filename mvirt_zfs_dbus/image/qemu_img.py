"""Letting qemu-img read an image, from the converter: the image and the disk are served to it.

The daemon starts the process (``program.py`` is what it is), kills it with the converter, and tells
how it ended. What it prints is read here, and believed as little as the image itself.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, Final, Protocol

from ..errors import CorruptImage, Error, UnsafeImage, UnsupportedImage, from_name
from . import channel, nbd, program, protocol
from .meter import Meter
from .pool import Pool
from .source import Seekable
from .writer import Target

INSPECT_TIMEOUT: Final = 30.0
"""Seconds for opening an image; the source being there already, it takes some milliseconds."""
_LEAST_SECONDS: Final = 600
_BYTES_A_SECOND: Final = 4 << 20
"""What a conversion may take of CPU time: ten minutes, and as long as a slow machine unpacks."""
_MOST_OUTPUT: Final = 1 << 20
_LONGEST_SAID: Final = 600
_PROGRESS: Final = re.compile(rb"\((\d{1,3}\.\d\d)/100%\)")
_PREFIX: Final = re.compile(r"^qemu-img: (Could not open '.*': )?", re.MULTILINE)
_UNSUPPORTED: Final = re.compile(r"not supported|unsupported|encrypt", re.IGNORECASE)

Order = Callable[[], protocol.Message]


class Daemon(Protocol):
    """What is asked of the daemon."""

    def start_program(self) -> socket.socket:
        """The control socket of a process that waits for one order."""

    def program_status(self) -> int:
        """The wait status of that process, once it is dead."""

    def open_memory(self) -> int: ...


def inspect(image_format: str, source: Seekable, daemon: Daemon, pool: Pool) -> int:
    """Let qemu-img open the image; the answer is the disk's bytes.

    UnsafeImage: it names another file. UnsupportedImage: it is encrypted or qemu-img does not read
    it, or is not there. CorruptImage. Error: qemu-img crashed, or took too long.
    """
    exports: list[nbd.Export] = [nbd.SourceExport(source)]
    run = _Run(image_format, daemon, pool, time.monotonic() + INSPECT_TIMEOUT)
    run.serve(protocol.Inspect(image_format), exports, lambda _: None)
    try:
        info = json.loads(run.output)
        size = info["virtual-size"]
        assert isinstance(size, int)
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
        raise Error("qemu-img did not say what the image is") from None
    _refuse(image_format, info)
    return size


def convert(
    image_format: str,
    source: Seekable,
    size: int,
    target: Target,
    daemon: Daemon,
    pool: Pool,
    meter: Meter,
) -> None:
    """Let qemu-img write the disk of ``size`` bytes; errors as above, and the target's own."""
    exports: list[nbd.Export] = [nbd.SourceExport(source), nbd.TargetExport(target, size)]
    seconds = _LEAST_SECONDS + (size + source.size) // _BYTES_A_SECOND
    run = _Run(image_format, daemon, pool, None)
    run.serve(
        protocol.Convert(image_format, target.is_zero, seconds), exports, _told(meter, source.size)
    )


def _told(meter: Meter, total: int) -> Callable[[bytes], None]:
    """What turns the percentages that are printed into bytes of the source."""
    done = 0

    def tell(output: bytes) -> None:
        nonlocal done
        if found := _PROGRESS.findall(output[-100:]):
            now = min(int(float(found[-1]) / 100 * total), total)
            meter.add(max(now - done, 0))
            done = max(now, done)

    return tell


def _refuse(image_format: str, info: dict[str, Any]) -> None:
    """What our own look at the image should have found; qemu-img has the last word."""
    others = {info.get("backing-filename"), info.get("full-backing-filename")} - {None}
    data = (info.get("format-specific") or {}).get("data") or {}
    if others or len(data.get("extents", ())) > 1:
        raise UnsafeImage("the image names other files, which are not read")
    if info.get("encrypted"):
        raise UnsupportedImage("the image is encrypted")
    if info.get("dirty-flag"):
        raise CorruptImage("the image was not closed: the machine it belongs to runs, or crashed")
    if info.get("format") != image_format:
        raise Error(f"qemu-img says the image is {info.get('format')!r}, not {image_format!r}")


class _Run:
    """One qemu-img process, from its order to its end."""

    def __init__(
        self, image_format: str, daemon: Daemon, pool: Pool, deadline: float | None
    ) -> None:
        self._format = image_format
        self._daemon = daemon
        self._pool = pool
        self._deadline = deadline
        self.output = b""
        """What it printed, up to a limit."""

    def serve(
        self, order: protocol.Message, exports: list[nbd.Export], heard: Callable[[bytes], None]
    ) -> None:
        """Give it the order and all it asks for. It has ended well when this returns.

        ``heard`` is told what it has printed so far, whenever it prints.
        """
        errors = self._daemon.open_memory()
        with ExitStack() as resources:
            output, sockets = self._begin(order, errors, len(exports), resources)
            clients = [
                nbd.Connection(sock, export, self._pool)
                for sock, export in zip(sockets, exports, strict=True)
            ]
            self._talk(output, dict(zip(sockets, clients, strict=True)), heard)
            self._pool.finish()
        status = self._daemon.program_status()
        for client in clients:
            if client.failure:  # what qemu-img says of it is an errno
                raise client.failure
        if status:
            raise self._failure(status, os.pread(errors, program.OUTPUT, 0))

    def _begin(
        self, order: protocol.Message, errors: int, disks: int, resources: ExitStack
    ) -> tuple[int, list[socket.socket]]:
        """Have the process run; the answer is the pipe of its output, and its disks' sockets."""
        control = resources.enter_context(self._daemon.start_program())
        reading, writing = os.pipe()
        resources.callback(os.close, reading)
        with ExitStack() as theirs:
            theirs.callback(os.close, writing)
            sockets = []
            fds = [writing, errors]
            for _ in range(disks):
                ours, other = socket.socketpair()
                resources.callback(_hang_up, ours, self._pool)
                theirs.enter_context(other)
                sockets.append(ours)
                fds.append(other.fileno())
            connection = channel.Connection(control)
            connection.send(order, fds)
        self._check_began(connection)
        return reading, sockets

    def _check_began(self, control: channel.Connection) -> None:
        """A control socket that closes is a program that runs; else the reason why not comes."""
        try:
            message, _ = control.receive()
        except EOFError:
            return
        if isinstance(message, protocol.Failure):
            raise from_name(message.name, message.message)
        if isinstance(message, protocol.Fault):
            raise Error(f"qemu-img could not be started: {message.text.strip().splitlines()[-1]}")
        raise Error(f"the process for qemu-img sent {message} out of turn")

    def _talk(
        self,
        output: int,
        clients: dict[socket.socket, nbd.Connection],
        heard: Callable[[bytes], None],
    ) -> None:
        """Serve its disks until it closes its output, which is when it ends."""
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            for sock in clients:
                selector.register(sock, selectors.EVENT_READ)
            while True:
                for key, _ in self._events(selector):
                    if key.fileobj == output:
                        data = os.read(output, 1 << 16)
                        if not data:
                            return
                        self.output = (self.output + data)[-_MOST_OUTPUT:]
                        heard(self.output)
                    elif not clients[key.fileobj].serve():  # type: ignore[index]
                        selector.unregister(key.fileobj)

    def _events(self, selector: selectors.BaseSelector) -> list[tuple[selectors.SelectorKey, int]]:
        """What it has to say. Error: it takes too long."""
        if self._deadline is not None:
            events = selector.select(max(self._deadline - time.monotonic(), 0))
            if not events:
                raise Error(f"qemu-img has not opened the image after {INSPECT_TIMEOUT:g} seconds")
            return events
        events = selector.select(nbd.TIMEOUT)
        if not events:
            self._pool.finish()  # a disk may be as slow as it is
            events = selector.select(nbd.TIMEOUT)
        if not events:
            raise Error(f"qemu-img has neither read nor written for {nbd.TIMEOUT:g} seconds")
        return events

    def _failure(self, status: int, errors: bytes) -> Error:
        """Why it ended otherwise than it should."""
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            text = signal.strsignal(number)
            return Error(
                f"qemu-img, which reads {self._format} images, was killed by signal {number}"
                f" ({text}); a broken image may do that"
            )
        said = _said(errors)
        if "Cannot allocate memory" in said:
            return Error(f"qemu-img needs too much memory for the image: {said}")
        kind = UnsupportedImage if _UNSUPPORTED.search(said) else CorruptImage
        return kind(f"qemu-img does not read the {self._format} image: {said}")


def _said(errors: bytes) -> str:
    """Its messages in one line, without the name of what it was given for a file."""
    text = _PREFIX.sub("", errors.decode("utf-8", "replace"))
    lines = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    return "; ".join(lines)[:_LONGEST_SAID] or "it does not say why"


def _hang_up(sock: socket.socket, pool: Pool) -> None:
    """Close a disk's socket; whoever still answers on it in a thread is done before."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    pool.finish()
    sock.close()
