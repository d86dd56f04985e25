"""The polkitd double (``polkit_double.py``) as a process on the private bus, seen from a test."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mvirt_zfs_dbus.bus.polkit import AUTHORITY_PATH, POLKIT
from mvirt_zfs_dbus.bus.wire import BUS, Connection, MatchRule, Message, connect

MOCK = "org.freedesktop.DBus.Mock"
TEMPLATE = Path(__file__).parent / "plumbing" / "polkit_double.py"


class Polkitd:
    def __init__(self, connection: Connection, process: asyncio.subprocess.Process) -> None:
        self.connection = connection
        self.process = process
        self.checked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()

    async def says(self, verdict: str) -> None:
        """See ``SetVerdict`` of the double."""
        await self.connection.call(POLKIT, AUTHORITY_PATH, MOCK, "SetVerdict", "s", [verdict])

    async def release(self) -> None:
        """Allow what "hold" has kept waiting."""
        await self.connection.call(POLKIT, AUTHORITY_PATH, MOCK, "Release")

    async def quit(self) -> None:
        """Return when nobody is polkit on this bus any more."""
        gone = asyncio.Event()
        rule = MatchRule(sender=BUS, member="NameOwnerChanged", arg0=POLKIT)
        await self.connection.subscribe(rule, lambda message: gone.set())
        self.process.kill()
        await gone.wait()
        await self.process.wait()

    async def listen(self) -> None:
        keys = ("kind", "subject", "action", "details", "flags", "cancellation")

        def checked(message: Message) -> None:
            self.checked.put_nowait(dict(zip(keys, json.loads(message.body[0]), strict=True)))

        def cancelled(message: Message) -> None:
            self.cancelled.put_nowait(message.body[0])

        await self.connection.subscribe(MatchRule(interface=MOCK, member="Checked"), checked)
        await self.connection.subscribe(MatchRule(interface=MOCK, member="Cancelled"), cancelled)


@asynccontextmanager
async def polkitd_on(bus_address: str) -> AsyncIterator[Polkitd]:
    connection = await connect(bus_address)
    owned = asyncio.Event()
    rule = MatchRule(sender=BUS, member="NameOwnerChanged", arg0=POLKIT)
    await connection.subscribe(rule, lambda message: owned.set())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dbusmock", "--system", "--template", str(TEMPLATE)),
        env=os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": bus_address},
    )
    await owned.wait()
    double = Polkitd(connection, process)
    await double.listen()
    yield double
    await connection.close()
    if process.returncode is None:
        process.terminate()
    await process.wait()
