"""Other hypervisors' images through the installed unit: qemu-img inside all its confinements."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import host
import pytest
from foreign_kinds import KINDS, convert
from host import MIB

from mvirt_zfs_dbus.client import Client, Job
from mvirt_zfs_dbus.errors import Cancelled, Truncated, UnsafeImage
from mvirt_zfs_dbus.image.sandbox import NOBODY


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Images that root alone may read, below a directory the service imports from."""
    folder = host.IMAGES / "foreign"
    folder.mkdir(mode=0o700, parents=True)
    raw = folder / "disk.raw"
    noise = random.Random(9).randbytes
    raw.write_bytes(noise(3 * MIB) + bytes(10 * MIB) + b"again" * MIB + noise(2 * MIB))
    for kind in KINDS:
        convert(raw, kind, folder / f"disk.{kind}")
    with (folder / "large.raw").open("wb") as large:  # takes some seconds, being no holes
        for _ in range(256):
            large.write(b"large" * (MIB // 5))
        large.truncate(256 * MIB)
    host.run("qemu-img", "convert", "-O", "vdi", folder / "large.raw", folder / "large.vdi")
    for image in folder.iterdir():
        image.chmod(0o600)
    yield folder
    host.run("rm", "-r", folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["path", "pipe"])
async def test_an_image_only_root_may_read_becomes_a_zvol_bit_for_bit(
    client: Client, folder: Path, kind: str, way: str
) -> None:
    image = folder / f"disk.{kind}"
    if way == "path":
        job = await client.manager.import_image("web", str(image))
    else:
        with os.popen(f"cat {image}") as pipe:
            job = await client.manager.import_image("web", pipe.fileno())
            await job.wait()
    await job.wait()
    volume = await client.manager.volume("web")
    raw = folder / "disk.raw"
    assert volume.size_bytes == raw.stat().st_size
    host.run("cmp", raw, volume.device)


async def converting(client: Client, folder: Path) -> tuple[Job, int]:
    """An import in the middle, and its qemu-img."""
    job = await client.manager.import_image("large", str(folder / "large.vdi"))
    async for progress in job:
        if progress.phase == "converting" and progress.bytes_done:
            break
    return job, int(host.run("pgrep", "-x", "qemu-img"))


async def test_qemu_img_is_nobody_and_has_nothing(client: Client, folder: Path) -> None:
    job, pid = await converting(client, folder)
    status = dict(re.findall(r"(\w+):\t(.*)", Path(f"/proc/{pid}/status").read_text()))
    assert status["Uid"].split() == status["Gid"].split() == [str(NOBODY)] * 4
    assert (status["CapPrm"], status["CapEff"]) == ("0" * 16, "0" * 16)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    opened = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    allowed = r"/dev/null|socket:.*|pipe:.*|anon_inode:.*|/memfd:import \(deleted\)"
    assert [name for name in opened if not re.fullmatch(allowed, name)] == []
    with host.stirring():
        await job.cancel()


async def test_cancelling_leaves_no_process_and_no_dataset(client: Client, folder: Path) -> None:
    job, pid = await converting(client, folder)
    with host.stirring():
        await job.cancel()
    assert not Path(f"/proc/{pid}").exists()
    assert host.datasets() == set()
    with pytest.raises(Cancelled):
        await job.wait()


async def test_an_image_that_names_a_file_of_the_host_is_refused(
    client: Client, folder: Path
) -> None:
    (folder / "bad.vmdk").write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        'createType="monolithicFlat"\nRW 8 FLAT "/etc/shadow" 0\n'
    )
    job = await client.manager.import_image("bad", str(folder / "bad.vmdk"))
    with pytest.raises(UnsafeImage):
        await job.wait()
    whole = (folder / "disk.vdi").read_bytes()
    (folder / "cut.vdi").write_bytes(whole[:-1000])
    job = await client.manager.import_image("cut", str(folder / "cut.vdi"))
    with pytest.raises(Truncated):
        await job.wait()
    assert host.datasets() == set()
