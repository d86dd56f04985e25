"""An import over HTTPS from a server whose certificate the administrator's own CA signed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import host
import pytest
import webserver
from host import MIB

from mvirt_zfs_dbus.client import Client
from mvirt_zfs_dbus.errors import DownloadFailed

PORT = 8443
URL = f"https://localhost:{PORT}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("https")
    (made / "www").mkdir()
    return webserver.public(made)


@pytest.fixture(scope="module")
def authority(folder: Path) -> webserver.Authority:
    return webserver.make_authority(folder, "Machine test CA")


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
def server(folder: Path, authority: webserver.Authority) -> Iterator[None]:
    with webserver.serving(folder, authority, "localhost", port=PORT):
        yield


@pytest.fixture
def trusted(authority: webserver.Authority) -> None:
    webserver.trust(authority.certificate, "machine-test.crt")


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
