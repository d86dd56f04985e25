"""Imports through real worker processes, which never outlive their import."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import lzma
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from open_fds import open_fds

from mvirt_zfs_dbus.errors import (
    CorruptImage,
    DownloadFailed,
    Error,
    InvalidSize,
    NoSpace,
    Truncated,
    UnsupportedImage,
)
from mvirt_zfs_dbus.image import (
    FdSource,
    Progress,
    UrlSource,
    Workers,
    channel,
    children,
    forkserver,
    protocol,
)
from mvirt_zfs_dbus.model import Phase

from . import qemu
from .builder import Qcow2
from .layouts import Layout
from .test_download import BODY, Server, serving


@pytest.fixture
async def workers(monkeypatch):
    # A resolver that answers nothing is waited for, for 20 seconds and more.
    monkeypatch.setenv("RES_OPTIONS", "timeout:1 attempts:1")
    monkeypatch.setenv("LOCALDOMAIN", "")
    workers = Workers(stall_timeout=20)
    await workers.start()
    before = open_fds()
    yield workers
    assert len(open_fds()) == len(before) - (workers._server is None)
    assert descendants() == ({workers._server._process.pid} if workers._server else set())
    await workers.close()


def descendants(pid: int | None = None) -> set[int]:
    """All living processes below this one."""
    children = Path(f"/proc/{pid or os.getpid()}/task")
    found = set()
    for task in children.iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found |= {int(word) for word in (task / "children").read_text().split()}
    return found.union(*(descendants(child) for child in found))


@dataclass
class Import:
    """One import into a temporary file, with everything it asks for."""

    directory: Path
    workers: Workers
    size_limit: int = 1 << 40
    progress: list[Progress] = field(default_factory=list)
    resizes: list[int] = field(default_factory=list)

    spools: int = 0

    async def open_spool(self) -> int:
        self.spools += 1
        return os.open(self.directory, os.O_TMPFILE | os.O_RDWR, 0o600)

    async def resize(self, size: int) -> None:
        self.resizes.append(size)
        if size > self.size_limit:
            raise InvalidSize(f"{size} is over the limit")
        os.truncate(self.directory / "target", size)

    def begin(self, source: FdSource | UrlSource, image_format="auto", algorithm=None):
        return self.workers.convert(
            source,
            image_format=image_format,
            checksum_algorithm=algorithm,
            open_spool=self.open_spool,
            progress=self.progress.append,
        )

    async def write(self, conversion, size: int | None):
        with (self.directory / "target").open("w+b") as target:
            os.truncate(target.fileno(), size or 0)
            return await conversion.write(
                target.fileno(), target_size=size or 0, target_is_zero=True, resize=self.resize
            )

    async def run(self, source: FdSource | UrlSource, **options):
        async with self.begin(source, **options) as conversion:
            info = await conversion.probe()
            outcome = await self.write(conversion, info.virtual_size)
        return info, outcome

    @property
    def disk(self) -> bytes:
        return (self.directory / "target").read_bytes()


@pytest.fixture
def patient(monkeypatch):
    """A busy machine takes its time to bury what was killed."""
    monkeypatch.setattr(children, "_GRACE", 30)


@pytest.fixture
def task(tmp_path, workers):
    return Import(tmp_path, workers)


@contextlib.contextmanager
def opened(path: Path):
    fd = os.open(path, os.O_RDONLY)
    try:
        yield FdSource(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def endless():
    """A pipe that nobody writes to."""
    reading, writing = os.pipe()
    try:
        yield FdSource(reading), writing
    finally:
        os.close(reading)
        os.close(writing)


async def test_a_raw_file_is_imported(task, tmp_path):
    image = random.Random(3).randbytes(3_000_001)
    (tmp_path / "image").write_bytes(image)
    with opened(tmp_path / "image") as source:
        info, outcome = await task.run(source, algorithm="sha256")
    assert (info.format, info.virtual_size, info.allocated) == ("raw", len(image), len(image))
    assert outcome.size == len(image)
    assert outcome.digest == hashlib.sha256(image).hexdigest()
    assert task.disk == image
    assert task.progress[-1] == Progress(Phase.WRITING, len(image), len(image))


async def test_a_qcow2_file_is_imported(task, tmp_path):
    (tmp_path / "disk").write_bytes(BODY)
    for compressed in ([], ["-c"], ["-c", "-o", "compression_type=zstd"]):
        path = tmp_path / "image"
        qemu.run("qemu-img", "convert", "-O", "qcow2", *compressed, tmp_path / "disk", path)
        with opened(path) as source:
            info, outcome = await task.run(source)
        assert (info.format, outcome.size) == ("qcow2", len(BODY))
        assert task.disk == BODY


async def test_a_pipe_of_unknown_length_is_imported(task):
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(BODY)

    feeding = asyncio.create_task(asyncio.to_thread(feed))
    try:
        info, outcome = await task.run(FdSource(reading))
    finally:
        os.close(reading)
    await feeding
    assert (info.virtual_size, outcome.size) == (None, len(BODY))
    assert task.disk == BODY
    assert task.resizes[-1] == len(BODY)


async def test_growth_that_is_refused_is_asked_for_less(task):
    task.size_limit = len(BODY)
    async with serving() as server:
        await task.run(UrlSource(f"{server.url}/chunked"))
    assert task.disk == BODY
    assert task.resizes[0] > len(BODY)


async def test_a_source_over_the_limit_is_refused_by_the_one_who_resizes(task):
    task.size_limit = len(BODY) - 1
    async with serving() as server:
        with pytest.raises(InvalidSize, match="over the limit"):
            await task.run(UrlSource(f"{server.url}/chunked"))


class Images(Server):
    layout = Layout(
        ["refcounts", *(f"data:{n}" for n in range(33)), "l2:0", "l1"],
        {n: f"data:{n}" for n in range(33)},
        size=33 << 21,
        cluster_bits=21,
    )
    qcow2 = Qcow2(size=BODY.__len__(), cluster_bits=16).data(3, BODY[:65536]).build()

    async def image(self, _: web.Request) -> web.Response:
        return web.Response(body=self.qcow2)

    async def packed(self, _: web.Request) -> web.Response:
        return web.Response(body=lzma.compress(self.qcow2))

    async def backwards(self, _: web.Request) -> web.Response:
        """More than is kept in memory, and then the tables."""
        return web.Response(body=self.layout.build())

    async def vmdk(self, request: web.Request) -> web.StreamResponse:
        """Something that is refused by its first bytes, and never ends."""
        response = web.StreamResponse(headers={"Content-Length": str(len(BODY))})
        await response.prepare(request)
        await response.write(b"KDMV".ljust(100_000, b"\0"))
        await asyncio.Event().wait()
        return response


@pytest.fixture
async def server():
    async with serving(Images()) as server:
        yield server


async def test_a_raw_download_is_imported(task, server):
    info, outcome = await task.run(UrlSource(f"{server.url}/body"), algorithm="sha512")
    assert info.virtual_size == outcome.size == len(BODY)
    assert outcome.digest == hashlib.sha512(BODY).hexdigest()
    assert task.disk == BODY
    assert task.progress[-1] == Progress(Phase.DOWNLOADING, len(BODY), len(BODY))


async def test_names_are_resolved_and_certificates_checked_inside_the_sandbox(task, server):
    url = server.url.replace("127.0.0.1", "localhost")
    await task.run(UrlSource(f"{url}/body"))
    assert task.disk == BODY
    with pytest.raises(DownloadFailed, match=r"no connection to no\.such\.host\.invalid:80"):
        await task.run(UrlSource("http://no.such.host.invalid/"))


async def test_a_qcow2_download_is_imported(task, server):
    info, _ = await task.run(UrlSource(f"{server.url}/image"), algorithm="sha256")
    assert (info.format, info.virtual_size) == ("qcow2", len(BODY))
    assert task.disk == bytes(3 * 65536) + BODY[:65536] + bytes(len(BODY) - 4 * 65536)
    assert {progress.phase for progress in task.progress} == {Phase.DOWNLOADING}


async def test_a_qcow2_download_with_its_tables_last_goes_through_the_spool(task, server):
    info, _ = await task.run(UrlSource(f"{server.url}/backwards"))
    assert info.virtual_size == server.layout.size
    assert task.disk == server.layout.disk()
    phases = [progress.phase for progress in task.progress]
    assert phases[0] is Phase.DOWNLOADING
    assert phases[-1] is Phase.CONVERTING
    assert task.spools == 1


async def test_a_packed_download_is_imported(task, server):
    info, _ = await task.run(UrlSource(f"{server.url}/packed"))
    assert (info.format, info.virtual_size) == ("qcow2", len(BODY))
    assert task.disk == bytes(3 * 65536) + BODY[:65536] + bytes(len(BODY) - 4 * 65536)
    assert task.spools == 0


@pytest.mark.parametrize("name", ["cut", "cut_chunked"])
async def test_a_download_cut_short_is_the_error_and_not_what_follows_from_it(task, server, name):
    with pytest.raises(Truncated, match=f"{name}: the connection ended after"):
        await task.run(UrlSource(f"{server.url}/{name}"))


async def test_a_download_that_is_refused_fails_the_probe(task, server):
    async with task.begin(UrlSource(f"{server.url}/gone")) as conversion:
        with pytest.raises(DownloadFailed, match="404 Not Found"):
            await conversion.probe()


async def test_a_refused_image_does_not_wait_for_its_download(task, server):
    async with task.begin(UrlSource(f"{server.url}/vmdk")) as conversion:
        with pytest.raises(UnsupportedImage, match="VMDK"):
            await conversion.probe()


@pytest.mark.usefixtures("patient")
async def test_a_downloader_that_dies_is_the_error(task, server):
    async with task.begin(UrlSource(f"{server.url}/silent")) as conversion:
        probing = asyncio.create_task(conversion.probe())
        await server.asked.wait()
        os.kill(conversion._downloader.pid, signal.SIGSEGV)
        with pytest.raises(Error, match="downloader process was killed by signal 11"):
            await probing


@pytest.mark.usefixtures("patient")
async def test_a_converter_that_dies_is_one_failed_import(task):
    with endless() as (source, _):
        async with task.begin(source) as conversion:
            probing = asyncio.create_task(conversion.probe())
            await asyncio.sleep(0)
            os.kill(conversion._converter.pid, signal.SIGSEGV)
            with pytest.raises(Error, match="converter process was killed by signal 11") as caught:
                await probing
            assert type(caught.value) is Error


@pytest.mark.usefixtures("patient")
async def test_a_converter_that_died_before_it_was_asked_is_found_out(task, tmp_path):
    (tmp_path / "image").write_bytes(b"x" * 1000)
    with opened(tmp_path / "image") as source:
        async with task.begin(source) as conversion:
            await conversion.probe()
            conversion._converter.kill()
            await conversion._converter._dead()
            with pytest.raises(Error, match="killed by signal 9"):
                await task.write(conversion, 1000)


async def test_cancelling_while_a_source_is_probed_kills_the_worker(task):
    with endless() as (source, _):
        entered = asyncio.Event()

        async def probe() -> None:
            async with task.begin(source) as conversion:
                entered.set()
                await conversion.probe()

        await cancelled(asyncio.create_task(probe()), entered)


async def test_cancelling_while_a_disk_is_written_kills_the_workers(task, server):
    writing = asyncio.Event()

    async def run() -> None:
        async with task.begin(UrlSource(f"{server.url}/stall"), image_format="raw") as conversion:
            await conversion.probe()
            writing.set()
            await task.write(conversion, len(BODY))

    # The head of a stalled download never comes, so the probe is what waits here.
    running = asyncio.create_task(run())
    await server.asked.wait()
    writing.set()
    await cancelled(running, writing)


async def test_cancelling_while_a_pipe_is_written_kills_the_worker(task):
    with endless() as (source, pipe):
        writing = asyncio.Event()

        async def run() -> None:
            async with task.begin(source) as conversion:
                await conversion.probe()
                writing.set()
                await task.write(conversion, None)

        running = asyncio.create_task(run())
        os.write(pipe, b"x" * 65536)
        await cancelled(running, writing)


async def cancelled(running: asyncio.Task[None], when: asyncio.Event) -> None:
    await when.wait()
    assert len(descendants()) >= 2
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(descendants()) == 1


async def test_a_second_cancellation_does_not_leave_a_worker_behind(task):
    with endless() as (source, _):
        entered = asyncio.Event()

        async def probe() -> None:
            async with task.begin(source) as conversion:
                entered.set()
                await conversion.probe()

        running = asyncio.create_task(probe())
        await entered.wait()
        running.cancel()
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len(descendants()) == 1


async def test_an_import_that_is_left_undone_leaves_no_worker(task, tmp_path):
    (tmp_path / "image").write_bytes(b"x" * 1000)
    with opened(tmp_path / "image") as source:
        async with task.begin(source):
            assert len(descendants()) == 2
        assert len(descendants()) == 1


async def test_errors_of_the_caller_come_through(task, server):
    async def full() -> int:
        raise NoSpace("no room for the spool")

    task.open_spool = full
    with pytest.raises(NoSpace, match="no room for the spool"):
        await task.run(UrlSource(f"{server.url}/backwards"))


async def test_a_broken_image_is_its_own_error(task, tmp_path):
    (tmp_path / "image").write_bytes(Qcow2(incompatible=2).build())
    with opened(tmp_path / "image") as source, pytest.raises(CorruptImage, match="marked corrupt"):
        await task.run(source)


async def test_many_imports_run_at_once(task, tmp_path, workers):
    async def one(number: int) -> None:
        directory = tmp_path / str(number)
        directory.mkdir()
        own = Import(directory, workers)
        image = bytes([number]) * 100_000
        (directory / "image").write_bytes(image)
        with opened(directory / "image") as source:
            await own.run(source)
        assert own.disk == image

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(one(number))


async def test_a_fork_server_that_died_is_started_again(task, tmp_path, workers):
    (tmp_path / "image").write_bytes(b"x" * 1000)
    with endless() as (source, _):
        async with task.begin(source) as conversion:
            workers._server._process.kill()
            with pytest.raises(Error, match="gone, and so is what it was forked from"):
                await conversion.probe()
    with opened(tmp_path / "image") as source:
        await task.run(source)
    assert task.disk == b"x" * 1000


async def test_closing_kills_what_is_left(task):
    with endless() as (source, _):
        async with task.begin(source) as conversion:
            probing = asyncio.create_task(conversion.probe())
            await task.workers.close()
            with pytest.raises(Error):
                await probing
            assert descendants() == set()


async def test_a_worker_that_does_not_start_is_an_error(monkeypatch):
    monkeypatch.setattr(children.sys, "executable", "/bin/false")
    with pytest.raises(Error, match="did not start"):
        await Workers().start()


async def test_a_worker_that_takes_too_long_to_start_is_an_error(monkeypatch):
    monkeypatch.setattr(children, "START_TIMEOUT", 0.05)
    monkeypatch.setattr(children, "_STOP_TIMEOUT", 0.05)

    def silent(fd: int):
        return subprocess.Popen(["sleep", "infinity"], pass_fds=[fd])

    monkeypatch.setattr(children, "_spawn", silent)
    with pytest.raises(Error, match="did not start"):
        await Workers().start()
    assert descendants() == set()


async def test_workers_have_no_file_descriptor_of_the_daemon(task, tmp_path):
    (tmp_path / "image").write_bytes(b"x")
    with opened(tmp_path / "image") as source, (tmp_path / "image").open() as secret:
        os.set_inheritable(secret.fileno(), True)
        async with task.begin(source) as conversion:
            await conversion.probe()
            pid = conversion._converter.pid
            fds = {fd.name: str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    assert [fds.pop(standard) for standard in "012"] == ["/dev/null"] * 3
    assert sorted(target.split(":")[0] for target in fds.values()) == [
        str(tmp_path / "image"),
        "socket",
    ]


@pytest.mark.parametrize(
    "frame",
    [
        b"garbage",
        b"{" * (protocol.MAX_FRAME + 1),
        b"",
        protocol.encode(protocol.Ready()),
        protocol.encode(protocol.Fault("a traceback\n\x1b[2J\ud800")),
        protocol.encode(protocol.Report("dancing", 1, 1)),
        protocol.encode(protocol.Resize(1, 1)),
    ],
    ids=["garbage", "too long", "empty", "out of turn", "a fault", "no phase", "too early"],
)
async def test_a_converter_that_talks_nonsense_is_one_failed_import(task, tmp_path, frame):
    """A double: a socket in place of the converter's own, for the real one talks no nonsense."""
    (tmp_path / "image").write_bytes(b"x")
    with opened(tmp_path / "image") as source:
        async with task.begin(source) as conversion:
            ours, theirs = channel.pair()
            own, conversion._converter.control = (
                conversion._converter.control,
                channel.AsyncConnection(ours),
            )
            own.close()
            with theirs:
                theirs.send(frame)
                with pytest.raises(Error) as caught:
                    await conversion.probe()
                assert type(caught.value) is Error


