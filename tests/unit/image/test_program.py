"""qemu-img in its sandbox: what it cannot do, and how it ends."""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from mvirt_zfs_dbus.errors import CorruptImage, Error, Truncated, UnsupportedImage
from mvirt_zfs_dbus.image import channel, nbd, program, protocol, qemu_img, sandbox
from mvirt_zfs_dbus.image.meter import Meter
from mvirt_zfs_dbus.image.pool import Pool
from mvirt_zfs_dbus.image.source import Seekable
from mvirt_zfs_dbus.image.writer import Target
from mvirt_zfs_dbus.model import Phase

from . import qemu
from .test_foreign import convert

confined = pytest.mark.skipif(not sandbox.landlock_abi(), reason="a kernel without Landlock")
pytestmark = confined

START = """
import os, socket, sys
from mvirt_zfs_dbus.image import program
control = socket.socket(fileno=int(sys.argv[1]))
control.set_inheritable(False)
program.become(control, os.getppid())
"""


class Daemon:
    """Starts the real process in its real sandbox, as the fork server does."""

    def __init__(self, **environment: str) -> None:
        self.environment = os.environ | environment
        self.process: subprocess.Popen[bytes] | None = None
        self._files: list[int] = []

    def open_memory(self) -> int:
        self._files.append(os.memfd_create("test"))
        return self._files[-1]

    def start_program(self) -> socket.socket:
        ours, theirs = channel.pair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=self.environment,
            )
        return ours

    def program_status(self) -> int:
        assert self.process
        code = self.process.wait(30)
        return code << 8 if code >= 0 else -code

    def signal(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)

    def close(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
        for fd in self._files:
            os.close(fd)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    daemon.close()


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(2)
    yield pool
    pool.close()


@pytest.fixture
def image(tmp_path) -> Path:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(os.urandom(3 << 20))
    return convert(raw, "vdi", "static=off")


def opened(path: Path) -> Seekable:
    return Seekable(os.open(path, os.O_RDONLY), path.stat().st_size)


@pytest.fixture
def source(image) -> Iterator[Seekable]:
    source = opened(image)
    yield source
    os.close(source.fd)


# What it cannot do


def inside(attempt: Callable[[], object]) -> object:
    """What ``attempt`` returns in a process shut in as qemu-img is; an error as its name."""
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            program._confine("/usr/bin/qemu-img", 60, parent)
            try:
                outcome = attempt()
            except Exception as error:
                outcome = type(error).__name__
            os.write(writing, json.dumps(outcome).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        outcome = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(outcome)


@pytest.mark.parametrize("path", ["/etc/shadow", "/etc/passwd", "/proc/self/environ", __file__])
def test_it_reads_no_file_of_the_host(path):
    assert inside(lambda: Path(path).read_bytes() and None) == "PermissionError"


def test_it_reads_itself_and_what_it_is_linked_with_for_else_it_would_not_run():
    assert inside(lambda: len(Path("/usr/bin/qemu-img").read_bytes()) > 1000) is True
    assert inside(lambda: Path("/usr/bin/qemu-nbd").read_bytes() and None) == "PermissionError"
    assert inside(lambda: [*Path("/usr/bin").iterdir()]) == "PermissionError"


def test_it_writes_no_file_and_makes_none(tmp_path):
    tmp_path.chmod(0o777)
    assert inside(lambda: (tmp_path / "x").write_text("x")) == "PermissionError"
    assert inside(lambda: Path("/dev/shm/x").write_text("x")) == "PermissionError"


def test_it_starts_no_process_and_no_other_program():
    assert inside(os.fork) == "PermissionError"
    assert inside(lambda: os.posix_spawn("/bin/true", ["true"], {})) == "PermissionError"
    assert inside(lambda: os.execv("/bin/sh", ["sh"])) == "PermissionError"


def test_it_has_its_threads():
    def attempt() -> int:
        threads = [threading.Thread(target=int) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(threads)

    assert inside(attempt) == 3


@pytest.mark.parametrize(
    "family", [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK]
)
def test_it_makes_no_socket(family):
    assert inside(lambda: socket.socket(family, socket.SOCK_DGRAM) and None) == "PermissionError"


def test_a_socket_it_was_handed_leads_nowhere_else():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.socket() as passed:
            assert inside(lambda: passed.connect(address)) == "PermissionError"


def test_it_touches_no_other_process():
    parent = os.getpid()
    assert inside(lambda: os.kill(parent, 0)) == "PermissionError"
    assert inside(lambda: signal.pidfd_send_signal(3, 0)) == "PermissionError"
    assert inside(lambda: os.pidfd_open(parent)) == "PermissionError"
    assert inside(lambda: os.sched_setaffinity(parent, {0})) == "PermissionError"


def test_it_can_abort_itself(image):
    """Of which the C library makes a signal to its own thread."""
    pid = os.fork()
    if not pid:
        faulthandler.disable()
        program._confine("/usr/bin/qemu-img", 60, os.getppid())
        os.abort()
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGABRT


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up being root")
def test_it_is_nobody():
    assert inside(lambda: [*os.getresuid(), *os.getresgid()]) == [sandbox.NOBODY] * 6


def test_it_takes_no_more_memory_than_it_may():
    assert inside(lambda: len(bytearray(program.MEMORY))) == "MemoryError"


def test_an_image_that_names_a_file_gets_nothing_of_it(tmp_path, daemon, pool):
    """Past our own refusal: a file that everybody may read."""
    descriptor = tmp_path / "x.vmdk"
    descriptor.write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        'createType="monolithicFlat"\nRW 1 FLAT "/etc/passwd" 0\n'
    )
    qemu.run("qemu-img", "info", "-f", "vmdk", descriptor)
    source = opened(descriptor)
    with pytest.raises(CorruptImage, match="Permission denied"):
        qemu_img.inspect("vmdk", source, daemon, pool)
    os.close(source.fd)


# How it ends


def test_it_tells_what_an_image_is(daemon, pool, source):
    assert qemu_img.inspect("vdi", source, daemon, pool) == 3 << 20


def test_an_image_it_does_not_read_is_told_in_its_words(daemon, pool, source):
    with pytest.raises(CorruptImage, match=r"^qemu-img does not read the vhdx image: [^/{}]*$"):
        qemu_img.inspect("vhdx", source, daemon, pool)


def test_a_format_that_is_not_ours_is_not_even_begun(daemon, pool, source):
    with pytest.raises(Error, match="not asked for images of the format 'raw'"):
        qemu_img.inspect("raw", source, daemon, pool)


def test_without_qemu_img_the_package_is_named(tmp_path, pool, source):
    daemon = Daemon(PATH=str(tmp_path))
    with pytest.raises(UnsupportedImage, match=r"vdi are read by qemu-img.*qemu-utils"):
        qemu_img.inspect("vdi", source, daemon, pool)
    daemon.close()


def test_a_qemu_img_that_cannot_be_run_says_so(tmp_path, pool, source):
    (tmp_path / "qemu-img").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "qemu-img").chmod(0o755)
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & 0o001:
            parent.chmod(0o755)
    daemon = Daemon(PATH=str(tmp_path))
    with pytest.raises(Error, match="cannot be run: Permission denied"):
        qemu_img.inspect("vdi", source, daemon, pool)
    daemon.close()


@pytest.mark.parametrize("module", ["sandbox", "seccomp"])
def test_where_it_cannot_be_confined_it_does_not_begin(module, pool, source, monkeypatch):
    """Doubles: a kernel without Landlock, and a host without libseccomp."""
    double = {
        "sandbox": "program.sandbox.landlock_abi = lambda: 0",
        "seccomp": "program.seccomp._LIBRARY = 'libabsent.so'",
    }[module]
    monkeypatch.setattr(
        f"{__name__}.START", START.replace("program.become", f"{double}\nprogram.become")
    )
    daemon = Daemon()
    with pytest.raises(UnsupportedImage, match="not let near an image without"):
        qemu_img.inspect("vdi", source, daemon, pool)
    daemon.close()


def conversion(daemon: Daemon, pool: Pool, source: Seekable, target: Target) -> None:
    meter = Meter(Phase.CONVERTING, source.size, lambda _: None)
    qemu_img.convert("vdi", source, 3 << 20, target, daemon, pool, meter)


class Stopping(Seekable):
    """A source that is read no further than ``end`` while somebody does something."""

    then: Callable[[], None]
    end = 1 << 20

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > self.end:
            self.then()
        return super().read(offset, length)


@pytest.fixture
def target(tmp_path) -> Iterator[Target]:
    with (tmp_path / "target").open("w+b") as file:
        file.truncate(3 << 20)
        yield Target(file.fileno(), 3 << 20, is_zero=True)


@pytest.mark.parametrize(
    ("number", "says"), [(signal.SIGSEGV, "signal 11 "), (signal.SIGXCPU, "signal 24 ")]
)
def test_a_crash_of_it_is_an_error_that_says_so(daemon, pool, source, target, number, says):
    stopping = Stopping(source.fd, source.size)
    stopping.then = partial(daemon.signal, number)
    with pytest.raises(
        Error, match=f"qemu-img, which reads vdi images, was killed by {says}"
    ) as caught:
        conversion(daemon, pool, stopping, target)
    assert type(caught.value) is Error


def test_a_source_that_fails_is_the_error_and_not_what_qemu_img_makes_of_it(
    daemon, pool, source, target
):
    stopping = Stopping(source.fd, source.size)

    def fail() -> None:
        raise Truncated("the source became shorter")

    stopping.then = fail
    with pytest.raises(Truncated, match="became shorter"):
        conversion(daemon, pool, stopping, target)


def test_one_that_does_not_go_on_is_given_up(daemon, pool, source, target, monkeypatch):
    monkeypatch.setattr(nbd, "TIMEOUT", 0.2)
    stopping = Stopping(source.fd, source.size)
    stopping.then = partial(daemon.signal, signal.SIGSTOP)
    with pytest.raises(Error, match="neither read nor written"):
        conversion(daemon, pool, stopping, target)


def test_one_that_does_not_open_its_image_is_given_up(daemon, pool, source, monkeypatch):
    monkeypatch.setattr(qemu_img, "INSPECT_TIMEOUT", 1.0)
    stopping = Stopping(source.fd, source.size)
    stopping.end = 0
    stopping.then = partial(daemon.signal, signal.SIGSTOP)
    with pytest.raises(Error, match="not opened the image after 1 seconds"):
        qemu_img.inspect("vdi", stopping, daemon, pool)


def test_it_ends_with_the_one_it_was_forked_from(source):
    """As a worker does: PR_SET_PDEATHSIG outlives execve(2)."""
    reading, writing = os.pipe()
    ours, theirs = channel.pair()
    middle = os.fork()
    if not middle:
        ours.close()
        if os.fork():
            os.close(writing)
            theirs.close()
            signal.pause()
        os.set_inheritable(writing, True)
        program.become(theirs, os.getppid())
        os._exit(1)
    os.close(writing)
    theirs.close()
    output, errors = os.pipe(), os.memfd_create("errors")
    image, other = socket.socketpair()
    channel.send(ours, protocol.Inspect("vdi"), [output[1], errors, other.fileno()])
    with pytest.raises(EOFError):
        channel.receive(ours)  # it is qemu-img now, and waits for its image
    os.kill(middle, signal.SIGKILL)
    os.waitpid(middle, 0)
    assert select.select([reading], [], [], 30)[0]
    assert os.read(reading, 1) == b""
    for fd in (reading, *output, errors):
        os.close(fd)
    for sock in (ours, image, other):
        sock.close()
