"""Every error name of the contract, as a client on the bus meets it, and nothing changed by it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.bus.wire import Variant
from mvirt_zfs_dbus.errors import DeviceTimeout, Error
from mvirt_zfs_dbus.names import ErrorName, Interface
from mvirt_zfs_dbus.store.base import NewDataset
from mvirt_zfs_dbus.store.directory import DirectoryStore

from .process import MIB, PROPERTIES, Client, ServiceProcess, in_process_service

ABSENT = "/org/mvirt/Zfs1/volume/00000000_0000_0000_0000_000000000000"


async def refused(call: Awaitable[Any], name: ErrorName, *said: str) -> None:
    """The call fails with this name, and its message says what a person needs."""
    with pytest.raises(Error) as caught:
        await call
    assert caught.value.name == name, str(caught.value)
    for text in said:
        assert text in str(caught.value)


async def failed(client: Client, job: str, name: ErrorName, *said: str) -> dict[str, Any]:
    """The job fails with this name, and what it would have made is not there."""
    properties = await client.completed(job)
    assert (properties["State"], properties["ErrorName"]) == ("failed", name), properties
    for text in said:
        assert text in properties["ErrorMessage"]
    assert properties["Result"] == names.NO_OBJECT
    return properties


@asynccontextmanager
async def unchanged(client: Client, directory: Path) -> AsyncIterator[None]:
    """Neither the bus nor the store's files are otherwise afterwards; jobs aside."""

    async def state() -> tuple[object, object]:
        objects = {p: i for p, i in (await client.objects()).items() if "/job/" not in p}
        for interfaces in objects.values():
            for properties in interfaces.values():
                for volatile in ("UsedBytes", "ReferencedBytes", "AllocatedBytes", "FreeBytes"):
                    properties.pop(volatile, None)
                properties.pop("AvailableBytes", None)
        return objects, sorted(f.name for f in directory.rglob("*") if ".state" not in f.parts)

    before = await state()
    yield
    assert await state() == before


@pytest.fixture
async def volume(client: Client) -> str:
    return await client.create("web", MIB)


async def test_what_is_not_there_is_not_found(client: Client) -> None:
    await refused(client.manager("GetVolume", "s", "absent"), ErrorName.NOT_FOUND, "'absent'")
    await refused(client.manager("GetTemplate", "s", "absent"), ErrorName.NOT_FOUND, "'absent'")
    await refused(client.manager("GetJob", "s", "absent"), ErrorName.NOT_FOUND, "'absent'")
    await refused(client.import_path("x", "/absent.raw"), ErrorName.NOT_FOUND, "/absent.raw")


async def test_a_taken_name_already_exists(
    client: Client, volume: str, directory: Path, image: Path
) -> None:
    snapshot = await client.snapshot(volume, "before")
    template = await client.template(snapshot, "gold")
    other = await client.create("other")
    async with unchanged(client, directory):
        await refused(client.create("web"), ErrorName.ALREADY_EXISTS, "'web'")
        await refused(client.snapshot(volume, "before"), ErrorName.ALREADY_EXISTS, "'before'")
        await refused(client.template(snapshot, "gold"), ErrorName.ALREADY_EXISTS, "'gold'")
        await refused(client.clone(template, "web"), ErrorName.ALREADY_EXISTS, "'web'")
        await refused(client.import_path("web", image), ErrorName.ALREADY_EXISTS, "'web'")
        rename = client.call(other, Interface.VOLUME, "Rename", "sa{sv}", "web", {})
        await refused(rename, ErrorName.ALREADY_EXISTS, "'web'")


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "ä", "x" * 129, "a\n"])
async def test_a_name_that_is_none_is_an_invalid_name(
    client: Client, volume: str, directory: Path, image: Path, name: str
) -> None:
    async with unchanged(client, directory):
        await refused(client.create(name), ErrorName.INVALID_NAME, "1 to 128")
        await refused(client.snapshot(volume, name), ErrorName.INVALID_NAME, "1 to 128")
        await refused(client.import_path(name, image), ErrorName.INVALID_NAME, "1 to 128")
        rename = client.call(volume, Interface.VOLUME, "Rename", "sa{sv}", name, {})
        await refused(rename, ErrorName.INVALID_NAME, "1 to 128")