def test_a_worker_that_fails_tells_the_daemon_what_of():
    ours, theirs = channel.pair()
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        forkserver.ROLES = {"faulty": lambda control, parent: 1 / 0}
        forkserver._become("faulty", theirs.fileno(), parent)
    with ours:
        theirs.close()
        message, _ = channel.receive(ours)
    assert isinstance(message, protocol.Fault)
    assert "ZeroDivisionError" in message.text
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


WITHOUT_CAP_KILL = """
import asyncio, os
from mvirt_zfs_dbus.image import FdSource, Workers

async def main():
    workers = Workers()
    reader, writer = os.pipe()
    async with workers.convert(
        FdSource(reader), image_format="auto", checksum_algorithm=None,
        open_spool=None, progress=print,
    ) as conversion:
        pid = conversion._converter.pid
        probing = asyncio.create_task(conversion.probe())
        while os.stat(f"/proc/{pid}").st_uid == 0:
            await asyncio.sleep(0.01)
        try:
            os.kill(pid, 9)
        except PermissionError:
            print("may not kill")
        probing.cancel()
    print("gone" if not os.path.exists(f"/proc/{pid}") else "alive")
    await workers.close()

asyncio.run(main())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root's workers are another user's processes")
def test_a_daemon_without_cap_kill_still_ends_its_workers():
    ended = subprocess.run(
        ["setpriv", "--bounding-set=-kill", sys.executable, "-c", WITHOUT_CAP_KILL],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout.split("\n")[:2] == ["may not kill", "gone"], ended.stderr


async def test_a_worker_that_dies_as_the_daemon_lets_go_of_it_leaves_its_fork_server_alone(workers):
    """The fork server sees both at once, as it does when many jobs end on a busy machine."""
    server = workers._server
    child = await server.fork("converter")
    os.kill(server._process.pid, signal.SIGSTOP)
    child.kill()
    with open(f"/proc/{child.pid}/stat") as status:  # noqa: PTH123
        while status.seek(0) or status.read().split()[2] != "Z":  # noqa: ASYNC110
            await asyncio.sleep(0)  # /proc tells nobody when it changes
    child._fate.finish_sending()
    os.kill(server._process.pid, signal.SIGCONT)
    async with child:
        await child.fate()
    async with await server.fork("converter"):
        assert server.running
