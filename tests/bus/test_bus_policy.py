"""The system bus's policy file, read by a real dbus-daemon set up as Debian's system bus is."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from busdaemon import remove_socket

from mvirt_zfs_dbus.names import BUS_NAME

try:
    from dbus_fast import Message, MessageType, RequestNameReply
    from dbus_fast.aio import MessageBus
except ImportError:
    with warnings.catch_warnings():
        # PyGObject 3.42 has an importer of the old kind, and Python 3.11 says so.
        warnings.simplefilter("ignore", ImportWarning)
        from dbus_next import Message, MessageType, RequestNameReply
        from dbus_next.aio import MessageBus

POLICY = Path(__file__).parents[2] / f"data/dbus-1/system.d/{BUS_NAME}.conf"
NOBODY = 65534

pytestmark = pytest.mark.skipif(
    not (shutil.which("dbus-daemon") and shutil.which("gdbus")),
    reason="needs dbus-daemon and libglib2.0-bin",
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may own the name")

# What /usr/share/dbus-1/system.conf lets through before a service's own file is read.
CONFIGURATION = """<busconfig>
  <type>system</type>
  <listen>unix:tmpdir=/tmp</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  {include}
</busconfig>
"""


@pytest.fixture(params=[f"<include>{POLICY}</include>"], ids=["policy"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    configuration = tmp_path / "bus.conf"
    configuration.write_text(CONFIGURATION.format(include=request.param))
    command = ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        try:
            assert daemon.stdout
            line = daemon.stdout.readline().strip()
            assert line, "dbus-daemon refuses the policy file"
            yield line
            remove_socket(line)
        finally:
            daemon.terminate()


def call(address: str, destination: str, path: str, method: str, *args: str, uid: int = 0) -> str:
    """What gdbus prints, its error included."""
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
    command = [*user, "gdbus", "call", f"--address={address}", f"--dest={destination}"]
    result = subprocess.run(
        [*command, f"--object-path={path}", f"--method={method}", *args],
        capture_output=True,
        text=True,
        timeout=30,
    )
    return (result.stdout + result.stderr).strip()


@asynccontextmanager
async def owner(address: str) -> AsyncIterator[None]:
    """A double of the service: it owns the name and answers every call with nothing."""
    bus = await MessageBus(bus_address=address).connect()
    bus.add_message_handler(
        lambda message: (
            Message.new_method_return(message)
            if message.message_type is MessageType.METHOD_CALL
            else None
        )
    )
    assert await bus.request_name(BUS_NAME) is RequestNameReply.PRIMARY_OWNER
    try:
        yield
    finally:
        bus.disconnect()
        await bus.wait_for_disconnect()
        bus._sock.close()  # dbus-next only shuts it down


def request_name(address: str, name: str, uid: int = 0) -> str:
    bus = "org.freedesktop.DBus"
    return call(address, bus, "/org/freedesktop/DBus", f"{bus}.RequestName", name, "4", uid=uid)


@as_root
def test_root_may_own_the_name(address: str) -> None:
    assert request_name(address, BUS_NAME) == "(uint32 1,)"


@as_root
def test_nobody_else_may_own_the_name(address: str) -> None:
    assert "AccessDenied" in request_name(address, BUS_NAME, uid=NOBODY)


@as_root
def test_no_other_name_comes_with_it(address: str) -> None:
    assert "AccessDenied" in request_name(address, f"{BUS_NAME}.Other")


@as_root
@pytest.mark.parametrize("uid", [0, NOBODY])
@pytest.mark.parametrize(
    "method",
    [
        f"{BUS_NAME}.Manager.ListVolumes",
        "org.freedesktop.DBus.Properties.GetAll",
        "org.freedesktop.DBus.ObjectManager.GetManagedObjects",
        "org.freedesktop.DBus.Introspectable.Introspect",
        "org.freedesktop.DBus.Peer.Ping",
    ],
)
async def test_everybody_may_send_the_service_any_call(address: str, method: str, uid: int) -> None:
    async with owner(address):
        assert await asyncio.to_thread(call, address, BUS_NAME, "/", method, uid=uid) == "()"


@as_root
@pytest.mark.parametrize(
    "address", ["<policy user='root'><allow own='*'/></policy>"], indirect=True
)
async def test_without_the_policy_file_the_bus_lets_no_call_through(address: str) -> None:
    method = f"{BUS_NAME}.Manager.ListVolumes"
    async with owner(address):
        assert "AccessDenied" in await asyncio.to_thread(call, address, BUS_NAME, "/", method)
