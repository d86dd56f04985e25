"""From a message to its answer."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

import pytest

from mvirt_zfs_dbus import errors
from mvirt_zfs_dbus.bus import dispatch
from mvirt_zfs_dbus.bus.interface import Call
from mvirt_zfs_dbus.bus.socket_io import MESSAGES_PER_TURN
from mvirt_zfs_dbus.bus.wire import (
    Connection,
    Message,
    MessageFlag,
    MessageType,
    RemoteError,
    Variant,
    connect,
    unpacked,
)
from mvirt_zfs_dbus.names import Action

from .conftest import Ask
from .toy import HOUSE, LAMP, NAME, ROOT, OpenHouse, Toy, path

DBUS_ERROR = "org.freedesktop.DBus.Error."


async def refused(ask: Ask, *arguments: object, **more: object) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        await ask(*arguments, **more)
    return caught.value


async def test_a_handler_gets_its_arguments_and_answers_several_values(toy: Toy, ask: Ask) -> None:
    options = {"text": Variant("s", "x"), "labels": Variant("a{ss}", {"a": "b"})}
    number, text = await ask(ROOT, HOUSE, "Pair", "ta{sv}", 7, options)
    assert (number, text) == (7, "{'text': 'x', 'labels': {'a': 'b'}}")
    assert toy.calls[0].args == (7,)
    assert toy.calls[0].uid == os.getuid()
    assert unpacked(await ask(ROOT, HOUSE, "Describe", "a{sv}", {})) == [[{"name": "desk"}]]


async def test_a_handler_knows_its_caller(toy: Toy, client: Connection, ask: Ask) -> None:
    await ask(path("a"), LAMP, "SetLevel", "ta{sv}", 1, {"slowly": Variant("b", True)})
    flags = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
    await ask(path("a"), LAMP, "SetLevel", "ta{sv}", 2, {}, flags=flags)
    quiet, interactive = toy.calls
    assert quiet == Call(
        sender=client.unique_name,
        uid=os.getuid(),
        interactive=False,
        path=path("a"),
        interface=LAMP,
        member="SetLevel",
        args=(1,),
        options={"slowly": True},
    )
    assert interactive.interactive


async def reply_to(client: Connection, message: Message) -> Message:
    """Send a call as it is and answer its reply as it is."""
    message.serial = 1_000_000
    client._pending[message.serial] = reply = asyncio.get_running_loop().create_future()
    client.send(message)
    return await reply


async def test_a_call_without_an_interface_finds_its_member(toy: Toy, client: Connection) -> None:
    for where, member, signature, body in (
        (ROOT, "Echo", "s", ["found"]),
        (path("a"), "Free", "", []),
        (path("a"), "Ping", "", []),
    ):
        call = Message(destination=NAME, path=where, member=member, signature=signature, body=body)
        reply = await reply_to(client, call)
        assert (reply.error_name, reply.body) == (None, body)


async def test_a_call_is_answered_after_the_changes_it_made(
    toy: Toy, client: Connection, heard: asyncio.Queue[Message]
) -> None:
    call = Message(
        destination=NAME,
        path=path("a"),
        interface=LAMP,
        member="SetLevel",
        signature="ta{sv}",
        body=[9, {}],
    )
    reply = await reply_to(client, call)
    changed = heard.get_nowait()
    assert unpacked(changed.body[1]) == {"Level": 9}
    assert changed.serial < reply.serial


async def test_a_wrong_signature_is_told_the_right_one(toy: Toy, ask: Ask) -> None:
    error = await refused(ask, path("a"), LAMP, "SetLevel", "s", "bright")
    assert error.name == DBUS_ERROR + "InvalidArgs"
    assert error.message == (
        "SetLevel takes (level: t, options: a{sv}), signature 'ta{sv}'; the call has 's'"
    )
    error = await refused(ask, path("a"), LAMP, "Free", "s", "x")
    assert "Free takes (nothing)" in error.message


async def test_an_unknown_option_is_told_the_known_ones(toy: Toy, ask: Ask) -> None:
    arguments = (path("a"), LAMP, "SetLevel", "ta{sv}", 1)
    error = await refused(ask, *arguments, {"fast": Variant("b", True)})
    assert error.name == DBUS_ERROR + "InvalidArgs"
    assert error.message == "option 'fast' is not known here; allowed: slowly (b)"
    error = await refused(ask, *arguments, {"slowly": Variant("s", "yes")})
    assert error.message == "option 'slowly' has type 's' and not 'b'; allowed: slowly (b)"
    error = await refused(ask, ROOT, HOUSE, "Describe", "a{sv}", {"x": Variant("b", True)})
    assert error.message == "option 'x' is not known here; this method knows no options"
    assert toy.calls == []


async def test_what_does_not_exist_has_its_own_error(toy: Toy, ask: Ask) -> None:
    for where, interface, member, error in (
        (path("none"), LAMP, "SetLevel", "UnknownObject"),
        (f"{ROOT}/lamp", LAMP, "SetLevel", "UnknownObject"),
        (path("a"), HOUSE, "Echo", "UnknownInterface"),
        (path("a"), LAMP, "Explode", "UnknownMethod"),
        (path("a"), "org.freedesktop.DBus.Peer", "Explode", "UnknownMethod"),
    ):
        assert (await refused(ask, where, interface, member)).name == DBUS_ERROR + error


async def test_no_traceback_reaches_a_caller(
    toy: Toy, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    for member in ("Crash", "Lie"):
        with pytest.raises(errors.Error) as caught:
            await ask(ROOT, HOUSE, member)
        assert type(caught.value) is errors.Error
        assert "fault of the service" in caught.value.message
        assert "log" in caught.value.message
        assert "secret" not in caught.value.message
        assert "Traceback" not in caught.value.message
    assert "ZeroDivisionError" in caplog.text
    assert "secret.py" in caplog.text
    assert "'not a number'" in caplog.text


async def test_a_passed_fd_is_read_by_the_handler_that_takes_it(toy: Toy, ask: Ask) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"hello")
    os.close(writing)
    taken = await ask(ROOT, HOUSE, "Take", "ha{sv}", 0, {}, unix_fds=[reading])
    os.close(reading)
    assert taken == ["hello"]


async def test_an_fd_that_did_not_come_is_an_error(toy: Toy, ask: Ask) -> None:
    error = await refused(ask, ROOT, HOUSE, "Take", "ha{sv}", 3, {})
    assert error.name == DBUS_ERROR + "InvalidArgs"
    assert "no file descriptor" in error.message


async def test_a_call_without_an_fd_does_not_get_that_of_the_next(
    toy: Toy, client: Connection, bus_address: str, ask: Ask
) -> None:
    """Which may be another user's: dbus-fast gives both messages one list."""
    other = await connect(bus_address)
    for connection in (client, other):  # the service knows both callers from now on
        await connection.call(NAME, ROOT, HOUSE, "Echo", "s", ["hello"])
    for _ in range(20):
        reading, writing = os.pipe()
        os.write(writing, b"theirs")
        os.close(writing)
        without = asyncio.create_task(refused(ask, ROOT, HOUSE, "Take", "ha{sv}", 0, {}))
        passed = asyncio.create_task(
            other.call(NAME, ROOT, HOUSE, "Take", "ha{sv}", [0, {}], unix_fds=[reading])
        )
        for _ in range(3):
            await asyncio.sleep(0)  # both are sent
        # This loop, which is the service's as well, does not read meanwhile.
        time.sleep(0.005)  # noqa: ASYNC251
        assert "no file descriptor" in (await without).message
        assert await passed == ["theirs"]
        os.close(reading)
    await other.close()


