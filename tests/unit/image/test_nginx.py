"""Downloads from a real nginx: restarted, changed, with TLS, redirects and passwords."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from ports import held_ports

from mvirt_zfs_dbus.errors import DownloadFailed
from mvirt_zfs_dbus.image.download import download

BODY = random.Random(8).randbytes(4 << 20)
Meanwhile = Callable[[], Awaitable[None]]

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
CONFIGURATION = """
daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log {folder}/access.log;
    log_format asked '$status $http_range $http_authorization';
    client_body_temp_path {folder}/temp; proxy_temp_path {folder}/temp;
    fastcgi_temp_path {folder}/temp; uwsgi_temp_path {folder}/temp; scgi_temp_path {folder}/temp;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {folder}/certificate;
        ssl_certificate_key {folder}/key;
        root {folder}/www;
        access_log {folder}/asked asked;
        location /private/ {{
            alias {folder}/www/; auth_basic images; auth_basic_user_file {folder}/users;
        }}
        location /moved/ {{ return 301 /private/image; }}
        location /to-tls/ {{ return 302 https://localhost:{tls_port}/private/image; }}
        location /packed/ {{ alias {folder}/www/; gzip on; gzip_types *; }}
        location /busy/ {{ return 503; }}
    }}
}}
"""


class Nginx:
    def __init__(self, folder: Path, port: int, tls_port: int) -> None:
        self.folder = folder
        self.image = folder / "www" / "image"
        self.port, self.tls_port = port, tls_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        root = "user root;" if os.geteuid() == 0 else ""  # else its workers are somebody else
        (self.folder / "nginx.conf").write_text(
            CONFIGURATION.format(
                folder=self.folder, port=self.port, tls_port=self.tls_port, user=root
            )
        )
        self._process = subprocess.Popen(
            ["nginx", "-c", self.folder / "nginx.conf", "-p", self.folder, "-e", "error.log"]
        )
        while True:  # nginx has no way to say that it listens
            assert self._process.poll() is None, (self.folder / "error.log").read_text()
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            await asyncio.sleep(0.01)

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process:
            self._process.send_signal(how)
            await asyncio.to_thread(self._process.wait)
            self._process = None

    async def asked(self) -> list[str]:
        """What each request got: status, range, authorization. Written after the answer."""
        await self.stop(signal.SIGQUIT)
        return (self.folder / "asked").read_text().splitlines()


@pytest.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[Nginx]:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "image").write_bytes(BODY)
    run = ("openssl", "req", "-x509", "-days", "2", "-nodes", *EC)
    ca = ("-subj", "/CN=Test CA", "-keyout", tmp_path / "ca.key", "-out", tmp_path / "ca")
    leaf = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    signed = ("-CA", tmp_path / "ca", "-CAkey", tmp_path / "ca.key")
    not_ca = ("-addext", "basicConstraints=critical,CA:FALSE")
    keys = ("-keyout", tmp_path / "key", "-out", tmp_path / "certificate")
    subprocess.run([*run, *ca], check=True, capture_output=True)
    subprocess.run([*run, *leaf, *signed, *not_ca, *keys], check=True, capture_output=True)
    # crypt(3) is not in every Python; openssl makes nginx's own kind.
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", "secret"], check=True, capture_output=True, text=True
    )
    (tmp_path / "users").write_text(f"me:{hashed.stdout}")
    with held_ports(2) as ports:
        server = Nginx(tmp_path, *ports)
        await server.start()
        yield server
        await server.stop()


@pytest.fixture
def large(nginx: Nginx) -> Iterator[bytes]:
    """The image, when it is too large to be on its way as a whole while nobody takes it.

    Where Linux lets buffers grow furthest, the two of a connection have 32 and 4 MiB (tcp(7)).
    """
    body = random.Random(9).randbytes(48 << 20)
    nginx.image.write_bytes(body)
    yield body
    nginx.image.unlink()


async def get(url: str, meanwhile: Meanwhile | None = None, after: int = 0) -> bytes:
    """``meanwhile`` happens once so many bytes are there, and until it is over none is taken."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    taking = asyncio.create_task(take(reading, meanwhile, after))
    try:
        await download(url, writing, lambda _: None, stall_timeout=30, retry_delay=0.05)
    finally:
        os.close(writing)
        body = await taking
    return body


