"""What each method does to the disk and to the bus."""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.bus.wire import Message, Variant, unpacked
from mvirt_zfs_dbus.errors import AlreadyExists, NotFound
from mvirt_zfs_dbus.names import Interface

from .process import MIB, PROPERTIES, Client, ServiceProcess

VOLUME, SNAPSHOT, TEMPLATE = Interface.VOLUME, Interface.SNAPSHOT, Interface.TEMPLATE


async def changed(heard: asyncio.Queue[Message], path: str, name: str) -> Any:
    """The next value a PropertiesChanged of ``path`` carries for ``name``."""
    while True:
        message = await heard.get()
        if message.member == "PropertiesChanged" and message.path == path:
            values = unpacked(message.body[1])
            if name in values:
                return values[name]


async def test_a_new_volume_reads_as_zeros_and_has_all_it_was_given(client: Client) -> None:
    before = time.time_ns() // 1000
    volume = await client.create(
        "web",
        MIB + 1,
        block_size=Variant("u", 4096),
        labels=Variant("a{ss}", {"owner": "ä"}),
        compression=Variant("s", "zstd"),
    )
    properties = await client.get_all(volume, VOLUME)
    assert properties["SizeBytes"] == MIB + 4096
    assert (properties["Name"], properties["BlockSize"]) == ("web", 4096)
    assert (properties["Labels"], properties["Thin"]) == ({"owner": "ä"}, True)
    assert (properties["Origin"], properties["Snapshots"]) == (names.NO_OBJECT, [])
    assert before <= properties["CreatedAt"] <= time.time_ns() // 1000
    assert volume.endswith(properties["Id"].replace("-", "_"))
    content = Path(properties["Device"]).read_bytes()
    assert content == bytes(MIB + 4096)


async def test_creating_again_with_the_same_id_answers_the_same_volume(client: Client) -> None:
    chosen = Variant("s", str(uuid.uuid4()))
    volume = await client.create("web", MIB, id=chosen)
    assert await client.create("web", MIB, id=chosen) == volume
    for name, size in (("web", 2 * MIB), ("other", MIB)):
        with pytest.raises(AlreadyExists, match=str(chosen.value)):
            await client.create(name, size, id=chosen)
    at_once = Variant("s", str(uuid.uuid4()))
    answers = await asyncio.gather(*(client.create("db", MIB, id=at_once) for _ in range(5)))
    assert len(set(answers)) == 1
    assert len(await client.manager("ListVolumes", "a{sv}", {})) == 2


async def test_a_volume_is_found_by_name_and_by_id(client: Client) -> None:
    volume = await client.create("web")
    object_id = await client.get(volume, VOLUME, "Id")
    assert await client.manager("GetVolume", "s", "web") == volume
    assert await client.manager("GetVolume", "s", object_id) == volume


async def test_resize_grows_and_rounds_up_and_tells(client: Client) -> None:
    volume = await client.create("web", MIB)
    async with client.signals() as heard:
        await client.call(volume, VOLUME, "Resize", "ta{sv}", 2 * MIB + 5, {})
        assert await changed(heard, volume, "SizeBytes") == 2 * MIB + 16384
    assert (await client.device(volume)).stat().st_size == 2 * MIB + 16384
    pool = (await client.get(names.ROOT, Interface.MANAGER, "Pools"))[0]
    assert await client.get(pool, Interface.POOL, "ProvisionedBytes") == 2 * MIB + 16384


async def test_a_renamed_volume_keeps_its_path_and_frees_its_name(client: Client) -> None:
    volume = await client.create("web")
    async with client.signals() as heard:
        await client.call(volume, VOLUME, "Rename", "sa{sv}", "www", {})
        assert await changed(heard, volume, "Name") == "www"
    assert await client.manager("GetVolume", "s", "www") == volume
    with pytest.raises(NotFound):
        await client.manager("GetVolume", "s", "web")
    await client.create("web")


async def test_labels_are_replaced_as_a_whole(client: Client) -> None:
    volume = await client.create("web", labels=Variant("a{ss}", {"a": "1"}))
    await client.call(volume, VOLUME, "SetLabels", "a{ss}a{sv}", {"b": "2"}, {})
    assert await client.get(volume, VOLUME, "Labels") == {"b": "2"}


async def test_a_rollback_brings_bytes_and_size_back_and_keeps_the_snapshot(
    client: Client,
) -> None:
    volume = await client.create("web", MIB)
    device = await client.device(volume)
    with device.open("r+b") as disk:
        disk.write(b"first")
    first = await client.snapshot(volume, "first")
    with device.open("r+b") as disk:
        disk.write(b"later")
    later = await client.snapshot(volume, "later")
    await client.call(volume, VOLUME, "Resize", "ta{sv}", 2 * MIB, {})
    assert await client.get(volume, VOLUME, "Snapshots") == [first, later]
    destroy = {"destroy-newer": Variant("b", True)}
    async with client.signals() as heard:
        await client.call(first, SNAPSHOT, "Rollback", "a{sv}", destroy)
        assert await changed(heard, volume, "SizeBytes") == MIB
    assert device.read_bytes() == b"first" + bytes(MIB - 5)
    assert await client.get(volume, VOLUME, "Snapshots") == [first]
    assert later not in await client.objects()


