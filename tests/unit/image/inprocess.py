"""The converter without its process: the same code, driven over a socket from this one."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from mvirt_zfs_dbus.errors import from_name
from mvirt_zfs_dbus.image import channel, program, protocol
from mvirt_zfs_dbus.image.convert import serve
from mvirt_zfs_dbus.image.pool import Pool


@dataclass
class Result:
    info: protocol.Image | None = None
    done: protocol.Done | None = None
    reports: list[protocol.Report] = field(default_factory=list)
    resizes: list[tuple[int, int]] = field(default_factory=list)
    spools: int = 0
    disk: bytes = b""
    allocated: int = 0
    """Bytes the target takes in its file system."""


def import_fd(
    fd: int,
    *,
    image_format: str = "auto",
    algorithm: str | None = None,
    length: int | None = None,
    target: bytes | None = None,
    extra: int = 0,
    pool: Pool | None = None,
    disk: int | None = None,
) -> Result:
    """Import into a temporary file, or ``disk``. Raises what the converter says is wrong.

    ``target``: what the disk holds before, which is then not known to be zero.
    """
    ours, theirs = channel.pair()
    ours.settimeout(60)
    own_pool = pool or Pool(2)

    def run() -> None:
        with theirs:
            try:
                serve(channel.Connection(theirs), own_pool)
            except (EOFError, OSError):
                return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with ours, tempfile.TemporaryFile() as file:
            channel.send(ours, protocol.Open(image_format, algorithm, length), [fd])
            return _drive(ours, file.fileno() if disk is None else disk, target, extra)
    finally:
        thread.join()
        if not pool:
            own_pool.close()


def _drive(control, disk: int, before: bytes | None, extra: int) -> Result:
    result = Result()
    programs: list[Program] = []
    while result.done is None:
        message, _ = channel.receive(control)
        match message:
            case protocol.Image():
                result.info = message
                size = (message.virtual_size or 0) + extra
                _resize(disk, size)
                if before is not None:
                    os.pwrite(disk, before[:size].ljust(size, before[-1:]), 0)
                channel.send(control, protocol.Write(size, before is None), [disk])
            case protocol.Report():
                result.reports.append(message)
            case protocol.Resize(size, least):
                result.resizes.append((size, least))
                _resize(disk, size)
                channel.send(control, protocol.Resized(size))
            case protocol.NeedSpool():
                result.spools += 1
                with tempfile.TemporaryFile() as spool:
                    channel.send(control, protocol.Spool(), [spool.fileno()])
            case protocol.NeedProgram():
                programs.append(Program())
                with programs[-1].theirs as theirs:
                    channel.send(control, protocol.Program(), [theirs.fileno()])
            case protocol.AwaitProgram():
                channel.send(control, protocol.Exited(programs[-1].status()))
            case protocol.Done():
                result.done = message
            case protocol.Failure(name, text):
                raise from_name(name, text)
            case _:
                raise AssertionError(message)
    result.disk = os.pread(disk, os.fstat(disk).st_size, 0)
    result.allocated = os.fstat(disk).st_blocks * 512
    return result


def _resize(disk: int, size: int) -> None:
    if stat.S_ISREG(os.fstat(disk).st_mode):
        os.truncate(disk, size)


class Program:
    """The real qemu-img with its real command line, without its sandbox."""

    def __init__(self) -> None:
        self._ours, self.theirs = channel.pair()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._ours:
            order, fds = channel.receive(self._ours)
            output, errors, *disks = fds
            self._process = subprocess.Popen(
                program.command(order, disks), stdout=output, stderr=errors, pass_fds=disks, env={},
                executable="/usr/bin/qemu-img",
            )  # fmt: skip
            for fd in fds:
                os.close(fd)

    def status(self) -> int:
        """As wait(2) tells it."""
        self._thread.join()
        assert self._process
        code = self._process.wait()
        return code << 8 if code >= 0 else -code


def import_file(path: Path, **options) -> Result:
    fd = os.open(path, os.O_RDONLY)
    try:
        return import_fd(fd, **options)
    finally:
        os.close(fd)


def import_bytes(image: bytes, **options) -> Result:
    with tempfile.TemporaryFile() as file:
        file.write(image)
        file.flush()
        return import_fd(file.fileno(), **options)


def import_pipe(image: bytes, **options) -> Result:
    """As a pipe gives it: once and in order."""
    reading, writing = os.pipe()

    def feed() -> None:
        try:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(image)
        except BrokenPipeError:
            return

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        return import_fd(reading, **options)
    finally:
        os.close(reading)
        thread.join()
