"""mvirt-zfsctl as people run it: a process with arguments, output and an exit status."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from busdaemon import BusDaemon

from mvirt_zfs_dbus import client as zfs_client
from mvirt_zfs_dbus.errors import InvalidSize, NotFound

from .ctl import Ctl
from .process import MIB, ServiceProcess


async def test_a_volume_is_made_listed_shown_grown_renamed_and_deleted(ctl: Ctl) -> None:
    made = await ctl("volume", "create", "web", "1M", "--label", "vm=a", "--block-size", "4096")
    assert made.startswith("created volume web of 1 MiB: /")
    volume = await ctl.json("volume", "show", "web")
    assert volume["Labels"] == {"vm": "a"}
    assert (volume["SizeBytes"], volume["BlockSize"]) == (MIB, 4096)
    listed = (await ctl("volume", "list")).splitlines()
    assert listed[0].split() == ["NAME", "SIZE", "USED", "SNAPSHOTS", "ORIGIN", "ID"]
    assert listed[1].split()[:3] == ["web", "1", "MiB"]
    assert volume["Id"] in listed[1]
    shown = await ctl("volume", "show", volume["Id"])
    assert "Labels:      vm=a" in shown
    assert "Size:        1 MiB (1048576 bytes)" in shown
    assert "2 MiB" in await ctl("volume", "resize", "web", "2M")
    assert await ctl("volume", "rename", "web", "db") == "volume web is named db now\n"
    assert await ctl("volume", "delete", "db", "--yes") == "deleted volume db\n"
    assert await ctl.json("volume", "list") == []


async def test_labels_are_set_removed_and_shown(ctl: Ctl) -> None:
    await ctl("volume", "create", "web", "1M", "--label", "vm=a")
    assert await ctl("volume", "label", "web", "--set", "owner=ops", "--set", "note=x=y") == (
        "note=x=y\nowner=ops\nvm=a\n"
    )
    assert await ctl(
        "volume", "label", "web", "--remove", "note", "--remove", "vm", "--set", "vm=b"
    ) == ("owner=ops\nvm=b\n")
    assert await ctl("volume", "label", "web") == "owner=ops\nvm=b\n"
    assert "owner" in await ctl.refused(3, "NotFound", "volume", "label", "web", "--remove", "x")
    labelled = await ctl.json("volume", "label", "web", "--remove", "vm", "--remove", "owner")
    assert labelled["Labels"] == {}
    assert await ctl("volume", "label", "web") == "web has no labels\n"


async def test_who_has_a_volume_open_is_shown(ctl: Ctl) -> None:
    device = (await ctl.json("volume", "create", "web", "1M"))["Device"]
    assert await ctl("volume", "users", "web") == f"nobody has {device} open\n"
    with Path(device).open("rb"):
        (user,) = await ctl.json("volume", "users", "web")
        assert user["pid"] == os.getpid()
        shown = (await ctl("volume", "users", "web")).splitlines()
        assert shown[0].split() == ["PID", "COMMAND"]
        assert shown[1].split() == [str(os.getpid()), user["command"]]


async def test_a_template_is_copied_shown_renamed_and_labelled(ctl: Ctl) -> None:
    await ctl("volume", "create", "web", "1M")
    await ctl("snapshot", "create", "web", "fresh")
    copied = await ctl("template", "copy", "gold", "web", "fresh")
    assert copied.endswith("copied web as it was at fresh to template gold\n")
    assert "Made of:    web" in await ctl("template", "show", "gold")
    renamed = await ctl("template", "rename", "gold", "silver")
    assert renamed == "template gold is named silver now\n"
    assert await ctl("template", "label", "silver", "--set", "os=debian") == "os=debian\n"
    assert (await ctl.json("template", "show", "silver"))["Labels"] == {"os": "debian"}
    job = (await ctl("template", "copy", "later", "web", "fresh", "--no-wait")).strip()
    await ctl("job", "watch", job)
    await ctl("template", "show", "later")
    assert await ctl("job", "remove", job) == f"removed the job {job}\n"
    await ctl.refused(3, "NotFound", "job", "show", job)


async def test_the_same_creation_with_an_id_is_no_second_volume(ctl: Ctl) -> None:
    chosen = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
    for _ in range(2):
        made = await ctl.json("volume", "create", "web", "1M", "--id", chosen)
        assert made["Id"] == chosen
    await ctl.refused(4, "AlreadyExists", "volume", "create", "other", "1M", "--id", chosen)


async def test_what_was_deleted_is_shown_in_json_as_it_was(ctl: Ctl) -> None:
    await ctl("volume", "create", "web", "1M")
    assert (await ctl.json("volume", "delete", "web", "--yes"))["SizeBytes"] == MIB


async def test_an_error_says_what_to_do_next(ctl: Ctl) -> None:
    await ctl("volume", "create", "web", "1M")
    await ctl("snapshot", "create", "web", "fresh")

    async def hint(*arguments: str) -> str:
        return (await ctl.run(*arguments)).err.splitlines()[-1]

    assert "--snapshots" in await hint("volume", "delete", "web", "--yes")
    assert "volume list" in await hint("volume", "show", "absent")
    assert "it has: fresh" in await hint("snapshot", "delete", "web", "absent", "--yes")
    await ctl("template", "create", "gold", "web", "fresh")
    await ctl("template", "clone", "gold", "vm")
    assert "--defer" in await hint("template", "delete", "gold", "--yes")
    with Path((await ctl.json("volume", "show", "vm"))["Device"]).open("rb"):
        assert "volume users vm" in await hint("volume", "delete", "vm", "--yes")


async def test_an_id_may_be_written_in_capitals(ctl: Ctl) -> None:
    identity = (await ctl.json("volume", "create", "web", "1M"))["Id"]
    snapshot = await ctl.json("snapshot", "create", identity, "before")
    await ctl("snapshot", "delete", "web", snapshot["Id"].upper(), "--yes")


async def test_an_image_becomes_a_template_clones_and_a_rollback_undoes_a_change(
    ctl: Ctl, images: dict[str, Path]
) -> None:
    content = images["raw"].read_bytes()
    out = await ctl("import", "disk", images["qcow2"])
    assert out.splitlines()[-1].startswith("imported volume disk of 2 MiB, id ")
    assert await ctl.content("disk") == content

    await ctl("snapshot", "create", "disk", "pristine")
    assert "as it was at pristine" in await ctl("template", "create", "gold", "disk", "pristine")
    await ctl("template", "copy", "copy", "disk", "pristine")
    assert [each["Name"] for each in await ctl.json("template", "list")] == ["copy", "gold"]
    await ctl("template", "clone", "gold", "vm", "--size", "4M", "--label", "a=b")
    assert await ctl.content("vm") == content + bytes(2 * MIB)
    assert "gold" in await ctl("volume", "list")
    assert "Origin:      gold" in await ctl("volume", "show", "vm")
    assert (await ctl("template", "list")).splitlines()[2].split()[-2] == "1"

    await ctl("snapshot", "create", "vm", "before")
    device = Path((await ctl.json("volume", "show", "vm"))["Device"])
    with device.open("r+b") as disk:
        disk.write(b"changed")
    await ctl("snapshot", "create", "vm", "after")
    line = await ctl.refused(5, "NewerSnapshots", "snapshot", "rollback", "vm", "before", "--yes")
    assert "after" in line
    await ctl("snapshot", "rollback", "vm", "before", "--yes", "--destroy-newer")
    assert (await ctl.content("vm"))[: len(content)] == content
    assert len((await ctl("snapshot", "list", "vm")).splitlines()) == 2
    assert len((await ctl("snapshot", "list")).splitlines()) == 3

    await ctl.refused(5, "HasClones", "template", "delete", "gold", "--yes")
    await ctl.refused(5, "HasSnapshots", "volume", "delete", "vm", "--yes")
    await ctl("template", "delete", "gold", "--defer", "--yes")
    await ctl("snapshot", "delete", "vm", "before", "--yes")
    await ctl("volume", "delete", "vm", "--yes")


async def test_an_image_comes_from_standard_input(ctl: Ctl, image: Path) -> None:
    await ctl("import", "disk", "-", given=image.read_bytes())
    assert await ctl.content("disk") == image.read_bytes()


async def test_an_import_into_a_template_is_checked_and_enlarged(ctl: Ctl, image: Path) -> None:
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    options = ["--template", "--format", "raw", "--size", "4M", "--checksum", f"sha256:{digest}"]
    out = await ctl("import", "gold", image, *options)
    assert "imported template gold of 4 MiB" in out
    (template,) = await ctl.json("template", "list")
    assert template["Checksum"] == f"sha256:{digest}"


async def test_progress_in_a_pipe_is_lines_that_end_at_all_of_it(ctl: Ctl, image: Path) -> None:
    lines = (await ctl("import", "disk", image)).splitlines()
    assert "100 %" in lines[-2]
    assert "2 MiB of 2 MiB" in lines[-2]


async def test_json_of_an_import_is_the_volume_and_nothing_else(ctl: Ctl, image: Path) -> None:
    assert (await ctl.json("import", "disk", image))["Name"] == "disk"


async def test_what_cannot_be_imported_is_told_by_name_and_status(
    ctl: Ctl, images: dict[str, Path]
) -> None:
    line = await ctl.refused(3, "NotFound", "import", "disk", "/absent.img")
    assert "/absent.img" in line
    assert "backing" in await ctl.refused(8, "UnsafeImage", "import", "disk", images["backing"])
    wrong = f"sha256:{'0' * 64}"
    command = ("import", "disk", images["raw"], "--checksum", wrong)
    await ctl.refused(8, "ChecksumMismatch", *command)
    assert await ctl.json("volume", "list") == []


async def test_what_is_wrong_is_told_by_name_and_status(ctl: Ctl) -> None:
    await ctl("volume", "create", "web", "1M")
    await ctl("snapshot", "create", "web", "before")
    await ctl.refused(2, "InvalidName", "volume", "create", "a/b", "1M")
    await ctl.refused(2, "InvalidArgs", "import", "a", "https://localhost/a", "--format", "vhd")
    await ctl.refused(2, "WouldShrink", "volume", "resize", "web", "4K")
    assert "'absent'" in await ctl.refused(3, "NotFound", "volume", "show", "absent")
    line = await ctl.refused(3, "NotFound", "snapshot", "delete", "web", "absent", "--yes")
    assert "before" in line
    await ctl.refused(3, "NotFound", "job", "show", "absent")
    await ctl.refused(4, "AlreadyExists", "volume", "create", "web", "1M")


async def test_without_a_terminal_nothing_is_destroyed_unless_yes_is_said(ctl: Ctl) -> None:
    await ctl("volume", "create", "web", "1M")
    await ctl("snapshot", "create", "web", "before")
    assert "--yes" in await ctl.refused(2, "InvalidArgs", "volume", "delete", "web", "--snapshots")
    await ctl.refused(2, "InvalidArgs", "snapshot", "rollback", "web", "before")
    await ctl.refused(2, "InvalidArgs", "snapshot", "delete", "web", "before")
    assert len(await ctl.json("snapshot", "list")) == 1


async def test_a_job_is_listed_shown_watched_and_cancelled(ctl: Ctl, slow_url: str) -> None:
    identity = (await ctl("import", "disk", slow_url, "--no-wait")).strip()
    watcher = await ctl.start("job", "watch", "disk")
    assert watcher.stdout
    assert b"downloading" in await watcher.stdout.readline()
    assert "running" in await ctl("job", "list", "--running")
    assert slow_url in await ctl("job", "show", identity)
    cancelled = await ctl("job", "cancel", identity)
    assert cancelled == "import-volume of disk: cancelled\n"
    _, said = await watcher.communicate()
    assert watcher.returncode == 9
    assert said.decode().endswith("(Cancelled)\n")
    assert len((await ctl("job", "list", "--running")).splitlines()) == 1
    assert (await ctl.json("job", "show", "disk"))["State"] == "cancelled"


async def test_a_job_that_is_finished_already_is_watched_to_its_end(ctl: Ctl, image: Path) -> None:
    await ctl("import", "disk", image)
    assert (await ctl("job", "watch", "disk")).endswith("import-volume of disk: done\n")


async def test_ctrl_c_of_an_import_cancels_it(ctl: Ctl, slow_url: str) -> None:
    process = await ctl.start("import", "disk", slow_url)
    assert process.stdout
    assert b"downloading" in await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = await process.communicate()
    assert process.returncode == 130
    assert said == b"mvirt-zfsctl: the import-volume of disk is cancelled\n"
    (job,) = await ctl.json("job", "list")
    assert job["State"] == "cancelled"
    assert await ctl.json("volume", "list") == []


async def test_a_service_that_dies_under_a_watched_import_is_told(
    ctl: Ctl, slow_url: str, service: ServiceProcess
) -> None:
    process = await ctl.start("import", "disk", slow_url)
    assert process.stdout
    assert b"downloading" in await process.stdout.readline()
    await service.stop(signal.SIGKILL)
    _, said = await process.communicate()
    assert process.returncode == 10
    assert "(ServiceUnreachable)\n" in said.decode()


async def test_a_bus_that_dies_under_a_watched_import_is_told(
    ctl: Ctl, slow_url: str, bus_daemon: BusDaemon
) -> None:
    process = await ctl.start("import", "disk", slow_url)
    assert process.stdout
    assert b"downloading" in await process.stdout.readline()
    bus_daemon.kill()
    _, said = await process.communicate()
    assert process.returncode == 10
    assert "(ServiceUnreachable)\n" in said.decode()


async def test_a_job_of_a_service_that_has_gone_is_not_waited_for(
    ctl: Ctl, bus_address: str, slow_url: str, service: ServiceProcess
) -> None:
    async with zfs_client.Client.connect(bus_address) as client:
        job = await client.manager.import_image("disk", slow_url)
        await service.stop()
        with pytest.raises(zfs_client.ServiceUnreachable, match=r"org\.mvirt\.Zfs1"):
            await job.wait()
        with pytest.raises(zfs_client.ServiceUnreachable):
            await job.refresh()


async def test_a_bus_that_has_died_is_unreachable(
    ctl: Ctl, bus_address: str, bus_daemon: BusDaemon
) -> None:
    async with zfs_client.Client.connect(bus_address) as client:
        bus_daemon.kill()
        with pytest.raises(zfs_client.ServiceUnreachable):
            await client.volumes()


async def test_a_bus_without_the_service_is_told(ctl: Ctl, service: ServiceProcess) -> None:
    await service.stop()
    await ctl.refused(10, "ServiceUnreachable", "volume", "list")


async def test_the_pool_is_shown(ctl: Ctl) -> None:
    shown = await ctl("pool")
    assert "Health:      ONLINE" in shown
    assert "Volumes:     0" in shown


async def test_a_reader_that_has_seen_enough_is_no_error(ctl: Ctl) -> None:
    command = f"{sys.executable} -m mvirt_zfs_dbus.cli.main pool | true; exit ${{PIPESTATUS[0]}}"
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, env=ctl.environment, stderr=subprocess.PIPE
    )
    _, said = await process.communicate()
    assert (process.returncode, said) == (0, b"")


async def test_a_program_follows_a_job_and_gets_what_it_made(
    ctl: Ctl, bus_address: str, images: dict[str, Path]
) -> None:
    async with zfs_client.Client.connect(bus_address) as client:
        source = os.open(images["qcow2"], os.O_RDONLY)
        job = await client.manager.import_image("gold", source, template=True)
        os.close(source)
        made = await job.wait()
        assert job.progress.fraction == 1
        template = await client.manager.template("gold")
        assert template.path == made
        clone = await template.clone("vm", labels={"a": "b"})
        await clone.set_labels({"c": "d"})
        assert (await clone.refresh()).labels == {"c": "d"}
        await template.rename("silver")
        assert [each.name for each in await client.templates()] == ["silver"]
        assert [each.name for each in await client.volumes()] == ["vm"]
        snapshot = await clone.create_snapshot("before")
        assert [each.path for each in await client.snapshots()] == [snapshot.path]
        device = os.open(clone.device, os.O_RDONLY)
        with closing(os.fdopen(device, "rb")):
            users = await clone.users()
        assert [user["pid"] for user in users] == [os.getpid()]
        assert await client.manager.rescan() == 0
        await job.remove()
        assert await client.jobs() == []
        assert (await client.manager.refresh()).version
        assert repr(clone) == f"<Volume {clone.path}>"


async def test_a_program_gets_a_failed_job_as_the_error_it_ended_with(
    ctl: Ctl, bus_address: str, image: Path
) -> None:
    async with zfs_client.Client.connect(bus_address, interactive=False) as client:
        job = await client.manager.import_image("small", str(image), size=65536)
        with pytest.raises(InvalidSize, match="65536"):
            await job.wait()
        with pytest.raises(NotFound):
            await client.manager.volume("small")
