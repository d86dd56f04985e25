"""VMDK, VHDX, VDI and VHD over the bus: they arrive, or leave neither a process nor a file."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from foreign_kinds import KINDS, convert

from mvirt_zfs_dbus.bus.wire import Variant, unpacked
from mvirt_zfs_dbus.names import ErrorName, Interface

from .process import MIB, Client, ServiceProcess
from .test_errors import failed, unchanged
from .test_imports import imported, server

__all__ = ["server"]

JOB = Interface.JOB


@pytest.fixture(scope="session")
def foreign(images: dict[str, Path]) -> dict[str, Path]:
    """The disk of ``images`` in each format, made by qemu-img beside it."""
    raw = images["raw"]
    made = {}
    for kind in KINDS:
        made[kind] = raw.with_name(f"foreign.{kind}")
        convert(raw, kind, made[kind])
    return made


@pytest.fixture(scope="session")
def large(images: dict[str, Path]) -> Path:
    """A disk that takes qemu-img many seconds, and the file system next to nothing."""
    path = images["raw"].with_name("large.vdi")
    command = ["qemu-img", "create", "-q", "-f", "vdi", "-o", "static=on", path, "32G"]
    subprocess.run(command, check=True)
    return path


def programs(service: ServiceProcess) -> list[int]:
    """The qemu-img processes below the service."""
    assert service.process
    found, look = [], [service.process.pid]
    while look:
        pid = look.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                look += map(int, (task / "children").read_text().split())
            if Path(f"/proc/{pid}/comm").read_text() == "qemu-img\n":
                found.append(pid)
    return found


async def converting(client: Client, name: str, source: Path) -> str:
    """An import whose qemu-img is in the middle of its work."""
    async with client.signals("PropertiesChanged") as heard:
        job = await client.import_path(name, source)
        seen: dict[str, Any] = {}
        while seen.get("Phase") != "converting" or not seen.get("BytesDone"):
            message = await heard.get()
            if message.path == job:
                seen |= unpacked(message.body[1])
                assert seen.get("State", "running") in ("pending", "running"), seen
    assert 0 < seen["BytesDone"] < seen["BytesTotal"] == source.stat().st_size
    return job


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["path", "fd", "pipe", "http"])
async def test_an_image_arrives_bit_for_bit(
    client: Client,
    images: dict[str, Path],
    foreign: dict[str, Path],
    server: str,
    kind: str,
    way: str,
) -> None:
    image, content = foreign[kind], images["raw"].read_bytes()
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    options = {"checksum": Variant("s", f"sha256:{digest}")}
    if way in ("path", "http"):
        source = str(image) if way == "path" else f"{server}/{image.name}"
        job = await client.manager("ImportVolume", "ssa{sv}", "web", source, options)
    else:
        with image.open("rb") if way == "fd" else os.popen(f"cat {image}") as passed:
            job = await client.manager(
                "ImportVolumeFromFd", "sha{sv}", "web", 0, options, fds=[passed.fileno()]
            )
            await client.completed(job)
    properties, found = await imported(client, job)
    assert found == content
    assert (properties["Progress"], properties["ProgressValid"]) == (1.0, True)
    assert properties["BytesDone"] == properties["BytesTotal"] == image.stat().st_size
    volume = await client.get_all(properties["Result"], Interface.VOLUME)
    assert volume["SizeBytes"] == len(content)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_format_may_be_said_and_then_it_has_to_be_that(
    client: Client, images: dict[str, Path], foreign: dict[str, Path], kind: str, directory: Path
) -> None:
    said = kind.rpartition(".")[2]
    job = await client.manager(
        "ImportTemplate", "ssa{sv}", "gold", str(foreign[kind]), {"format": Variant("s", said)}
    )
    properties = await client.completed(job)
    assert properties["State"] == "done", properties
    clone = await client.clone(properties["Result"])
    assert (await client.device(clone)).read_bytes() == images["raw"].read_bytes()
    other = "vdi" if said != "vdi" else "vmdk"
    async with unchanged(client, directory):
        job = await client.import_path("bad", foreign[kind], format=Variant("s", other))
        await failed(client, job, ErrorName.CORRUPT_IMAGE, f"no {other} image", said)


async def test_a_larger_size_is_given_and_a_smaller_one_refused(
    client: Client, images: dict[str, Path], foreign: dict[str, Path], directory: Path
) -> None:
    job = await client.import_path("web", foreign["vhdx"], size=Variant("t", 4 * MIB))
    _, found = await imported(client, job)
    assert found == images["raw"].read_bytes() + bytes(2 * MIB)
    async with unchanged(client, directory):
        job = await client.import_path("bad", foreign["vmdk"], size=Variant("t", MIB))
        await failed(client, job, ErrorName.INVALID_SIZE, str(2 * MIB))


SHADOW = """# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="{type}"
{line}
"""


async def test_an_image_that_names_another_file_is_unsafe(
    client: Client, foreign: dict[str, Path], directory: Path, tmp_path: Path
) -> None:
    whole = foreign["vmdk"].read_bytes()
    end = whole.index(b"\0", 512)

    def with_descriptor(kind: str, line: str) -> bytes:
        text = SHADOW.format(type=kind, line=line).encode()
        return whole[:512] + text.ljust(end - 512, b"\0") + whole[end:]

    extent = 'RW 4096 SPARSE "foreign.vmdk"'
    shadow = 'RW 8 FLAT "/etc/shadow" 0'
    images = {
        "a descriptor": SHADOW.format(type="monolithicFlat", line=shadow).encode(),
        "an extent": with_descriptor("monolithicSparse", shadow),
        "an extent's name": with_descriptor("monolithicSparse", 'RW 1 SPARSE "/etc/shadow"'),
        "a backing file": with_descriptor(
            "monolithicSparse", f'{extent}\nparentFileNameHint="/etc/shadow"'
        ),
    }
    path = tmp_path / "bad.vmdk"
    for content in images.values():
        path.write_bytes(content)
        for options in ({}, {"format": Variant("s", "vmdk")}):
            async with unchanged(client, directory):
                job = await client.import_path("bad", path, **options)
                await failed(client, job, ErrorName.UNSAFE_IMAGE)


async def test_each_refusal_has_its_own_error(
    client: Client, foreign: dict[str, Path], directory: Path, tmp_path: Path
) -> None:
    vdi, vmdk = foreign["vdi"].read_bytes(), foreign["vmdk"].read_bytes()
    images = {
        ErrorName.TRUNCATED: vdi[:-1000],
        ErrorName.CORRUPT_IMAGE: vdi[:512] + (9999).to_bytes(4, "little") + vdi[516:],
        ErrorName.UNSAFE_IMAGE: vdi[:0x4C] + b"\4" + vdi[0x4D:],
        ErrorName.UNSUPPORTED_IMAGE: vmdk[:28] + bytes(16) + vmdk[44:],
    }
    for name, content in images.items():
        (tmp_path / "bad").write_bytes(content)
        async with unchanged(client, directory):
            await failed(client, await client.import_path("bad", tmp_path / "bad"), name)


async def test_a_disk_over_the_limit_is_refused(
    bus_address: str, directory: Path, connected: Client, foreign: dict[str, Path]
) -> None:
    process = ServiceProcess(bus_address, directory, "--max-image-size", "1M")
    await process.start(connected.connection)
    for kind in KINDS:
        async with unchanged(connected, directory):
            job = await connected.import_path("bad", foreign[kind])
            await failed(connected, job, ErrorName.INVALID_SIZE, "max-image-size")
    await process.stop()


async def test_cancelling_in_the_middle_leaves_no_process_and_no_file(
    client: Client, service: ServiceProcess, large: Path, directory: Path
) -> None:
    async with unchanged(client, directory):
        job = await converting(client, "web", large)
        assert len(programs(service)) == 1
        await client.call(job, JOB, "Cancel", "a{sv}", {})
        assert programs(service) == []
        properties = await client.completed(job)
        assert (properties["State"], properties["ErrorName"]) == ("cancelled", ErrorName.CANCELLED)


async def test_a_crash_of_qemu_img_is_one_failed_job(
    client: Client,
    service: ServiceProcess,
    large: Path,
    foreign: dict[str, Path],
    directory: Path,
) -> None:
    async with unchanged(client, directory):
        job = await converting(client, "web", large)
        os.kill(programs(service)[0], signal.SIGSEGV)
        await failed(client, job, ErrorName.FAILED, "qemu-img", "killed by signal 11")
    await imported(client, await client.import_path("web", foreign["vdi"]))


async def test_a_service_that_is_killed_takes_its_qemu_img_along(
    client: Client, service: ServiceProcess, large: Path
) -> None:
    await converting(client, "web", large)
    (pid,) = programs(service)
    pidfd = os.pidfd_open(pid)
    await service.stop(signal.SIGKILL)
    ended, _, _ = await asyncio.to_thread(select.select, [pidfd], [], [], 30)
    assert ended
    os.close(pidfd)


async def test_a_service_that_stops_ends_its_imports_first(
    client: Client, connected: Client, service: ServiceProcess, large: Path, directory: Path
) -> None:
    await converting(client, "web", large)
    (pid,) = programs(service)
    assert await service.stop() == 0
    assert not Path(f"/proc/{pid}").exists()
    assert [file for file in directory.iterdir() if not file.name.startswith(".")] == []


async def test_where_qemu_img_is_not_installed_the_package_is_named(
    bus_address: str,
    directory: Path,
    connected: Client,
    foreign: dict[str, Path],
    images: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    process = ServiceProcess(bus_address, directory)
    await process.start(connected.connection)
    for kind in ("vmdk", "vhdx", "vdi", "vpc"):
        job = await connected.import_path("bad", foreign[kind])
        await failed(connected, job, ErrorName.UNSUPPORTED_IMAGE, "qemu-utils", kind)
    for source in (foreign["fixed.vpc"], images["qcow2"]):
        job = await connected.import_path(source.name, source)
        await imported(connected, job)
    await process.stop()
