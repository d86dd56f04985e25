"""The real service as a process on a private bus, and a client that sees it as a program would."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mvirt_zfs_dbus import errors, names
from mvirt_zfs_dbus.api.publisher import Publisher
from mvirt_zfs_dbus.bus.dispatch import Dispatcher
from mvirt_zfs_dbus.bus.objects import ObjectTree
from mvirt_zfs_dbus.bus.polkit import OwnerAuthority
from mvirt_zfs_dbus.bus.wire import (
    BUS,
    Connection,
    MatchRule,
    Message,
    MessageFlag,
    RemoteError,
    Variant,
    connect,
    unpacked,
)
from mvirt_zfs_dbus.core.imports import ImportPolicy
from mvirt_zfs_dbus.core.service import Service, Settings
from mvirt_zfs_dbus.names import Interface
from mvirt_zfs_dbus.store.base import Store

MIB = 2**20
PATIENCE = 300.0
"""Seconds for an answer. A thousand calls at once may take longer than the bindings' 25."""
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"


class ServiceProcess:
    """``python -m mvirt_zfs_dbus --directory …``, which can be stopped and started again."""

    def __init__(
        self, address: str, directory: Path, *arguments: str, system: bool = False
    ) -> None:
        self.address = address
        self.directory = directory
        self.arguments = arguments
        self.system = system
        self.log = directory.parent / "service.log"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, client: Connection) -> None:
        """Return when the service owns its name."""
        owned = asyncio.Event()

        def heard(message: Message) -> None:
            if message.body[2]:
                owned.set()

        rule = MatchRule(sender=BUS, member="NameOwnerChanged", arg0=names.BUS_NAME)
        subscription = await client.subscribe(rule, heard)
        self.process = await self.spawn()
        died = asyncio.create_task(self.process.wait())
        ready = asyncio.create_task(owned.wait())
        try:
            await asyncio.wait([died, ready], return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise RuntimeError(f"the service ended: {self.log.read_text()}")
        finally:
            for task in (died, ready):
                task.cancel()
            subscription.close()

    async def spawn(self) -> asyncio.subprocess.Process:
        bus = "system" if self.system else self.address
        environment = os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": self.address}
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "mvirt_zfs_dbus",
                "--directory",
                str(self.directory),
                "--bus",
                bus,
                *self.arguments,
                stderr=log,
                env=environment,
            )

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit status, or minus the signal that killed it."""
        assert self.process
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()


class Client:
    """Calls, reads and listens as any program on the bus would."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def call(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *body: Any,
        fds: Sequence[int] = (),
        interactive: bool = False,
    ) -> Any:
        """One out argument as itself, several as a list, none as None. Errors as exceptions."""
        flags = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else MessageFlag.NONE
        try:
            reply = await self.connection.call(
                names.BUS_NAME,
                path,
                str(interface),
                member,
                signature,
                [str(value) if isinstance(value, str) else value for value in body],
                timeout=PATIENCE,
                flags=flags,
                unix_fds=fds,
            )
        except RemoteError as error:
            raise errors.from_name(error.name, error.message) from error
        values = unpacked(reply)
        return values[0] if len(values) == 1 else values or None

    async def manager(self, member: str, signature: str = "", *body: Any, **more: Any) -> Any:
        return await self.call(names.ROOT, Interface.MANAGER, member, signature, *body, **more)

    async def get(self, path: str, interface: str, name: str) -> Any:
        return await self.call(path, PROPERTIES, "Get", "ss", interface, name)

    async def get_all(self, path: str, interface: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.call(path, PROPERTIES, "GetAll", "s", interface)
        return found

    async def objects(self) -> dict[str, dict[str, dict[str, Any]]]:
        found: dict[str, dict[str, dict[str, Any]]] = await self.call(
            names.ROOT, OBJECT_MANAGER, "GetManagedObjects"
        )
        return found

    # What most tests begin with

    async def create(self, name: str = "web", size: int = MIB, **options: Variant) -> str:
        named = {key.replace("_", "-"): value for key, value in options.items()}
        path: str = await self.manager("CreateVolume", "sta{sv}", name, size, named)
        return path

    async def snapshot(self, volume: str, name: str = "before") -> str:
        path: str = await self.call(volume, Interface.VOLUME, "CreateSnapshot", "sa{sv}", name, {})
        return path

    async def template(self, snapshot: str, name: str = "gold") -> str:
        path: str = await self.call(
            snapshot, Interface.SNAPSHOT, "CreateTemplate", "sa{sv}", name, {}
        )
        return path

    async def clone(self, template: str, name: str = "clone") -> str:
        path: str = await self.call(template, Interface.TEMPLATE, "Clone", "sa{sv}", name, {})
        return path

    async def device(self, volume: str) -> Path:
        return Path(await self.get(volume, Interface.VOLUME, "Device"))

    async def import_path(self, name: str, source: Path | str, **options: Variant) -> str:
        path: str = await self.manager("ImportVolume", "ssa{sv}", name, str(source), options)
        return path

    @asynccontextmanager
    async def signals(self, member: str = "") -> AsyncIterator[asyncio.Queue[Message]]:
        """Every signal of the service from now on, or those of one name."""
        heard: asyncio.Queue[Message] = asyncio.Queue()
        rule = MatchRule(path_namespace=names.ROOT, member=member)
        subscription = await self.connection.subscribe(rule, heard.put_nowait)
        try:
            yield heard
        finally:
            subscription.close()

    async def completed(self, job: str) -> dict[str, Any]:
        """A job's properties once it is finished."""
        async with self.signals() as heard:
            while True:
                properties = await self.get_all(job, Interface.JOB)
                if properties["State"] in ("done", "failed", "cancelled"):
                    return properties
                await heard.get()


@asynccontextmanager
async def client_on(address: str) -> AsyncIterator[Client]:
    connection = await connect(address)
    try:
        yield Client(connection)
    finally:
        await connection.close()


@asynccontextmanager
async def in_process_service(
    address: str, store: Store, state_directory: Path
) -> AsyncIterator[Client]:
    """The service inside the test's own process, so that a store double can be under it."""
    connection = await connect(address)
    policy = ImportPolicy(directories=None, max_image_size=2**40)
    service = Service(store, Settings(state_directory, max_imports=4, import_policy=policy))
    tree = ObjectTree()
    Publisher(service, tree)
    await service.start()
    tree.publish(connection.send)
    dispatcher = Dispatcher(connection, tree, OwnerAuthority(os.getuid()))
    await connection.request_name(names.BUS_NAME)
    try:
        async with client_on(address) as client:
            yield client
    finally:
        await dispatcher.close()
        await service.close()
        await connection.close()
