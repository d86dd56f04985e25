"""What a worker process cannot do, tried inside one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mvirt_zfs_dbus.image import sandbox

landlock = pytest.mark.skipif(not sandbox.landlock_abi(), reason="a kernel without Landlock")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up being root")

Enter = Callable[[int], None]
both = pytest.mark.parametrize("enter", [sandbox.enter_converter, sandbox.enter_downloader])


def inside(enter: Enter, attempt: Callable[[], object]) -> object:
    """What ``attempt`` returns in a process that has entered the sandbox; an error as its name."""
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            enter(parent)
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


@landlock
@both
@pytest.mark.parametrize("path", ["/etc/shadow", "/proc/1/environ", "/root/.bashrc", __file__])
def test_no_worker_reads_what_is_none_of_its_business(enter, path):
    assert inside(enter, lambda: Path(path).read_bytes() and None) == "PermissionError"


@landlock
def test_the_converter_reads_no_file_at_all():
    assert inside(sandbox.enter_converter, Path("/etc/passwd").read_text) == "PermissionError"


def test_the_downloader_reads_what_resolves_names():
    assert inside(sandbox.enter_downloader, Path("/etc/passwd").read_text) == (
        Path("/etc/passwd").read_text()
    )


@landlock
@both
def test_no_worker_writes_a_file_or_makes_one(enter, tmp_path):
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    assert inside(enter, lambda: (tmp_path / "x").write_text("x")) == "PermissionError"
    assert inside(enter, lambda: (tmp_path / "d").mkdir()) == "PermissionError"


@both
def test_no_worker_starts_a_program(enter):
    def attempt() -> None:
        sandbox.forbid_processes()
        os.fork()

    assert inside(enter, attempt) == "BlockingIOError"


@both
def test_no_worker_starts_a_thread_once_it_has_its_own(enter):
    def attempt() -> None:
        sandbox.forbid_processes()
        threading.Thread(target=int).start()

    assert inside(enter, attempt) == "RuntimeError"


@landlock
def test_the_converter_reaches_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()

        def attempt() -> None:
            socket.create_connection(address, timeout=5).close()

        assert inside(sandbox.enter_converter, attempt) in ("PermissionError", "OSError")
        assert inside(sandbox.enter_downloader, attempt) is None


@as_root
@both
def test_no_worker_is_root(enter):
    ids = [[sandbox.NOBODY] * 3, [sandbox.NOBODY] * 3, []]
    assert inside(enter, lambda: [os.getresuid(), os.getresgid(), os.getgroups()]) == ids


@both
def test_no_worker_has_a_capability_or_can_get_one(enter):
    def attempt() -> dict[str, str]:
        return dict(line.split(":\t", 1) for line in status.read().splitlines())

    with Path("/proc/self/status").open() as own:
        assert "NoNewPrivs:\t0" in own.read()
    # Opened before, for inside there is no /proc.
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        status = Path("/proc/self/status").open()  # noqa: SIM115
        enter(os.getppid())
        os.write(writing, json.dumps(attempt()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = json.loads(pipe.read())
    os.waitpid(pid, 0)
    assert found["NoNewPrivs"] == "1"
    assert int(found["CapEff"], 16) == int(found["CapPrm"], 16) == 0


@both
def test_no_worker_takes_more_memory_than_it_may(enter):
    assert inside(enter, lambda: len(bytearray(sandbox.MEMORY))) == "MemoryError"


@both
def test_a_worker_of_a_dead_parent_does_not_begin(enter):
    def attempt() -> None:
        enter(1)

    assert inside(lambda _: None, attempt) == "ProcessLookupError"


def test_a_worker_dies_with_its_parent():
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        middle = os.getpid()
        if not os.fork():
            sandbox.enter_converter(middle)
            os.write(writing, b"ready")
            threading.Event().wait()
        threading.Event().wait()
    os.close(writing)
    assert os.read(reading, 5) == b"ready"
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert os.read(reading, 1) == b""
    os.close(reading)


CONVERTER = """
import os, socket, sys
from mvirt_zfs_dbus.image import channel, sandbox
from mvirt_zfs_dbus.image.convert import serve
from mvirt_zfs_dbus.image.pool import Pool

sandbox.enter_converter(os.getppid())
pool = Pool()
sandbox.forbid_processes()
serve(channel.Connection(socket.socket(fileno=int(sys.argv[1]))), pool)
"""


def test_a_conversion_works_in_there(tmp_path):
    """All that the converter imports lazily has been imported before."""
    from mvirt_zfs_dbus.image import channel, protocol

    (tmp_path / "disk").write_bytes(b"x" * 10000)
    ours, theirs = channel.pair()
    converter = subprocess.Popen(  # a process of its own: this one may be too large for its limits
        [sys.executable, "-c", CONVERTER, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env={name: value for name, value in os.environ.items() if "COVERAGE" not in name},
    )
    theirs.close()
    with ours, (tmp_path / "disk").open() as source, (tmp_path / "out").open("w+b") as target:
        channel.send(ours, protocol.Open("auto", "sha512", None), [source.fileno()])
        assert isinstance(channel.receive(ours)[0], protocol.Image)
        channel.send(ours, protocol.Write(10000, True), [target.fileno()])
        while isinstance(message := channel.receive(ours)[0], protocol.Report):
            pass
        assert isinstance(message, protocol.Done)
    assert converter.wait() == 0
    assert (tmp_path / "out").read_bytes() == b"x" * 10000


def test_without_landlock_the_rest_still_holds(monkeypatch):
    monkeypatch.setattr(sandbox, "landlock_abi", lambda: 0)
    assert inside(sandbox.enter_converter, Path("/etc/shadow").read_text) == "PermissionError"
