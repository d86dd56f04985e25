"""Who may do what: polkit's answer, or the owner of the process on a bus of his own."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from ..errors import AccessDenied, InteractiveAuthorizationRequired, LimitsExceeded
from ..names import Action
from .interface import Call
from .wire import (
    BUS,
    BUS_PATH,
    Connection,
    MatchRule,
    Message,
    MessageFlag,
    RemoteError,
    Subscription,
    Variant,
)

POLKIT: Final = "org.freedesktop.PolicyKit1"
AUTHORITY_PATH: Final = "/org/freedesktop/PolicyKit1/Authority"
AUTHORITY: Final = "org.freedesktop.PolicyKit1.Authority"

_ALLOW_USER_INTERACTION: Final = 1
"""AuthorizationFlags of org.freedesktop.PolicyKit1.Authority."""
_NOT_AUTHORIZED: Final = "org.freedesktop.PolicyKit1.Error.NotAuthorized"
_ANSWER_WITHIN: Final = 30.0
"""Seconds for an answer without a prompt. A prompt may stay open as long as its caller."""
CHECKS_PER_USER: Final = 8
"""Questions of one user at a time, the others wait their turn."""
PROMPTS: Final = 64
"""Questions in all that may stay open as long as a prompt does; more are refused."""
QUICK_CHECKS: Final = 32
"""Questions in all without a prompt; more wait. The system bus lets a connection wait for 128
replies (dbus-daemon(1), max_replies_per_connection): neither one user nor many may use them up."""
_ABSENT: Final = (
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.Spawn.",
    "org.freedesktop.systemd1.",
)
"""What the bus, or systemd for it, says where polkit is not installed, masked or broken."""
KEPT = 10.0
"""Seconds without a question after which nobody is told any more who leaves the bus: asking for it,
and taking that back, takes the bus as long as a question does."""
_OWNERS: Final = MatchRule(sender=BUS, path=BUS_PATH, interface=BUS, member="NameOwnerChanged")


class Authority(Protocol):
    async def authorize(self, call: Call, action: Action, details: dict[str, str]) -> None:
        """Return if the caller may do this.

        AccessDenied: no. InteractiveAuthorizationRequired: a prompt would help, and the caller
        did not allow one.
        """


class OwnerAuthority:
    """On a bus of one's own: only the user the service runs as may do anything."""

    def __init__(self, uid: int) -> None:
        self._uid = uid

    async def authorize(self, call: Call, action: Action, details: dict[str, str]) -> None:
        if call.uid != self._uid:
            raise AccessDenied(
                f"{action} is for uid {self._uid}, whose service this is; the caller is uid"
                f" {call.uid}"
            )


