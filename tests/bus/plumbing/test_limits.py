"""What one user of the bus can take from the others: nothing but a share."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from busdaemon import BusDaemon
from hostile import Socket
from open_fds import only_open, open_fds

from mvirt_zfs_dbus import errors
from mvirt_zfs_dbus.bus import admission, dispatch, users
from mvirt_zfs_dbus.bus.audit import REFUSALS, AuditLog
from mvirt_zfs_dbus.bus.interface import Call
from mvirt_zfs_dbus.bus.users import User
from mvirt_zfs_dbus.bus.wire import Connection, Message, MessageFlag, RemoteError, Variant, connect

from .conftest import Ask
from .toy import HOUSE, LAMP, NAME, ROOT, Toy, path

LIMITS_EXCEEDED = "org.freedesktop.DBus.Error.LimitsExceeded"
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service takes every caller for somebody of another user than its own."""
    monkeypatch.setattr(admission, "own_uid", lambda: -1)


@pytest.fixture
async def other(bus_address: str) -> AsyncIterator[Connection]:
    connection = await connect(bus_address)
    yield connection
    await connection.close()


async def limited(ask: Ask, *arguments: Any, **more: Any) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        await ask(*arguments, **more)
    assert caught.value.name == LIMITS_EXCEEDED
    return caught.value


def quiet(member: str, *body: str) -> Message:
    return Message(
        destination=NAME,
        path=ROOT,
        interface=HOUSE,
        member=member,
        signature="s" * len(body),
        body=list(body),
        flags=MessageFlag.NO_REPLY_EXPECTED,
    )


