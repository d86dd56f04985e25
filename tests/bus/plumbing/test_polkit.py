"""Who is let in, by polkit and without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from polkitd import Polkitd, polkitd_on

from mvirt_zfs_dbus import errors
from mvirt_zfs_dbus.bus import polkit
from mvirt_zfs_dbus.bus.interface import Call
from mvirt_zfs_dbus.bus.polkit import OwnerAuthority, PolkitAuthority
from mvirt_zfs_dbus.bus.wire import (
    BUS,
    BUS_PATH,
    Connection,
    MessageFlag,
    RemoteError,
    connect,
    unpacked,
)
from mvirt_zfs_dbus.names import Action

from .conftest import Ask
from .toy import LAMP, NAME, Toy, path

INTERACTIVE = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
ACCESS_DENIED = "org.freedesktop.DBus.Error.AccessDenied"
STATS = "org.freedesktop.DBus.Debug.Stats"
CHALLENGE = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"

SetLevel = (path("a"), LAMP, "SetLevel", "ta{sv}", 1, {})


@pytest.fixture
async def polkitd(bus_address: str) -> AsyncIterator[Polkitd]:
    async with polkitd_on(bus_address) as double:
        yield double


@pytest.fixture
async def guarded(bus_address: str) -> AsyncIterator[Toy]:
    """The toy, asking polkit."""
    connection = await connect(bus_address)
    service = Toy(connection, PolkitAuthority(connection))
    service.add("a")
    await service.start()
    yield service
    await service.close()


async def test_polkit_is_asked_about_the_caller_the_action_and_the_object(
    polkitd: Polkitd, guarded: Toy, client: Connection, ask: Ask
) -> None:
    await polkitd.says("allow")
    await ask(*SetLevel)
    question = await polkitd.checked.get()
    assert question.pop("cancellation")
    assert question == {
        "kind": "system-bus-name",
        "subject": {"name": client.unique_name},
        "action": "org.mvirt.zfs1.modify",
        "details": {"name": "desk", "id": "a"},
        "flags": 0,
    }
    assert guarded.lights["a"].level == 1


async def test_who_is_not_authorised_is_told_the_action_and_what_would_help(
    polkitd: Polkitd, guarded: Toy, ask: Ask
) -> None:
    for verdict, flags, name, text in (
        ("deny", MessageFlag.NONE, ACCESS_DENIED, "rules.d"),
        ("challenge", MessageFlag.NONE, CHALLENGE, "interactively"),
        ("nobody-to-ask", INTERACTIVE, ACCESS_DENIED, "no polkit agent"),
        ("dismiss", INTERACTIVE, ACCESS_DENIED, "dismissed"),
        ("fail", MessageFlag.NONE, ACCESS_DENIED, "is not registered"),
        ("refuse", MessageFlag.NONE, ACCESS_DENIED, "has to be root"),
    ):
        await polkitd.says(verdict)
        with pytest.raises(RemoteError) as caught:
            await ask(*SetLevel, flags=flags)
        assert caught.value.name == name, verdict
        assert "org.mvirt.zfs1.modify" in caught.value.message
        assert text in caught.value.message
    assert guarded.lights["a"].level == 0


async def test_polkit_may_prompt_only_if_the_call_allows_it(
    polkitd: Polkitd, guarded: Toy, ask: Ask
) -> None:
    await polkitd.says("challenge")
    await ask(*SetLevel, flags=INTERACTIVE)
    assert (await polkitd.checked.get())["flags"] == 1
    assert guarded.lights["a"].level == 1


async def test_a_caller_that_leaves_the_bus_takes_its_check_back(
    polkitd: Polkitd, guarded: Toy, bus_address: str, ask: Ask
) -> None:
    await polkitd.says("hang")
    leaving = await connect(bus_address)
    body = SetLevel[4:]
    call = leaving.call(NAME, *SetLevel[:4], body, flags=INTERACTIVE)  # type: ignore[arg-type]
    waiting = asyncio.create_task(call)
    question = await polkitd.checked.get()
    await leaving.close()
    assert await polkitd.cancelled.get() == question["cancellation"]
    await asyncio.gather(waiting, return_exceptions=True)
    assert guarded.lights["a"].level == 0
    await polkitd.says("allow")
    await ask(*SetLevel)


async def test_a_service_that_stops_takes_its_checks_back(
    polkitd: Polkitd, guarded: Toy, ask: Ask
) -> None:
    await polkitd.says("hang")
    waiting = asyncio.create_task(ask(*SetLevel, flags=INTERACTIVE))
    question = await polkitd.checked.get()
    await guarded.dispatcher.close()
    assert await polkitd.cancelled.get() == question["cancellation"]
    with pytest.raises(errors.Interrupted):
        await waiting


async def test_one_users_open_prompts_leave_room_for_the_questions_of_others(
    polkitd: Polkitd, client: Connection
) -> None:
    """The system bus lets a connection wait for 128 replies, and those are for all callers."""
    authority = PolkitAuthority(client)

    async def ask_as(uid: int) -> None:
        call = Call(client.unique_name, uid, True, "/", LAMP, "SetLevel")
        await authority.authorize(call, Action.MODIFY, {})

    await polkitd.says("hold")
    async with asyncio.TaskGroup() as prompts:
        for _ in range(3 * polkit.CHECKS_PER_USER):
            prompts.create_task(ask_as(1000))
        asked = [await polkitd.checked.get() for _ in range(polkit.CHECKS_PER_USER)]
        await polkitd.says("allow")
        await ask_as(1001)
        asked.append(await polkitd.checked.get())
        assert len(asked) == polkit.CHECKS_PER_USER + 1
        assert polkitd.checked.empty()
        await polkitd.release()
    for _ in range(2 * polkit.CHECKS_PER_USER):
        await polkitd.checked.get()


async def test_a_polkit_that_hangs_refuses_in_the_end_and_holds_nobody_else_up(
    polkitd: Polkitd, guarded: Toy, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polkit, "_ANSWER_WITHIN", 0.05)
    await polkitd.says("hang")
    with pytest.raises(RemoteError, match=r"polkit\.service") as caught:
        await ask(*SetLevel)
    assert caught.value.name == ACCESS_DENIED
    await polkitd.cancelled.get()
    assert guarded.lights["a"].level == 0


async def test_a_polkit_that_dies_with_a_question_open_is_a_refusal(
    polkitd: Polkitd, guarded: Toy, ask: Ask
) -> None:
    await polkitd.says("hang")
    waiting = asyncio.create_task(ask(*SetLevel, flags=INTERACTIVE))
    await polkitd.checked.get()
    polkitd.process.kill()
    with pytest.raises(RemoteError, match="no answer") as caught:
        await waiting
    assert caught.value.name == ACCESS_DENIED


async def test_without_polkit_only_root_is_let_in(client: Connection) -> None:
    authority = PolkitAuthority(client)
    root = Call(client.unique_name, 0, False, "/", LAMP, "SetLevel")
    await authority.authorize(root, Action.MODIFY, {})
    user = Call(client.unique_name, 1000, False, "/", LAMP, "SetLevel")
    with pytest.raises(errors.AccessDenied, match="root alone"):
        await authority.authorize(user, Action.MODIFY, {})


async def test_the_owner_of_a_session_service_alone_is_let_in() -> None:
    authority = OwnerAuthority(1000)
    await authority.authorize(Call(":1.1", 1000, False, "/", LAMP, "x"), Action.DELETE, {})
    for uid in (0, 1001, -1):
        with pytest.raises(errors.AccessDenied, match=r"zfs1\.delete is for uid 1000"):
            await authority.authorize(Call(":1.1", uid, False, "/", LAMP, "x"), Action.DELETE, {})


async def test_the_bus_is_asked_who_leaves_once_for_questions_that_follow_each_other(
    polkitd: Polkitd, client: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = PolkitAuthority(client)
    asked = Call(client.unique_name, 1000, False, "/", LAMP, "SetLevel")
    await polkitd.says("allow")
    await authority.authorize(asked, Action.MODIFY, {})
    assert await match_rules(client) == 1
    monkeypatch.setattr(polkit, "KEPT", 0.0)
    await authority.authorize(asked, Action.MODIFY, {})
    async with asyncio.timeout(10):
        while await match_rules(client):
            pass


async def test_many_users_open_prompts_leave_room_for_root_and_for_quick_questions(
    polkitd: Polkitd, client: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system bus lets a connection wait for 128 replies and have 512 match rules."""
    monkeypatch.setattr(polkit, "KEPT", 0.0)
    authority = PolkitAuthority(client)

    async def ask_as(uid: int, interactive: bool) -> None:
        call = Call(client.unique_name, uid, interactive, "/", LAMP, "SetLevel")
        await authority.authorize(call, Action.MODIFY, {})

    await polkitd.says("hold")
    async with asyncio.TaskGroup() as prompts:
        for number in range(polkit.PROMPTS):
            prompts.create_task(ask_as(1000 + number, interactive=True))
        for _ in range(polkit.PROMPTS):
            await polkitd.checked.get()
        with pytest.raises(errors.LimitsExceeded):
            await ask_as(5000, interactive=True)
        assert await match_rules(client) == 1
        await polkitd.says("allow")
        await ask_as(5000, interactive=False)
        await ask_as(0, interactive=True)
        await polkitd.release()
    assert await match_rules(client) == 0


async def match_rules(client: Connection) -> int:
    named = [client.unique_name]
    reply = await client.call(BUS, BUS_PATH, STATS, "GetConnectionStats", "s", named)
    return int(unpacked(reply)[0]["MatchRules"])