async def test_a_call_holds_no_more_fds_open_than_it_takes(
    toy: Toy, authority: OpenHouse, ask: Ask
) -> None:
    """Each may wait for a prompt as long as its caller likes, and the service has so many fds."""
    with Path(os.devnull).open() as null:
        fds = [null.fileno()] * 16
        for arguments, takes in (
            ((path("a"), LAMP, "SetLevel", "ta{sv}", 1, {}), "none"),
            ((ROOT, HOUSE, "Take", "ha{sv}", 0, {}), "1"),
            ((ROOT, HOUSE, "Echo", "s", "x"), "none"),
        ):
            error = await refused(ask, *arguments, unix_fds=fds)
            assert error.name == DBUS_ERROR + "InvalidArgs"
            assert f"use for {takes}" in error.message
    assert not authority.asked


async def test_nobody_is_authorised_for_what_is_wrong_anyway(
    toy: Toy, ask: Ask, authority: OpenHouse
) -> None:
    await refused(ask, path("a"), LAMP, "SetLevel", "s", "bright")
    await refused(ask, path("a"), LAMP, "SetLevel", "ta{sv}", 1, {"x": Variant("b", True)})
    await refused(ask, path("none"), LAMP, "SetLevel", "ta{sv}", 1, {})
    assert authority.asked == []


