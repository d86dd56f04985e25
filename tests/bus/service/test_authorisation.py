"""Every method asks polkit for its action, with details, and does nothing it was not allowed to.

polkitd is a double here (``tests/bus/plumbing/polkit_double.py`` says why); the real one answers in
the test machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from polkitd import Polkitd, polkitd_on

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.bus.wire import Variant
from mvirt_zfs_dbus.errors import AccessDenied, Error
from mvirt_zfs_dbus.names import Action, ErrorName, Interface

from .process import MIB, Client, ServiceProcess, client_on

CHANGING = (
    "Manager.CreateVolume", "Manager.ImportVolume", "Manager.ImportTemplate",
    "Manager.ImportVolumeFromFd", "Manager.ImportTemplateFromFd",
    "Volume.Resize", "Volume.Rename", "Volume.SetLabels", "Volume.Delete", "Volume.CreateSnapshot",
    "Snapshot.Rollback", "Snapshot.Delete", "Snapshot.CreateTemplate", "Snapshot.CopyToTemplate",
    "Template.Clone", "Template.Rename", "Template.SetLabels", "Template.Delete",
    "Job.Cancel", "Job.Remove",
)  # fmt: skip


@pytest.fixture
async def polkitd(bus_address: str) -> AsyncIterator[Polkitd]:
    async with polkitd_on(bus_address) as double:
        yield double


@pytest.fixture
async def service(
    bus_address: str, directory: Path, connected: Client, polkitd: Polkitd, image: Path
) -> AsyncIterator[ServiceProcess]:
    config = directory.parent / "config.toml"
    config.write_text(f'import-directories = ["{image.parent}"]\n')
    process = ServiceProcess(bus_address, directory, "--config", str(config), system=True)
    await process.start(connected.connection)
    yield process
    await process.stop()


@dataclass
class World:
    """Objects for a call to act on, new ones each time."""

    client: Client
    polkitd: Polkitd
    image: Path
    count: int = 0

    def name(self) -> str:
        self.count += 1
        return f"n{self.count}"

    async def volume(self) -> str:
        return await self.client.create(self.name())

    async def snapshot(self) -> str:
        return await self.client.snapshot(await self.volume(), self.name())

    async def template(self) -> str:
        return await self.client.template(await self.snapshot(), self.name())

    async def make(self, action: Action) -> Call:
        """A call that needs ``action``, on objects made for it with polkit's blessing."""
        await self.polkitd.says("allow")
        call = await CALLS[action](self)
        await self.polkitd.says("allow")  # its answer comes after all that it was asked
        while not self.polkitd.checked.empty():
            self.polkitd.checked.get_nowait()
        return call


@dataclass
class Call:
    path: str
    member: str
    signature: str
    body: list[Any]
    details: dict[str, str]
    """What polkit must be told, among other things."""

    async def by(self, client: Client, *, interactive: bool = False) -> Any:
        interface, _, member = self.member.partition(".")
        return await client.call(
            self.path,
            f"org.mvirt.Zfs1.{interface}",
            member,
            self.signature,
            *self.body,
            interactive=interactive,
        )


async def create(world: World) -> Call:
    name = world.name()
    details = {"name": name, "size": str(MIB), "pool": "disks"}
    return Call(names.ROOT, "Manager.CreateVolume", "sta{sv}", [name, MIB, {}], details)


async def modify(world: World) -> Call:
    volume = await world.volume()
    properties = await world.client.get_all(volume, Interface.VOLUME)
    details = {"id": properties["Id"], "name": properties["Name"]}
    return Call(volume, "Volume.Resize", "ta{sv}", [2 * MIB, {}], details | {"size": str(2 * MIB)})


async def snapshot(world: World) -> Call:
    found = await world.snapshot()
    name = await world.client.get(found, Interface.SNAPSHOT, "Name")
    return Call(found, "Snapshot.Delete", "a{sv}", [{}], {"name": name})


async def template(world: World) -> Call:
    name = world.name()
    return Call(
        await world.snapshot(), "Snapshot.CreateTemplate", "sa{sv}", [name, {}], {"name": name}
    )


async def import_path(world: World) -> Call:
    name, source = world.name(), str(world.image)
    body = [name, source, {"size": Variant("t", 4 * MIB)}]
    details = {"name": name, "source": source, "size": str(4 * MIB)}
    return Call(names.ROOT, "Manager.ImportVolume", "ssa{sv}", body, details)


async def import_url(world: World) -> Call:
    name = world.name()
    body = [name, "http://user:secret@127.0.0.1:1/x", {}]
    details = {"name": name, "source": "http://127.0.0.1:1/x"}
    return Call(names.ROOT, "Manager.ImportTemplate", "ssa{sv}", body, details)


async def delete(world: World) -> Call:
    found = await world.template()
    name = await world.client.get(found, Interface.TEMPLATE, "Name")
    return Call(found, "Template.Delete", "a{sv}", [{}], {"name": name, "pool": "disks"})