async def test_a_size_that_is_none_is_an_invalid_size(
    client: Client, volume: str, directory: Path
) -> None:
    async with unchanged(client, directory):
        await refused(client.create("zero", 0), ErrorName.INVALID_SIZE, "0")
        await refused(client.create("huge", 2**64 - 1), ErrorName.INVALID_SIZE, str(2**64 - 1))
        odd = client.create("odd", block_size=Variant("u", 5000))
        await refused(odd, ErrorName.INVALID_SIZE, "5000", "power of two")


async def test_a_clone_smaller_than_its_template_is_an_invalid_size(
    client: Client, volume: str
) -> None:
    template = await client.template(await client.snapshot(volume))
    call = client.call(
        template, Interface.TEMPLATE, "Clone", "sa{sv}", "small", {"size": Variant("t", 4096)}
    )
    await refused(call, ErrorName.INVALID_SIZE, "4096", str(MIB))


async def test_an_image_larger_than_the_size_asked_for_is_an_invalid_size(
    client: Client, image: Path, directory: Path
) -> None:
    async with unchanged(client, directory):
        job = await client.import_path("small", image, size=Variant("t", 65536))
        await failed(client, job, ErrorName.INVALID_SIZE, "65536")


async def test_a_smaller_size_would_shrink(client: Client, volume: str, directory: Path) -> None:
    async with unchanged(client, directory):
        resize = client.call(volume, Interface.VOLUME, "Resize", "ta{sv}", MIB // 2, {})
        await refused(resize, ErrorName.WOULD_SHRINK, str(MIB // 2), str(MIB))


async def test_a_volume_with_snapshots_has_snapshots(
    client: Client, volume: str, directory: Path
) -> None:
    await client.snapshot(volume, "before")
    async with unchanged(client, directory):
        delete = client.call(volume, Interface.VOLUME, "Delete", "a{sv}", {})
        await refused(delete, ErrorName.HAS_SNAPSHOTS, "before")


async def test_what_has_clones_has_clones(client: Client, volume: str, directory: Path) -> None:
    snapshot = await client.snapshot(volume, "before")
    template = await client.template(snapshot, "gold")
    await client.clone(template, "copy")
    await client.snapshot(volume, "oldest-but-one")
    with_snapshots = {"snapshots": Variant("b", True)}
    async with unchanged(client, directory):
        for path, interface, options, said in (
            (template, Interface.TEMPLATE, {}, "copy"),
            (snapshot, Interface.SNAPSHOT, {}, "gold"),
            (volume, Interface.VOLUME, with_snapshots, "gold"),
        ):
            delete = client.call(path, interface, "Delete", "a{sv}", options)
            await refused(delete, ErrorName.HAS_CLONES, said)


async def test_a_rollback_past_newer_snapshots_lists_them(
    client: Client, volume: str, directory: Path
) -> None:
    first = await client.snapshot(volume, "first")
    second = await client.snapshot(volume, "second")
    async with unchanged(client, directory):
        rollback = client.call(first, Interface.SNAPSHOT, "Rollback", "a{sv}", {})
        await refused(rollback, ErrorName.NEWER_SNAPSHOTS, "second")
    await client.template(second, "gold")
    destroy = {"destroy-newer": Variant("b", True)}
    async with unchanged(client, directory):
        rollback = client.call(first, Interface.SNAPSHOT, "Rollback", "a{sv}", destroy)
        await refused(rollback, ErrorName.HAS_CLONES, "gold")


async def test_a_device_in_use_is_busy_and_names_its_holder(
    client: Client, volume: str, directory: Path
) -> None:
    device = await client.device(volume)
    holder = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; f = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()",
        str(device),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin and holder.stdout
    await holder.stdout.readline()
    async with unchanged(client, directory):
        delete = client.call(volume, Interface.VOLUME, "Delete", "a{sv}", {})
        await refused(delete, ErrorName.DEVICE_BUSY, str(holder.pid), "python")
    users = await client.call(volume, Interface.VOLUME, "GetUsers", "a{sv}", {})
    assert [user["pid"] for user in users] == [holder.pid]
    holder.stdin.close()
    await holder.wait()
    await client.call(volume, Interface.VOLUME, "Delete", "a{sv}", {})


async def test_a_device_node_that_never_comes_is_a_timeout(
    bus_address: str, tmp_path: Path
) -> None:
    """The directory store has no device nodes, so one that waits in vain is put in its place."""

    class NoNodes(DirectoryStore):
        async def create_volume(self, new: NewDataset) -> Any:
            raise DeviceTimeout(f"/dev/zvol/tank/{new.id} did not appear within 30 s")

    async with in_process_service(bus_address, NoNodes(tmp_path), tmp_path) as client:
        await refused(client.create("web"), ErrorName.DEVICE_TIMEOUT, "30 s")


async def test_a_volume_that_does_not_fit_has_no_space(client: Client, directory: Path) -> None:
    async with unchanged(client, directory):
        free = shutil.disk_usage(directory).free
        thick = client.create("thick", free * 2, thin=Variant("b", False))
        await refused(thick, ErrorName.NO_SPACE)


async def test_a_pool_that_is_gone_is_unavailable(
    client: Client, volume: str, directory: Path
) -> None:
    directory.rename(directory.with_name("elsewhere"))
    await refused(client.create("lost"), ErrorName.POOL_UNAVAILABLE, str(directory))


async def test_images_that_are_not_whole_or_not_safe_are_refused_by_name(
    client: Client, images: dict[str, Path], directory: Path
) -> None:
    async with unchanged(client, directory):
        for kind, name in {
            "qed": ErrorName.UNSUPPORTED_IMAGE,
            "backing": ErrorName.UNSAFE_IMAGE,
            "corrupt": ErrorName.CORRUPT_IMAGE,
            "truncated": ErrorName.TRUNCATED,
        }.items():
            await failed(client, await client.import_path("bad", images[kind]), name)


async def test_a_wrong_checksum_is_a_mismatch(client: Client, image: Path, directory: Path) -> None:
    wrong = "sha256:" + "0" * 64
    right = hashlib.sha256(image.read_bytes()).hexdigest()
    async with unchanged(client, directory):
        job = await client.import_path("web", image, checksum=Variant("s", wrong))
        await failed(client, job, ErrorName.CHECKSUM_MISMATCH, right)


async def test_a_url_that_cannot_be_fetched_is_a_failed_download(
    client: Client, directory: Path
) -> None:
    async with unchanged(client, directory):
        job = await client.import_path("web", "http://127.0.0.1:1/disk.raw")
        await failed(client, job, ErrorName.DOWNLOAD_FAILED, "127.0.0.1")


async def test_a_cancelled_job_is_cancelled_and_not_twice(client: Client, directory: Path) -> None:
    reader, writer = os.pipe()
    async with unchanged(client, directory):
        job = await client.manager("ImportVolumeFromFd", "sha{sv}", "web", 0, {}, fds=[reader])
        os.close(reader)
        await client.call(job, Interface.JOB, "Cancel", "a{sv}", {})
        properties = await client.completed(job)
        assert (properties["State"], properties["ErrorName"]) == (
            "cancelled",
            ErrorName.CANCELLED,
        )
    os.close(writer)
    cancel = client.call(job, Interface.JOB, "Cancel", "a{sv}", {})
    await refused(cancel, ErrorName.NOT_CANCELABLE, "cancelled")


async def test_a_job_that_kill_cut_off_is_interrupted_and_leaves_nothing(
    client: Client, service: ServiceProcess, directory: Path
) -> None:
    async with unchanged(client, directory):
        reader, writer = os.pipe()
        job = await client.manager("ImportVolumeFromFd", "sha{sv}", "web", 0, {}, fds=[reader])
        os.close(reader)
        os.write(writer, b"\xeb" * 65536)
        assert await service.stop(signal.SIGKILL) == -signal.SIGKILL
        os.close(writer)
        await service.start(client.connection)
        await failed(client, job, ErrorName.INTERRUPTED)


async def test_a_fault_under_the_service_is_failed_and_says_what(
    client: Client, directory: Path, image: Path
) -> None:
    shutil.rmtree(directory / ".state")
    (directory / ".state").write_text("in the way")
    await refused(client.import_path("web", image), ErrorName.FAILED, "record")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"no-such": Variant("b", True)}, ["no-such", "block-size", "labels"]),
        ({"thin": Variant("s", "yes")}, ["thin", "b"]),
        ({"labels": Variant("a{ss}", {"": "x"})}, ["label"]),
        ({"id": Variant("s", "not-a-uuid")}, ["not-a-uuid"]),
        ({"compression": Variant("s", "fast")}, ["fast", "zstd"]),
        ({"id": Variant("s", "")}, ["no UUID"]),
        ({"compression": Variant("s", "")}, ["zstd"]),
    ],
)
async def test_wrong_options_are_invalid_arguments(
    client: Client, directory: Path, options: dict[str, Variant], said: list[str]
) -> None:
    async with unchanged(client, directory):
        call = client.manager("CreateVolume", "sta{sv}", "web", MIB, options)
        await refused(call, ErrorName.INVALID_ARGS, *said)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("relative.raw", {}, "absolute path"),
        ("ftp://example.org/x", {}, "http://"),
        ("file:///etc/passwd", {}, "http://"),
        ("http://", {}, "http://"),
        ("/dev", {}, "/dev"),
        ("/x", {"format": Variant("s", "iso")}, "iso"),
        ("/x", {"checksum": Variant("s", "md5:0")}, "md5:0"),
        ("/x", {"checksum": Variant("s", "")}, "sha256:"),  # of a script whose variable is empty
        ("/x", {"id": Variant("s", "")}, "no UUID"),
    ],
)
async def test_wrong_sources_are_invalid_arguments(
    client: Client, directory: Path, source: str, options: dict[str, Variant], said: str
) -> None:
    async with unchanged(client, directory):
        call = client.manager("ImportVolume", "ssa{sv}", "web", source, options)
        await refused(call, ErrorName.INVALID_ARGS, said)