async def test_methods_are_authorised_with_details_and_queries_and_free_ones_are_not(
    toy: Toy, ask: Ask, authority: OpenHouse
) -> None:
    await ask(ROOT, HOUSE, "Echo", "s", "")
    await ask(path("a"), LAMP, "Free")
    await ask(path("a"), LAMP, "SetLevel", "ta{sv}", 1, {})
    [(call, action, details)] = authority.asked
    assert (call.args, action, details) == ((1,), Action.MODIFY, {"name": "desk", "id": "a"})


class Meanwhile(OpenHouse):
    """Something happens while the prompt is open."""

    def __init__(self, *events: object) -> None:
        super().__init__()
        self.events = list(events)

    async def authorize(self, call: Call, action: Action, details: dict[str, str]) -> None:
        await super().authorize(call, action, details)
        if self.events:
            event = self.events.pop(0)
            assert callable(event)
            event()


async def test_an_object_renamed_during_a_prompt_is_asked_about_again(
    bus_address: str, ask: Ask
) -> None:
    def rename() -> None:
        toy.lights["a"].name = "precious"

    authority = Meanwhile(rename)
    toy = await Toy.on(bus_address, authority)
    toy.add("a")
    await toy.start()
    await ask(path("a"), LAMP, "SetLevel", "ta{sv}", 1, {})
    assert [details["name"] for _, _, details in authority.asked] == ["desk", "precious"]
    await toy.close()


@pytest.mark.parametrize("again", [False, True])
async def test_an_object_that_goes_during_a_prompt_is_unknown(
    bus_address: str, ask: Ask, again: bool
) -> None:
    def replace() -> None:
        toy.remove("a")
        if again:
            toy.lights["b"] = toy.lights.get("b") or type(light)()
            toy.tree.add(path("a"), "b", [toy.lamp])

    toy = await Toy.on(bus_address, Meanwhile(replace))
    light = toy.add("a")
    await toy.start()
    error = await refused(ask, path("a"), LAMP, "SetLevel", "ta{sv}", 1, {})
    assert error.name == DBUS_ERROR + "UnknownObject"
    assert toy.calls == []
    await toy.close()


async def test_a_call_that_wants_no_reply_gets_none(
    toy: Toy, client: Connection, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Message] = []
    really_send = toy.connection.send

    def send(message: Message, **how: bool) -> int:
        if message.message_type is not MessageType.METHOD_CALL:
            sent.append(message)
        return really_send(message, **how)

    monkeypatch.setattr(toy.connection, "send", send)
    for member in ("Wait", "Nonsense"):
        client.send(
            Message(
                destination=NAME,
                path=ROOT,
                interface=HOUSE,
                member=member,
                flags=MessageFlag.NO_REPLY_EXPECTED,
            )
        )
    toy.released.set()
    await ask(ROOT, HOUSE, "Echo", "s", "after them")
    assert toy.waiting == 1
    assert [message.body for message in sent] == [["after them"]]


async def test_ten_thousand_pipelined_calls_are_answered_and_nobody_is_kept_waiting(
    toy: Toy, ask: Ask
) -> None:
    turns = 0
    await ask(ROOT, HOUSE, "Echo", "s", "")  # from now on it is known whose calls they are
    calls = [
        asyncio.create_task(ask(ROOT, HOUSE, "Echo", "s", str(n), timeout=None))
        for n in range(10_000)
    ]

    async def somebody_else() -> None:
        nonlocal turns
        while not all(call.done() for call in calls[-1:]):
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(somebody_else())
    answers = await asyncio.gather(*calls)
    await other
    assert answers == [[str(n)] for n in range(10_000)]
    assert turns > 10_000 / MESSAGES_PER_TURN