async def take(reading: int, meanwhile: Meanwhile | None, after: int) -> bytes:
    with open(reading, "rb") as pipe:
        body = await asyncio.to_thread(pipe.read, after)
        if meanwhile:
            await meanwhile()
        return body + await asyncio.to_thread(pipe.read)


async def test_a_file_arrives_whole(nginx: Nginx) -> None:
    assert await get(f"{nginx.url}/image") == BODY


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_in_the_middle_costs_no_byte(
    nginx: Nginx, large: bytes, how: signal.Signals
) -> None:
    async def restart() -> None:
        workers = worker_of(nginx)
        await nginx.stop(how)
        if how is signal.SIGKILL:  # its workers would go on; before, it would make new ones
            for worker in workers:
                os.kill(worker, how)
        await nginx.start()

    assert await get(f"{nginx.url}/image", restart, after=1 << 20) == large
    assert (await nginx.asked())[-1].startswith("206 bytes=")


def worker_of(nginx: Nginx) -> list[int]:
    assert nginx._process
    pid = nginx._process.pid
    return [int(pid) for pid in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_a_file_replaced_in_the_middle_of_a_restart_is_noticed(
    nginx: Nginx, large: bytes
) -> None:
    async def replace() -> None:
        await nginx.stop()
        nginx.image.with_name("new").write_bytes(large[::-1])
        nginx.image.with_name("new").rename(nginx.image)
        os.utime(nginx.image, (0, 0))  # nginx's ETag is made of the time and the size
        await nginx.start()

    with pytest.raises(DownloadFailed, match="the server had another file"):
        await get(f"{nginx.url}/image", replace, after=1 << 20)


@pytest.mark.usefixtures("large")
async def test_a_file_that_shrinks_in_the_middle_is_noticed(nginx: Nginx) -> None:
    async def cut() -> None:
        os.truncate(nginx.image, 2 << 20)

    with pytest.raises(DownloadFailed, match=r"the server had another file|answered 416"):
        await get(f"{nginx.url}/image", cut, after=1 << 20)


async def test_the_systems_certificates_decide(
    nginx: Nginx, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"https://localhost:{nginx.tls_port}/image"
    with pytest.raises(DownloadFailed, match="its certificate is not trusted"):
        await get(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(nginx.folder / "ca"))
    assert await get(url) == BODY
    with pytest.raises(DownloadFailed, match="its certificate is not trusted"):
        await get(f"https://127.0.0.1:{nginx.tls_port}/image")  # it is localhost's


async def test_a_password_is_given_to_who_asks_for_it_and_follows_to_the_same_server(
    nginx: Nginx,
) -> None:
    with pytest.raises(DownloadFailed, match="answered 401 Unauthorized"):
        await get(f"{nginx.url}/private/image")
    with pytest.raises(DownloadFailed, match="answered 401 Unauthorized"):
        await get(f"http://me:wrong@127.0.0.1:{nginx.port}/private/image")
    assert await get(f"http://me:secret@127.0.0.1:{nginx.port}/moved/") == BODY


async def test_a_password_does_not_follow_to_another_server(
    nginx: Nginx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(nginx.folder / "ca"))
    with pytest.raises(DownloadFailed, match="answered 401 Unauthorized"):
        await get(f"http://me:secret@127.0.0.1:{nginx.port}/to-tls/")
    assert (await nginx.asked())[-1] == "401 - -"


async def test_nothing_is_packed_on_the_way(nginx: Nginx) -> None:
    nginx.image.write_bytes(bytes(1 << 20))
    assert await get(f"{nginx.url}/packed/image") == bytes(1 << 20)


async def test_a_server_that_stays_busy_is_given_up(nginx: Nginx) -> None:
    with pytest.raises(DownloadFailed, match="answered 503 Service Temporarily Unavailable"):
        await get(f"{nginx.url}/busy/")
    assert len(await nginx.asked()) == 6