async def test_a_call_that_is_too_large_is_refused_unread_and_its_fds_are_closed(
    toy: Toy, ask: Ask
) -> None:
    await ask(ROOT, HOUSE, "Echo", "s", "")
    before = open_fds()
    options = {str(number): Variant("y", 0) for number in range(dispatch.LARGEST_CALL // 8)}
    with Path(os.devnull).open() as null:
        for _ in range(3):
            error = await limited(
                ask, ROOT, HOUSE, "Take", "ha{sv}", 0, options, unix_fds=[null.fileno()] * 4
            )
    assert str(dispatch.LARGEST_CALL) in error.message
    await only_open(before)
    assert await ask(ROOT, HOUSE, "Echo", "s", "x" * 100_000) == ["x" * 100_000]


async def test_an_answer_larger_than_the_bus_takes_is_an_error_and_the_service_stays(
    tmp_path: Path,
) -> None:
    """The bus would end the service's connection over it."""
    bus = BusDaemon(tmp_path, real_limits=True)
    toy = await Toy.on(bus.address)
    for number in range(36):
        toy.add(str(number)).labels = {"x": "x" * 2**20}
    await toy.start()
    client = await connect(bus.address)
    with pytest.raises(RemoteError) as caught:
        await client.call(NAME, ROOT, OBJECT_MANAGER, "GetManagedObjects")
    assert caught.value.name == LIMITS_EXCEEDED
    for number in range(6):
        toy.remove(str(number))
    (found,) = await client.call(NAME, ROOT, OBJECT_MANAGER, "GetManagedObjects")
    assert len(found) == 30
    await client.close()
    await toy.close()
    bus.stop()


@pytest.mark.usefixtures("strangers")
async def test_one_users_connections_share_a_bound_and_another_has_his_own(
    toy: Toy, ask: Ask, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "CALLS_PER_USER", 3)
    async with asyncio.TaskGroup() as waiting:
        for _ in range(3):
            waiting.create_task(ask(ROOT, HOUSE, "Wait"))
        while toy.waiting < 3:
            toy.arrived.clear()
            await toy.arrived.wait()
        with pytest.raises(RemoteError, match=f"uid {os.getuid()}"):
            await other.call(NAME, ROOT, HOUSE, "Echo", "s", ["x"])
        monkeypatch.setattr(admission, "own_uid", os.geteuid)
        toy.dispatcher._admission._users.clear()
        toy.dispatcher._admission._known.clear()
        assert await other.call(NAME, ROOT, HOUSE, "Echo", "s", ["x"]) == ["x"]
        toy.released.set()


@pytest.mark.usefixtures("strangers")
async def test_a_few_reads_of_a_user_look_at_the_pool_at_a_time(
    toy: Toy, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "BURST", 1000.0)
    async with asyncio.TaskGroup() as waiting:
        for _ in range(3 * users.READS_PER_USER):
            waiting.create_task(ask(ROOT, HOUSE, "Wait"))
        while toy.waiting < users.READS_PER_USER:
            toy.arrived.clear()
            await toy.arrived.wait()
        await ask(path("a"), PROPERTIES, "Get", "ss", LAMP, "Name")
        assert toy.waiting == users.READS_PER_USER
        toy.released.set()
    assert toy.waiting == 3 * users.READS_PER_USER


@pytest.mark.usefixtures("strangers")
async def test_a_flood_that_wants_no_answer_is_passed_over(
    toy: Toy,
    client: Connection,
    ask: Ask,
    bus_address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "FLOOD", 3600)
    toy.dispatcher._admission._per_sender = 5
    await ask(ROOT, HOUSE, "Echo", "s", "")
    received = 0
    really_receive = toy.dispatcher._receive

    def receive(message: Message) -> None:
        nonlocal received
        received += message.sender == client.unique_name
        really_receive(message)

    toy.connection.on_call(receive)
    for _ in range(2000):
        client.send(quiet("Wait"))
    stranger = await connect(bus_address)
    assert await stranger.call(NAME, path("a"), PROPERTIES, "GetAll", "s", [PROPERTIES]) == [{}]
    await stranger.close()
    assert 5 < received < 500
    toy.released.set()


def test_a_user_has_a_share_of_the_time_and_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    user, owner = User(1, bounded=True), User(0, bounded=False)
    user.charge(users.BURST)
    assert user.owes() == 0
    user.charge(0.05)
    assert user.owes() == pytest.approx(0.05 / users.SHARE)
    now += 0.05 / users.SHARE
    assert user.owes() == pytest.approx(0)
    assert not user.idle
    now += users.BURST / users.SHARE + 1
    assert user.idle
    owner.charge(1000)
    assert owner.owes() == 0


@pytest.mark.usefixtures("strangers")
async def test_who_reads_no_answers_gets_no_more_of_them_and_others_are_served(
    toy: Toy, bus_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On dbus-daemon, unread answers of 127 MiB would silence the service for all."""
    monkeypatch.setattr(users, "UNREAD", 2**20)
    monkeypatch.setattr(users, "BURST", 1000.0)
    deaf = Socket(bus_address)
    silent = asyncio.Event()
    really_look = users.Unread._look

    async def look(unread: users.Unread, user: User) -> None:
        await really_look(unread, user)
        if unread.too_much(user):
            silent.set()

    monkeypatch.setattr(users.Unread, "_look", look)
    sizes: list[int] = []
    answered = asyncio.Event()
    really_finished = toy.dispatcher._answers._finished

    def finished(request: users.Request, size: int) -> None:
        sizes.append(size)
        really_finished(request, size)
        if sum(sizes) > 4 * 2**20:
            answered.set()

    toy.dispatcher._answers._finished = finished
    for _ in range(200):
        deaf.send(Message(NAME, ROOT, HOUSE, "Echo", signature="s", body=["x" * 100_000]))
    await silent.wait()
    assert 2**20 < sum(sizes) < 4 * 2**20
    monkeypatch.setattr(admission, "own_uid", os.geteuid)
    toy.dispatcher._admission._known.clear()
    toy.dispatcher._admission._users.clear()
    other = await connect(bus_address)
    assert await other.call(NAME, ROOT, HOUSE, "Echo", "s", ["x"]) == ["x"]
    await other.close()
    monkeypatch.setattr(users, "_LOOK_AGAIN", 0)
    deaf.close()
    async with asyncio.timeout(60):  # calls of its may still come from the bus
        await answered.wait()


async def test_of_a_flood_of_refused_calls_the_log_has_some_and_their_number(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    log = AuditLog()
    call = Call(":1.5", 1000, False, ROOT, HOUSE, "Take")
    with caplog.at_level(logging.INFO, "mvirt_zfs_dbus.audit"):
        for _ in range(500):
            log.write(call, {}, errors.AccessDenied("no"))
        assert len(caplog.messages) == REFUSALS
        log.write(call, {}, None)
        log.write(Call(":1.6", 1001, False, ROOT, HOUSE, "Take"), {}, errors.AccessDenied("no"))
        assert len(caplog.messages) == REFUSALS + 2
        now += 2
        log.write(call, {}, errors.AccessDenied("no"))
    assert caplog.messages[-2] == f"{500 - REFUSALS} more refused calls by uid 1000"


def test_the_journal_takes_each_field_of_a_record(caplog: pytest.LogCaptureFixture) -> None:
    call = Call(":1.5", 1000, False, ROOT, HOUSE, "Rename")
    with caplog.at_level(logging.INFO, "mvirt_zfs_dbus.audit"):
        AuditLog().write(call, {"name": "ci-1", "new-name": "web"}, None)
    fields = vars(caplog.records[-1])["fields"]
    assert fields["MVIRT_NEW_NAME"] == "web"
    assert all(re.fullmatch("[A-Z][A-Z0-9_]{0,63}", name) for name in fields)


def test_no_text_of_a_caller_begins_another_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    call = Call(":1.5", 1000, False, ROOT, HOUSE, "Import")
    forged = "x\nINFO: Delete by uid 0: ok\x1b[2K\u2028"
    with caplog.at_level(logging.INFO, "mvirt_zfs_dbus.audit"):
        AuditLog().write(call, {"source": forged}, errors.AccessDenied(forged))
    assert caplog.messages[-1].isprintable()