async def test_a_template_clones_and_knows_its_clones(client: Client) -> None:
    volume = await client.create("web", MIB)
    (await client.device(volume)).write_bytes(b"golden" + bytes(MIB - 6))
    snapshot = await client.snapshot(volume)
    template = await client.template(snapshot, "gold")
    assert await client.get(snapshot, SNAPSHOT, "Clones") == [template]
    properties = await client.get_all(template, TEMPLATE)
    assert (properties["SourceVolume"], properties["CloneCount"]) == (volume, 0)
    assert properties["Snapshot"].endswith(f"{properties['Id']}@img")
    clone = await client.call(
        template, TEMPLATE, "Clone", "sa{sv}", "copy", {"size": Variant("t", 2 * MIB)}
    )
    assert await client.get(clone, VOLUME, "Origin") == template
    assert (await client.device(clone)).read_bytes() == b"golden" + bytes(2 * MIB - 6)
    (await client.device(clone)).write_bytes(b"changed")
    assert await client.get(template, TEMPLATE, "Clones") == [clone]
    assert await client.get(template, TEMPLATE, "CloneCount") == 1


async def test_a_template_deleted_later_is_gone_at_once_and_frees_its_name(
    client: Client, directory: Path
) -> None:
    volume = await client.create("web", MIB)
    template = await client.template(await client.snapshot(volume), "gold")
    clone = await client.clone(template)
    async with client.signals() as heard:
        await client.call(template, TEMPLATE, "Delete", "a{sv}", {"defer": Variant("b", True)})
        assert await changed(heard, clone, "Origin") == names.NO_OBJECT
    assert template not in await client.objects()
    snapshot = (await client.get(volume, VOLUME, "Snapshots"))[0]
    await client.template(snapshot, "gold")
    await client.call(clone, VOLUME, "Delete", "a{sv}", {})
    object_id = template.rpartition("/")[2].replace("_", "-")
    assert list(directory.glob(f"{object_id}*")) == []


async def test_a_full_copy_is_a_job_and_hangs_on_nothing(client: Client) -> None:
    volume = await client.create("web", MIB)
    (await client.device(volume)).write_bytes(b"golden" + bytes(MIB - 6))
    snapshot = await client.snapshot(volume)
    job = await client.call(snapshot, SNAPSHOT, "CopyToTemplate", "sa{sv}", "gold", {})
    properties = await client.completed(job)
    assert (properties["Operation"], properties["State"]) == ("copy-template", "done")
    assert properties["Source"] == "web@before"
    await client.call(volume, VOLUME, "Delete", "a{sv}", {"snapshots": Variant("b", True)})
    clone = await client.clone(properties["Result"])
    assert (await client.device(clone)).read_bytes() == b"golden" + bytes(MIB - 6)


async def test_deleted_objects_leave_the_bus_and_the_disk(client: Client, directory: Path) -> None:
    volume = await client.create("web")
    snapshot = await client.snapshot(volume)
    async with client.signals("InterfacesRemoved") as heard:
        await client.call(volume, VOLUME, "Delete", "a{sv}", {"snapshots": Variant("b", True)})
        removed = {(await heard.get()).body[0] for _ in range(2)}
    assert removed == {volume, snapshot}
    assert [file for file in directory.iterdir() if not file.name.startswith(".")] == []


async def test_every_object_is_announced_with_all_its_properties(client: Client) -> None:
    async with client.signals("InterfacesAdded") as heard:
        volume = await client.create("web")
        message = await heard.get()
    assert message.path == names.ROOT
    assert message.body[0] == volume
    announced = unpacked(message.body[1])
    assert announced[VOLUME] == (await client.objects())[volume][VOLUME]


async def test_what_a_hand_removes_disappears_and_what_it_brings_back_returns(
    client: Client, tmp_path: Path
) -> None:
    volume = await client.create("web")
    device = await client.device(volume)
    async with client.signals() as heard:
        device.rename(tmp_path / "aside")
        while (message := await heard.get()).member != "InterfacesRemoved":
            pass
        assert message.body[0] == volume
        (tmp_path / "aside").rename(device)
        while (message := await heard.get()).member != "InterfacesAdded":
            pass
        assert message.body[0] == volume


async def test_refresh_counts_nothing_when_nothing_changed(client: Client) -> None:
    await client.snapshot(await client.create("web"))
    assert await client.manager("Refresh", "a{sv}", {}) == 0


async def test_usage_counters_are_fresh_when_read_and_never_signalled(client: Client) -> None:
    volume = await client.create("web", MIB)
    before = await client.get(volume, VOLUME, "UsedBytes")
    (await client.device(volume)).write_bytes(b"x" * MIB)
    async with client.signals("PropertiesChanged") as heard:
        await asyncio.sleep(1.1)  # a counter may be a second old
        after = await client.get(volume, VOLUME, "UsedBytes")
        assert after >= before + MIB
        assert heard.empty()


async def test_everything_is_as_it_was_after_a_restart(
    client: Client, service: ServiceProcess
) -> None:
    volume = await client.create("web", labels=Variant("a{ss}", {"a": "1"}))
    template = await client.template(await client.snapshot(volume), "gold")
    await client.clone(template)

    async def stable() -> dict[str, Any]:
        found = await client.objects()
        for interfaces in found.values():
            for properties in interfaces.values():
                for name in ("AllocatedBytes", "FreeBytes", "AvailableBytes"):
                    properties.pop(name, None)
        return found

    before = await stable()
    assert await service.stop() == 0
    await service.start(client.connection)
    assert await stable() == before


async def test_get_all_of_an_unknown_interface_is_no_fault(client: Client) -> None:
    from mvirt_zfs_dbus.errors import UnknownInterface

    with pytest.raises(UnknownInterface):
        await client.call(names.ROOT, PROPERTIES, "GetAll", "s", "org.example.None")