async def test_a_size_of_nothing_is_not_taken_for_none_given(
    client: Client, image: Path, directory: Path, volume: str
) -> None:
    template = await client.template(await client.snapshot(volume))
    size = {"size": Variant("t", 0)}
    async with unchanged(client, directory):
        call = client.manager("ImportVolume", "ssa{sv}", "web-2", str(image), size)
        await refused(call, ErrorName.INVALID_SIZE, "size 0")
        call = client.call(template, Interface.TEMPLATE, "Clone", "sa{sv}", "web-2", size)
        await refused(call, ErrorName.INVALID_SIZE, "size 0")


async def test_the_standard_errors_are_those_of_the_standard(client: Client, volume: str) -> None:
    root, manager = names.ROOT, Interface.MANAGER
    for call, name in (
        (client.call(root, manager, "CreateVolume", "s", "x"), ErrorName.INVALID_ARGS),
        (client.call(root, manager, "NoSuch"), ErrorName.UNKNOWN_METHOD),
        (client.call(root, "org.example.None", "X"), ErrorName.UNKNOWN_INTERFACE),
        (client.call(ABSENT, Interface.VOLUME, "Delete", "a{sv}", {}), ErrorName.UNKNOWN_OBJECT),
        (client.get(volume, Interface.VOLUME, "None"), ErrorName.UNKNOWN_PROPERTY),
        (
            client.call(
                volume, PROPERTIES, "Set", "ssv", Interface.VOLUME, "Name", Variant("s", "x")
            ),
            ErrorName.PROPERTY_READ_ONLY,
        ),
    ):
        await refused(call, name)


def test_every_error_name_of_the_contract_is_met_by_a_test() -> None:
    """AccessDenied and its kin are met in the tests of authorisation, limits in those of floods."""
    tests = "".join(file.read_text() for file in Path(__file__).parents[1].rglob("test_*.py"))
    assert [name.name for name in ErrorName if f"ErrorName.{name.name}" not in tests] == []