async def rollback(world: World) -> Call:
    found = await world.snapshot()
    name = await world.client.get(found, Interface.SNAPSHOT, "Name")
    return Call(found, "Snapshot.Rollback", "a{sv}", [{}], {"name": name})


CALLS: dict[Action, Callable[[World], Awaitable[Call]]] = {
    Action.CREATE: create,
    Action.MODIFY: modify,
    Action.SNAPSHOT: snapshot,
    Action.TEMPLATE: template,
    Action.IMPORT_PATH: import_path,
    Action.IMPORT_URL: import_url,
    Action.DELETE: delete,
    Action.ROLLBACK: rollback,
}
"""``import`` needs a descriptor and ``cancel`` another user's job; they have their own tests."""


@pytest.fixture
def world(client: Client, polkitd: Polkitd, image: Path) -> World:
    return World(client, polkitd, image)


async def refused(call: Awaitable[Any], name: ErrorName) -> None:
    with pytest.raises(Error) as caught:
        await call
    assert caught.value.name == name, str(caught.value)


@pytest.mark.parametrize("action", CALLS)
async def test_denied_challenged_and_allowed(
    client: Client, world: World, polkitd: Polkitd, action: Action
) -> None:
    call = await world.make(action)
    before = await client.objects()
    for verdict, name in (
        ("deny", ErrorName.ACCESS_DENIED),
        ("challenge", ErrorName.INTERACTIVE_AUTHORIZATION_REQUIRED),
        ("dismiss", ErrorName.ACCESS_DENIED),
        ("fail", ErrorName.ACCESS_DENIED),
        ("refuse", ErrorName.ACCESS_DENIED),
    ):
        await polkitd.says(verdict)
        await refused(call.by(client), name)
        asked = await polkitd.checked.get()
        assert (asked["action"], asked["flags"]) == (action, 0)
        assert asked["kind"] == "system-bus-name"
        assert asked["subject"] == {"name": client.connection.unique_name}
        assert call.details.items() <= asked["details"].items()
        assert polkitd.checked.empty()
    after = await client.objects()
    assert before.keys() == after.keys()

    await polkitd.says("challenge")
    await call.by(client, interactive=True)
    assert (await polkitd.checked.get())["flags"] == 1

    again = await world.make(action)
    await polkitd.says("allow")
    await again.by(client)
    assert (await polkitd.checked.get())["action"] == action


async def test_importing_a_descriptor_is_its_own_action(
    client: Client, polkitd: Polkitd, image: Path
) -> None:
    with image.open("rb") as file:
        for verdict, name in (
            ("deny", ErrorName.ACCESS_DENIED),
            ("challenge", ErrorName.INTERACTIVE_AUTHORIZATION_REQUIRED),
        ):
            await polkitd.says(verdict)
            call = client.manager(
                "ImportVolumeFromFd", "sha{sv}", "web", 0, {}, fds=[file.fileno()]
            )
            await refused(call, name)
            asked = await polkitd.checked.get()
            assert (asked["action"], asked["details"]["name"]) == (Action.IMPORT, "web")
        await polkitd.says("allow")
        job = await client.manager(
            "ImportVolumeFromFd", "sha{sv}", "web", 0, {}, fds=[file.fileno()]
        )
    assert (await client.completed(job))["State"] == "done"


async def test_ones_own_job_is_free_and_somebody_elses_is_not(
    client: Client, polkitd: Polkitd, service: ServiceProcess
) -> None:
    await polkitd.says("allow")
    reader, writer = os.pipe()
    jobs = [
        await client.manager("ImportVolumeFromFd", "sha{sv}", f"v{n}", 0, {}, fds=[reader])
        for n in range(2)
    ]
    await polkitd.says("deny")
    await client.call(jobs[0], Interface.JOB, "Cancel", "a{sv}", {})
    await client.call(jobs[0], Interface.JOB, "Remove", "a{sv}", {})
    if os.getuid() == 0:
        for verdict, said in (("deny", b"denied"), ("challenge", b"authentication")):
            await polkitd.says(verdict)
            assert said in await as_nobody(service, jobs[1], "Cancel")
        await polkitd.says("allow")
        assert await as_nobody(service, jobs[1], "Cancel") == b""
        assert await client.get(jobs[1], Interface.JOB, "State") == "cancelled"
    else:
        await client.call(jobs[1], Interface.JOB, "Cancel", "a{sv}", {})
    os.close(reader)
    os.close(writer)


