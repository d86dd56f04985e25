"""The connection: full sockets, dead buses, lost names, passed fds, signals."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path

import pytest
from busdaemon import BusDaemon
from open_fds import only_open, open_fds

from mvirt_zfs_dbus import errors
from mvirt_zfs_dbus.bus.library import bus_address as address_of
from mvirt_zfs_dbus.bus.wire import (
    BUS,
    BusError,
    Connection,
    ConnectionLost,
    MatchRule,
    Message,
    MessageFlag,
    NameTaken,
    RemoteError,
    Variant,
    connect,
    unpacked,
)

from .conftest import Ask
from .toy import HOUSE, NAME, ROOT, Toy


async def test_a_bus_that_reads_nothing_for_a_second_gets_all_signals_in_order(
    bus_daemon: BusDaemon, toy: Toy, client: Connection
) -> None:
    count = 20_000
    numbers: list[int] = []
    complete = asyncio.Event()

    def heard(message: Message) -> None:
        numbers.append(message.body[0])
        if len(numbers) == count:
            complete.set()

    await client.subscribe(MatchRule(member="Tick"), heard)
    bus_daemon.pause()
    try:
        for number in range(count):
            text = "x" * 100
            toy.connection.send(Message.new_signal(ROOT, HOUSE, "Tick", "us", [number, text]))
        cpu = time.process_time()
        await asyncio.sleep(1)  # the second the bus is stopped for
        waited_without_spinning = time.process_time() - cpu < 0.5
        backlog = toy.connection.backlog
    finally:
        bus_daemon.resume()
    await complete.wait()
    assert numbers == list(range(count))
    assert backlog > 0
    assert waited_without_spinning
    assert toy.connection.backlog == 0
    assert not toy.connection.lost.is_set()


async def test_fds_of_messages_that_had_to_wait_arrive_with_their_message(
    bus_daemon: BusDaemon, toy: Toy, client: Connection
) -> None:
    padding = "x" * 100_000
    bus_daemon.pause()
    calls = []
    try:
        for number in range(20):
            client.send(Message.new_signal("/", HOUSE, "Padding", "s", [padding]))
            reading, writing = os.pipe()
            os.write(writing, b"%d" % number)
            os.close(writing)
            call = client.call(NAME, ROOT, HOUSE, "Take", "ha{sv}", [0, {}], unix_fds=[reading])
            calls.append(asyncio.create_task(call))
            await asyncio.sleep(0)
            os.close(reading)  # the writer has its own copy of what waits
        assert client.backlog > 0
    finally:
        bus_daemon.resume()
    answers = await asyncio.gather(*calls)
    assert [answer[0] for answer in answers] == [str(number) for number in range(20)]


async def test_a_killed_bus_is_a_lost_connection(bus_daemon: BusDaemon, bus_address: str) -> None:
    connection = await connect(bus_address)
    hanging = asyncio.create_task(connection.call_bus("GetId"))
    bus_daemon.kill()
    await connection.lost.wait()
    assert connection.why_lost.endswith(("closed the connection", "reset by peer", "Broken pipe"))
    with pytest.raises(ConnectionLost):
        await hanging
        await connection.call_bus("GetId")
    with pytest.raises(ConnectionLost):
        await connection.call_bus("GetId")
    await connection.close()


async def test_a_stopped_bus_is_a_lost_connection(bus_daemon: BusDaemon, bus_address: str) -> None:
    connection = await connect(bus_address)
    bus_daemon.stop()
    await connection.lost.wait()
    assert connection.why_lost == "the bus has closed the connection"
    await connection.close()


async def test_no_bus_is_an_error_that_names_the_address(tmp_path: Path) -> None:
    with pytest.raises(BusError, match=f"unix:path={tmp_path}/none"):
        await connect(f"unix:path={tmp_path}/none")
    with pytest.raises(BusError, match="nonsense"):
        await connect("nonsense")


def test_the_system_and_session_bus_are_found_where_everybody_finds_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    assert address_of("system") == "unix:path=/run/dbus/system_bus_socket"
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/there")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/here")
    assert address_of("system") == "unix:path=/there"
    assert address_of("session") == "unix:path=/here"
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    assert address_of("session") == "unix:path=/run/user/1/bus"
    assert address_of("unix:path=/other") == "unix:path=/other"


async def test_a_taken_name_is_refused_and_not_queued_for(toy: Toy, client: Connection) -> None:
    with pytest.raises(NameTaken, match=r"org\.example\.Toy.*twice"):
        await client.request_name(NAME)
    freed = asyncio.Event()
    rule = MatchRule(sender=BUS, member="NameOwnerChanged", arg0=NAME)
    await client.subscribe(rule, lambda message: freed.set())
    await toy.close()
    await freed.wait()
    assert await client.name_owner(NAME) == ""
    assert not client.lost.is_set()


async def test_a_name_that_goes_to_somebody_else_is_a_loss(bus_address: str) -> None:
    connection = await connect(bus_address)
    await connection.request_name(NAME)
    assert await connection.name_owner(NAME) == connection.unique_name
    await connection.call_bus("ReleaseName", "s", [NAME])
    await connection.lost.wait()
    assert NAME in connection.why_lost
    await connection.close()


async def test_errors_of_the_service_come_back_as_what_they_were(toy: Toy, ask: Ask) -> None:
    with pytest.raises(errors.InvalidSize, match="level 101 is more than 100"):
        await ask(f"{ROOT}/lamp/a", "org.example.Toy.Lamp", "SetLevel", "ta{sv}", 101, {})
    with pytest.raises(RemoteError) as caught:
        await ask(ROOT, HOUSE, "Nonsense")
    assert caught.value.name == "org.freedesktop.DBus.Error.UnknownMethod"


async def test_a_call_that_gets_no_answer_in_time_is_a_timeout(toy: Toy, ask: Ask) -> None:
    with pytest.raises(TimeoutError):
        await ask(ROOT, HOUSE, "Wait", timeout=0.01)
    toy.released.set()


@pytest.mark.parametrize("member", ["Nonsense", "Look"])
async def test_no_fd_of_any_call_stays_open(
    toy: Toy, client: Connection, ask: Ask, member: str
) -> None:
    with Path("/dev/null").open("rb") as null:
        before = open_fds()
        calls = [
            ask(ROOT, HOUSE, member, "hhhh", 0, 1, 2, 3, unix_fds=[null.fileno()] * 4)
            for _ in range(50)
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        if member == "Look":
            assert results == [[]] * 50
        else:
            assert all(isinstance(result, RemoteError) for result in results)
        await only_open(before)


async def test_fds_to_a_connection_without_objects_and_in_signals_are_closed(
    client: Connection, bus_address: str
) -> None:
    other = await connect(bus_address)
    with Path("/dev/null").open("rb") as null:
        before = open_fds()
        heard = asyncio.Event()
        await other.subscribe(MatchRule(member="Passed"), lambda message: heard.set())
        signal = Message.new_signal("/", HOUSE, "Passed", "h", [0], [null.fileno()])
        client.send(signal)
        await heard.wait()
        with pytest.raises(RemoteError, match="no objects"):
            await client.call(
                other.unique_name, "/", HOUSE, "Take", "h", [0], unix_fds=[null.fileno()]
            )
        await only_open(before)
    await other.close()


async def test_an_unknown_message_flag_is_ignored(toy: Toy, ask: Ask) -> None:
    flags = MessageFlag(0x88)
    assert await ask(ROOT, HOUSE, "Echo", "s", "still here", flags=flags) == ["still here"]


async def test_a_closed_subscription_hears_nothing_more(
    toy: Toy, client: Connection, ask: Ask
) -> None:
    first: asyncio.Queue[Message] = asyncio.Queue()
    second: asyncio.Queue[Message] = asyncio.Queue()
    rule = MatchRule(sender=toy.connection.unique_name, member="Burnt", arg0="yes")
    subscription = await client.subscribe(rule, first.put_nowait)
    await client.subscribe(rule, second.put_nowait)
    for number, text in enumerate(["yes", "no", "yes"]):
        toy.connection.send(Message.new_signal(ROOT, HOUSE, "Burnt", "su", [text, number]))
        if number == 0:
            await first.get()
            subscription.close()
            subscription.close()
    assert [(await second.get()).body[1], (await second.get()).body[1]] == [0, 2]
    assert first.empty()


async def test_a_subscription_to_the_bus_is_not_fooled_by_somebody_else(
    client: Connection, toy: Toy, ask: Ask
) -> None:
    heard: list[Message] = []
    await client.subscribe(MatchRule(sender=BUS, member="NameOwnerChanged"), heard.append)
    forged = Message.new_signal(
        "/org/freedesktop/DBus", BUS, "NameOwnerChanged", "sss", [client.unique_name, "", ""]
    )
    forged.destination = client.unique_name
    toy.connection.send(forged)
    await ask(ROOT, HOUSE, "Echo", "s", "after it")
    assert heard == []


async def test_what_was_sent_before_closing_arrives(client: Connection, bus_address: str) -> None:
    signals: asyncio.Queue[Message] = asyncio.Queue()
    await client.subscribe(MatchRule(member="Last"), signals.put_nowait)
    other = await connect(bus_address)
    other.send(Message.new_signal("/", HOUSE, "Last", "s", ["word"]))
    await other.close()
    assert (await signals.get()).body == ["word"]


async def test_closing_does_not_wait_for_a_bus_that_reads_nothing(
    bus_daemon: BusDaemon, bus_address: str
) -> None:
    gc.collect()  # what earlier tests left closes nothing from here on
    before = open_fds()
    connection = await connect(bus_address)
    bus_daemon.pause()
    connection.send(Message.new_signal("/", HOUSE, "Big", "ay", [bytes(10_000_000)]))
    await connection.close()
    bus_daemon.resume()
    assert open_fds() == before


def test_variants_are_unpacked_at_every_depth() -> None:
    value = [Variant("a{sv}", {"a": Variant("as", ["b"]), "c": Variant("v", Variant("t", 1))})]
    assert unpacked(value) == [{"a": ["b"], "c": 1}]