async def test_one_caller_has_a_bound_and_does_not_use_up_anothers(
    bus_address: str, client: Connection, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    toy = await Toy.on(bus_address, max_calls_per_sender=10)
    toy.add("a")
    await toy.start()
    waiting = [asyncio.create_task(ask(ROOT, HOUSE, "Wait")) for _ in range(10)]
    while toy.waiting < 10:
        toy.arrived.clear()
        await toy.arrived.wait()
    error = await refused(ask, ROOT, HOUSE, "Echo", "s", "one more")
    assert error.name == DBUS_ERROR + "LimitsExceeded"
    with caplog.at_level(logging.INFO, "mvirt_zfs_dbus.audit"):
        await refused(ask, path("a"), LAMP, "SetLevel", "ta{sv}", 1, {})
    assert "LimitsExceeded" in caplog.messages[-1]
    other = await connect(bus_address)
    assert await other.call(NAME, ROOT, HOUSE, "Echo", "s", ["mine"]) == ["mine"]
    toy.released.set()
    await asyncio.gather(*waiting)
    assert await ask(ROOT, HOUSE, "Echo", "s", "again") == ["again"]
    await other.close()
    await toy.close()


async def test_calls_are_refused_while_too_much_waits_to_be_sent(
    toy: Toy, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MAX_BACKLOG", -1)
    for arguments in ((HOUSE, "Echo", "s", "x"), ("org.freedesktop.DBus.Peer", "Ping")):
        error = await refused(ask, ROOT, *arguments)
        assert error.name == DBUS_ERROR + "LimitsExceeded"


async def test_calls_in_flight_when_the_service_stops_are_told_so(toy: Toy, ask: Ask) -> None:
    waiting = asyncio.create_task(ask(ROOT, HOUSE, "Wait"))
    await toy.arrived.wait()
    await toy.dispatcher.close()
    with pytest.raises(errors.Interrupted, match="cut off"):
        await waiting
    with pytest.raises(errors.Interrupted, match="stopping"):
        await ask(ROOT, HOUSE, "Echo", "s", "too late")


@pytest.mark.parametrize(
    ("where", "interface", "member", "signature", "body"),
    [
        (ROOT, HOUSE, "Wait", "", []),
        (path("a"), "org.freedesktop.DBus.Properties", "GetAll", "s", [LAMP]),
    ],
)
async def test_a_call_that_arrives_just_before_the_service_stops_is_answered(
    toy: Toy,
    client: Connection,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    interface: str,
    member: str,
    signature: str,
    body: list[str],
) -> None:
    call = Message(NAME, where, interface, member, signature=signature, body=body)
    call.sender = client.unique_name
    call.serial = 7
    sent: list[Message] = []
    monkeypatch.setattr(toy.connection, "send", lambda message: sent.append(message) or 0)
    toy.dispatcher._receive(call)
    await toy.dispatcher.close()
    assert [message.reply_serial for message in sent if message.reply_serial] == [7]


class Nobody(OpenHouse):
    async def authorize(self, call: Call, action: Action, details: dict[str, str]) -> None:
        raise errors.AccessDenied("not today")


async def test_every_call_that_changes_something_is_recorded_once(
    bus_address: str, client: Connection, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    toy = await Toy.on(bus_address)
    toy.add("a")
    await toy.start()
    with caplog.at_level(logging.INFO, "mvirt_zfs_dbus.audit"):
        await ask(path("a"), LAMP, "SetLevel", "ta{sv}", 1, {})
        with pytest.raises(errors.InvalidSize):
            await ask(path("a"), LAMP, "SetLevel", "ta{sv}", 101, {})
        await refused(ask, path("a"), LAMP, "SetLevel", "s", "x")
        await ask(path("a"), LAMP, "Free")
        toy.dispatcher._authority = Nobody()
        await refused(ask, path("a"), LAMP, "SetLevel", "ta{sv}", 1, {})
        await ask(ROOT, HOUSE, "Echo", "s", "not recorded")
    records = [record for record in caplog.records if record.name == "mvirt_zfs_dbus.audit"]
    fields = [record.__dict__["fields"] for record in records]
    assert [found["MVIRT_OUTCOME"] for found in fields] == [
        "ok",
        "org.mvirt.Zfs1.Error.InvalidSize",
        DBUS_ERROR + "InvalidArgs",
        "ok",
        DBUS_ERROR + "AccessDenied",
    ]
    assert fields[0] == {
        "MVIRT_UID": str(os.getuid()),
        "MVIRT_SENDER": client.unique_name,
        "MVIRT_OBJECT": path("a"),
        "MVIRT_OPERATION": f"{LAMP}.SetLevel",
        "MVIRT_OUTCOME": "ok",
        "MVIRT_NAME": "desk",
        "MVIRT_ID": "a",
    }
    assert "name='desk'" in records[0].getMessage()
    assert "not today" in records[4].getMessage()
    await toy.close()


async def test_no_caller_fills_the_log_with_one_call_or_writes_lines_of_its_own_into_it(
    toy: Toy, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    toy.lights["a"].name = "n" * 2**20
    with caplog.at_level(logging.INFO, "mvirt_zfs_dbus.audit"):
        options = {"\nINFO: by uid 0: ok" + "o" * 100_000: Variant("b", True)}
        await refused(ask, path("a"), LAMP, "SetLevel", "ta{sv}", 1, options)
        await ask(path("a"), LAMP, "SetLevel", "ta{sv}", 1, {})
    records = [record for record in caplog.records if record.name == "mvirt_zfs_dbus.audit"]
    assert len(records) == 2
    for record in records:
        assert "\n" not in record.getMessage()
        assert len(record.getMessage()) < 10_000
        assert sum(map(len, record.__dict__["fields"].values())) < 10_000