async def as_nobody(service: ServiceProcess, job: str, member: str) -> bytes:
    """What busctl says of a call by another user."""
    process = await asyncio.create_subprocess_exec(
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
        "busctl", f"--address={service.address}", "--allow-interactive-authorization=no",
        "call", names.BUS_NAME, job,
        Interface.JOB, member, "a{sv}", "0",
        stderr=subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    return said


async def test_a_caller_that_leaves_takes_its_question_back(
    service: ServiceProcess, polkitd: Polkitd
) -> None:
    await polkitd.says("hang")
    async with client_on(service.address) as leaving:
        call = asyncio.create_task(leaving.create("web"))
        asked = await polkitd.checked.get()
    assert await polkitd.cancelled.get() == asked["cancellation"]
    call.cancel()
    await asyncio.wait([call])
    async with client_on(service.address) as other:
        assert await other.manager("ListVolumes", "a{sv}", {}) == []


async def test_a_volume_renamed_during_the_prompt_is_asked_about_again(
    client: Client, polkitd: Polkitd, service: ServiceProcess
) -> None:
    """A rule that lets somebody delete by name must not be tricked into another name."""
    await polkitd.says("allow")
    volume = await client.create("mine")
    await polkitd.checked.get()
    await polkitd.says("hold")
    deleting = asyncio.create_task(client.call(volume, Interface.VOLUME, "Delete", "a{sv}", {}))
    assert (await polkitd.checked.get())["details"]["name"] == "mine"
    await polkitd.says("allow")
    await client.call(volume, Interface.VOLUME, "Rename", "sa{sv}", "theirs", {})
    assert (await polkitd.checked.get())["action"] == Action.MODIFY
    await polkitd.says("deny")
    await polkitd.release()
    await refused(deleting, ErrorName.ACCESS_DENIED)
    assert (await polkitd.checked.get())["details"]["name"] == "theirs"
    assert await client.get(volume, Interface.VOLUME, "Name") == "theirs"


async def test_reading_asks_nobody(client: Client, polkitd: Polkitd) -> None:
    await polkitd.says("allow")
    volume = await client.create("web")
    await polkitd.checked.get()
    await polkitd.says("deny")
    await client.objects()
    await client.get_all(volume, Interface.VOLUME)
    await client.manager("ListVolumes", "a{sv}", {})
    await client.manager("Refresh", "a{sv}", {})
    await client.call(volume, Interface.VOLUME, "GetUsers", "a{sv}", {})
    assert polkitd.checked.empty()


async def test_a_path_outside_the_import_directories_is_refused_even_when_authorised(
    client: Client, polkitd: Polkitd
) -> None:
    await polkitd.says("allow")
    await refused(client.import_path("web", "/etc/shadow"), ErrorName.ACCESS_DENIED)


async def test_who_may_not_import_a_path_does_not_learn_whether_it_is_there(
    client: Client, polkitd: Polkitd, image: Path
) -> None:
    await polkitd.says("deny")
    for path in (image, image.with_name("no such"), "/etc/shadow", "/proc/self/environ"):
        with pytest.raises(AccessDenied, match="not authorised for") as caught:
            await client.import_path("web", path)
        assert str(path) not in str(caught.value)


async def test_without_polkit_only_root_is_let_in(
    client: Client, service: ServiceProcess, polkitd: Polkitd
) -> None:
    await polkitd.quit()
    if os.getuid() == 0:
        await client.create("web")
    else:
        await refused(client.create("web"), ErrorName.ACCESS_DENIED)


async def test_a_stop_during_a_prompt_is_answered_and_quick(
    client: Client, service: ServiceProcess, polkitd: Polkitd
) -> None:
    await polkitd.says("hang")
    call = asyncio.create_task(client.create("web"))
    await polkitd.checked.get()
    assert await service.stop(signal.SIGTERM) == 0
    await refused(call, ErrorName.INTERRUPTED)


def test_the_tests_above_know_every_method_that_changes_something() -> None:
    from mvirt_zfs_dbus.api import job, manager, pool, snapshot, template, volume
    from mvirt_zfs_dbus.bus.interface import Interface as Served

    classes: list[type[Served]] = [
        manager.ManagerInterface,
        pool.PoolInterface,
        volume.VolumeInterface,
        snapshot.SnapshotInterface,
        template.TemplateInterface,
        job.JobInterface,
    ]
    changing = {
        f"{served.name.rpartition('.')[2]}.{name}": spec.guard
        for served in classes
        for name, spec in served.methods.items()
        if spec.changes
    }
    assert set(changing) == set(CHANGING)
    assert {name: guard for name, guard in changing.items() if isinstance(guard, Action)} == {
        "Manager.CreateVolume": Action.CREATE,
        "Manager.ImportVolumeFromFd": Action.IMPORT,
        "Manager.ImportTemplateFromFd": Action.IMPORT,
        "Volume.Resize": Action.MODIFY,
        "Volume.Rename": Action.MODIFY,
        "Volume.SetLabels": Action.MODIFY,
        "Volume.Delete": Action.DELETE,
        "Volume.CreateSnapshot": Action.SNAPSHOT,
        "Snapshot.Rollback": Action.ROLLBACK,
        "Snapshot.Delete": Action.SNAPSHOT,
        "Snapshot.CreateTemplate": Action.TEMPLATE,
        "Snapshot.CopyToTemplate": Action.TEMPLATE,
        "Template.Clone": Action.CREATE,
        "Template.Rename": Action.TEMPLATE,
        "Template.SetLabels": Action.MODIFY,
        "Template.Delete": Action.DELETE,
    }