class PolkitAuthority:
    """Asks polkit, with the caller's connection as the subject."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._turns: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()
        self._prompts = 0
        self._quick = asyncio.Semaphore(QUICK_CHECKS)
        self._leavers = _Leavers(connection)

    async def authorize(self, call: Call, action: Action, details: dict[str, str]) -> None:
        turns = self._turns.setdefault(call.uid, asyncio.Semaphore(CHECKS_PER_USER))
        try:
            async with turns, self._room(call):
                authorized, challenge, result = await self._check(call, action, details)
        except RemoteError as error:
            if error.name.startswith(_ABSENT):
                _only_root(call, action)
                return
            raise AccessDenied(_no_answer(action, error)) from error
        except TimeoutError:
            raise AccessDenied(
                f"polkit gave no answer on {action} within {_ANSWER_WITHIN:.0f} seconds;"
                " an administrator should look at polkit.service"
            ) from None
        if authorized:
            return
        if challenge and not call.interactive:
            raise InteractiveAuthorizationRequired(
                f"{action} needs authentication, and the call did not allow polkit to ask for it;"
                " call interactively, as root, or have an administrator add a polkit rule"
            )
        if challenge:
            raise AccessDenied(
                f"{action} needs authentication, and the caller's session has no polkit agent to"
                " ask for it; pkttyagent(1) is one for terminals"
            )
        if "polkit.dismissed" in result:
            raise AccessDenied(f"{action} was not authorised: the prompt was dismissed")
        raise AccessDenied(
            f"uid {call.uid} is not authorised for {action}; an administrator can allow it with a"
            " rule in /etc/polkit-1/rules.d"
        )

    @asynccontextmanager
    async def _room(self, call: Call) -> AsyncIterator[None]:
        if not call.interactive or call.uid == 0:  # root is asked nothing
            async with self._quick:
                yield
            return
        if self._prompts >= PROMPTS:
            raise LimitsExceeded(f"{PROMPTS} questions wait for people already; try again later")
        self._prompts += 1
        try:
            yield
        finally:
            self._prompts -= 1

    async def _check(
        self, call: Call, action: Action, details: dict[str, str]
    ) -> tuple[bool, bool, dict[str, str]]:
        """One CheckAuthorization, taken back if it has no answer when the caller leaves the bus,
        when the time is over, or when the call is cancelled."""
        async with self._leavers.watched(call.sender) as left:
            return await self._ask(call, action, details, left)

    async def _ask(
        self, call: Call, action: Action, details: dict[str, str], left: asyncio.Event
    ) -> tuple[bool, bool, dict[str, str]]:
        cancellation = f"mvirt-zfs-{next(self._numbers)}"
        answer = asyncio.create_task(self._call(call, action, details, cancellation))
        leaving = asyncio.create_task(left.wait())
        try:
            timeout = None if call.interactive else _ANSWER_WITHIN
            await asyncio.wait(
                (answer, leaving), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if answer.done():
                return answer.result()
            if left.is_set():
                raise AccessDenied(f"{call.sender} left the bus before polkit had decided")
            raise TimeoutError
        finally:
            if not answer.done():
                self._cancel(cancellation)
            answer.cancel()
            leaving.cancel()
            await asyncio.gather(answer, leaving, return_exceptions=True)

    async def _call(
        self, call: Call, action: Action, details: dict[str, str], cancellation: str
    ) -> tuple[bool, bool, dict[str, str]]:
        subject = ["system-bus-name", {"name": Variant("s", call.sender)}]
        flags = _ALLOW_USER_INTERACTION if call.interactive else 0
        reply: list[Any] = await self._connection.call(
            POLKIT,
            AUTHORITY_PATH,
            AUTHORITY,
            "CheckAuthorization",
            "(sa{sv})sa{ss}us",
            [subject, str(action), details, flags, cancellation],
            timeout=None,
        )
        authorized, challenge, result = reply[0]
        return bool(authorized), bool(challenge), dict(result)

    def _cancel(self, cancellation: str) -> None:
        self._connection.send(
            Message(
                destination=POLKIT,
                path=AUTHORITY_PATH,
                interface=AUTHORITY,
                member="CancelCheckAuthorization",
                signature="s",
                body=[cancellation],
                flags=MessageFlag.NO_REPLY_EXPECTED,
            )
        )


class _Leavers:
    """Tells who leaves the bus while somebody wants to know, by one match rule for all: the system
    bus lets a connection have 512 (dbus-daemon(1), max_match_rules_per_connection)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._watched: dict[str, list[asyncio.Event]] = {}
        self._subscription: Subscription | None = None
        self._subscribing = asyncio.Lock()
        self._end: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def watched(self, sender: str) -> AsyncIterator[asyncio.Event]:
        """The event is set when this connection leaves the bus."""
        left = asyncio.Event()
        self._watched.setdefault(sender, []).append(left)
        if self._end is not None:
            self._end.cancel()
            self._end = None
        try:
            async with self._subscribing:
                if self._subscription is None:
                    self._subscription = await self._connection.subscribe(_OWNERS, self._heard)
            yield left
        finally:
            self._watched[sender].remove(left)
            if not self._watched[sender]:
                del self._watched[sender]
            if not self._watched:
                self._end = asyncio.get_running_loop().call_later(KEPT, self._unsubscribe)

    def _unsubscribe(self) -> None:
        self._end = None
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def _heard(self, message: Message) -> None:
        name, _, new_owner = message.body
        for left in self._watched.get(name, ()) if not new_owner else ():
            left.set()


def _no_answer(action: Action, error: RemoteError) -> str:
    """polkit(8): details are taken from root, and from the user whom an annotation of the action
    names. Asking without them would pass by every rule that refuses by object."""
    if error.name == _NOT_AUTHORIZED:
        return (
            f"polkit takes no questions on {action} from uid {os.geteuid()}, as which the service"
            " runs; it has to be root, or the action's org.freedesktop.policykit.owner"
        )
    return f"polkit gave no answer on {action}: {error.message}"


def _only_root(call: Call, action: Action) -> None:
    if call.uid != 0:
        raise AccessDenied(
            f"{action} is for root alone, because polkit is not on this bus; an administrator can"
            " install polkitd to let others in"
        )
