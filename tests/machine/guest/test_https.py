"""An import over HTTPS from a server whose certificate the administrator's own CA signed."""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import host
import pytest
from host import MIB

from mvirt_zfs_dbus.client import Client
from mvirt_zfs_dbus.errors import DownloadFailed

PORT = 8443
URL = f"https://localhost:{PORT}"
INSTALLED_CA = Path("/usr/local/share/ca-certificates/machine-test.crt")
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log {folder}/access.log;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/server.crt;
        ssl_certificate_key {folder}/server.key;
        root {folder}/www;
    }}
}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("https")
    made.parent.chmod(0o755)
    made.parent.parent.chmod(0o755)
    made.chmod(0o755)
    (made / "www").mkdir()
    return made


@pytest.fixture(scope="module")
def ca(folder: Path) -> Path:
    """Makes a CA, and a certificate of localhost that it signed."""
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
    request = ("openssl", "req", "-x509", "-days", "1", *new_key)
    ca = (folder / "ca.key", folder / "ca.crt")
    host.run(*request, "-keyout", ca[0], "-out", ca[1], "-subj", "/CN=Machine test CA")
    signed = ("-CA", ca[1], "-CAkey", ca[0], "-addext", "subjectAltName=DNS:localhost")
    leaf = ("-addext", "basicConstraints=critical,CA:FALSE", "-subj", "/CN=localhost")
    key, certificate = folder / "server.key", folder / "server.crt"
    host.run(*request, *signed, *leaf, "-keyout", key, "-out", certificate)
    return ca[1]


@pytest.fixture(scope="module")
def disk(folder: Path) -> Path:
    """A raw disk of data, zeros and repetition, and beside it what the server has of it."""
    raw = folder / "disk.raw"
    noise = random.Random(7).randbytes(5 * MIB)
    with raw.open("wb") as file:
        file.write(noise + bytes(7 * MIB) + b"again" * MIB + noise[: MIB // 2 + 512])
        file.truncate(48 * MIB)
    convert = ("qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd")
    host.run(*convert, raw, folder / "www" / "disk.qcow2")
    return raw


@pytest.fixture(scope="module")
def server(folder: Path, ca: Path) -> Iterator[None]:
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, port=PORT))
    ready = ("curl", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "-fsS")
    with subprocess.Popen(["nginx", "-c", configuration, "-p", folder]) as nginx:
        try:
            host.run(*ready, "-o", "/dev/null", "--insecure", "-r", "0-0", f"{URL}/disk.qcow2")
            yield
        finally:
            nginx.terminate()


@pytest.fixture
def trusted(ca: Path) -> None:
    """The CA stays: the machine is thrown away, and the tool runs openssl for every CA it knows."""
    INSTALLED_CA.write_bytes(ca.read_bytes())
    host.run("update-ca-certificates")


async def test_a_server_of_an_unknown_ca_is_not_believed(
    client: Client, disk: Path, server: None
) -> None:
    job = await client.manager.import_image("unknown", f"{URL}/disk.qcow2")
    with pytest.raises(DownloadFailed, match=r"(?i)certificate"):
        await job.wait()
    assert host.datasets() == set()


async def test_a_compressed_image_over_https_becomes_the_disk_bit_for_bit(
    client: Client, disk: Path, server: None, trusted: None
) -> None:
    image = disk.parent / "www" / "disk.qcow2"
    checksum = f"sha256:{hashlib.sha256(image.read_bytes()).hexdigest()}"
    job = await client.manager.import_image("web", f"{URL}/disk.qcow2", checksum=checksum)
    await job.wait()
    volume = await client.manager.volume("web")
    assert (volume.size_bytes, volume.source) == (48 * MIB, f"{URL}/disk.qcow2")
    host.run("cmp", disk, volume.device)
