"""The same service without this project's client: dbus-fast alone (python3-dbus-fast).

    python3 dbus_fast_only.py NAME BYTES

Makes a volume, prints its properties, and watches what happens until the volume is gone.
The bus is the system bus, or $DBUS_SYSTEM_BUS_ADDRESS.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from dbus_fast import BusType, Message, MessageFlag, MessageType, Variant
from dbus_fast.aio import MessageBus

SERVICE = "org.mvirt.Zfs1"
ROOT = "/org/mvirt/Zfs1"
BUS = "org.freedesktop.DBus"
PROPERTIES = "org.freedesktop.DBus.Properties"


async def main(name: str, size: int) -> None:
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    gone = asyncio.Event()
    match = f"type='signal',sender='{SERVICE}',path_namespace='{ROOT}'"
    await call(bus, BUS, "/org/freedesktop/DBus", BUS, "AddMatch", "s", match)

    options = {"labels": Variant("a{ss}", {"made-by": "dbus-fast"})}
    path = await call(
        bus, SERVICE, ROOT, f"{SERVICE}.Manager", "CreateVolume", "sta{sv}", name, size, options
    )

    def heard(message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.member == "PropertiesChanged" and message.path == path:
            changed = {key: value.value for key, value in message.body[1].items()}
            print("changed:", changed, flush=True)
        if message.member == "InterfacesRemoved" and message.body[0] == path:
            gone.set()

    bus.add_message_handler(heard)
    properties = await call(bus, SERVICE, path, PROPERTIES, "GetAll", "s", f"{SERVICE}.Volume")
    for key, value in properties.items():
        print(f"{key}: {value.value}", flush=True)
    await gone.wait()
    print("gone")
    bus.disconnect()


async def call(
    bus: MessageBus,
    destination: str,
    path: str,
    interface: str,
    member: str,
    signature: str,
    *body: Any,
) -> Any:
    message = Message(
        destination=destination,
        path=path,
        interface=interface,
        member=member,
        signature=signature,
        body=list(body),
        flags=MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION,  # polkit may ask for a password
    )
    reply = await bus.call(message)
    assert reply
    if reply.message_type is MessageType.ERROR:
        raise SystemExit(f"{reply.error_name}: {reply.body[0]}")
    return reply.body[0] if reply.body else None


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
