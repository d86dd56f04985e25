"""Whose call is handled next, and how many may wait: no user of the bus keeps the others waiting.

Calls are bounded for each connection, each user and in all. Users take turns, and each may take a
share of the service's time, and somewhat more for a while; what goes beyond it waits. Bounded time
alone would not do, bounded numbers alone neither: a call for all objects takes a thousand times as
long as one for a property.

The user whom the service runs as has no bounds but those of a connection, and need not wait.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from .. import errors
from .users import Request, Unread, User
from .wire import BusError, Connection

CALLS_PER_SENDER: Final = 256
CALLS_PER_USER: Final = 1024
CALLS_IN_ALL: Final = 8192
"""Calls without an answer yet. The system bus lets a connection have 128 of them, but as many as it
likes that want no answer, and a user 256 connections (dbus-daemon(1))."""
SECONDS_PER_BYTE: Final = 1e-8
"""What a byte of an answer takes the bus, which passes on about 100 MB/s."""
SECONDS_PER_CHANGE: Final = 0.0005
"""What a call that changes something takes at least: a task, a question to polkit, a record."""
_SLICE: Final = 0.0002
"""Seconds of handling calls before all else that the event loop has to do gets its turn."""
_KNOWN_SENDERS: Final = 1024
_KNOWN_USERS: Final = 256


class Admission:
    """Takes each request in, hands it to ``handle`` when it is its turn, or to ``refuse``."""

    def __init__(
        self,
        connection: Connection,
        handle: Callable[[Request], None],
        refuse: Callable[[Request, errors.Error], None],
        *,
        calls_per_sender: int,
    ) -> None:
        self._connection = connection
        self._handle = handle
        self._refuse = refuse
        self._per_sender = calls_per_sender
        self._loop = asyncio.get_running_loop()
        self._senders: Counter[str] = Counter()
        self._in_all = 0
        self._users: dict[int, User] = {}
        self._known: OrderedDict[str, User] = OrderedDict()
        self._newcomers: dict[str, list[Request]] = {}
        self._unread = Unread(connection)
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns: deque[User] = deque()
        """Users with waiting requests, each once, but for those that are held."""
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None

    async def close(self) -> None:
        """Refuse all that waits."""
        await asyncio.sleep(0)  # a look-up cancelled before its first step could not refuse
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        for user in self._users.values():
            while user.waiting:
                self._refuse(user.waiting.popleft(), errors.Interrupted("the service is stopping"))
        self._turns.clear()
        self._schedule(None)

    # In

    def admit(self, request: Request) -> None:
        """LimitsExceeded: its connection or its user has too many calls already."""
        sender = request.message.sender or ""
        request.user = self._known.get(sender)
        if self._senders[sender] >= self._per_sender:
            raise errors.LimitsExceeded(
                f"{self._per_sender} calls of this connection are being worked on already;"
                " wait for some of them"
            )
        self._senders[sender] += 1
        request.of_sender = True
        if request.user:
            self._join(request, request.user)
        elif sender in self._newcomers:
            self._newcomers[sender].append(request)
        else:
            self._newcomers[sender] = [request]
            self._spawn(self._look_up(sender))

    async def _look_up(self, sender: str) -> None:
        """Whose connection this is. A unique name is never given to another connection."""
        error: errors.Error | None = None
        try:
            user = self._user(
                int(await self._connection.call_bus("GetConnectionUnixUser", "s", [sender]))
            )
        except (BusError, TimeoutError):
            error = errors.AccessDenied(f"the bus does not say who {sender} is")
        except asyncio.CancelledError:
            error = errors.Interrupted("the service is stopping")
        requests = self._newcomers.pop(sender)
        if error is None:
            self._known[sender] = user
            if len(self._known) > _KNOWN_SENDERS:
                self._known.popitem(last=False)
        for request in requests:
            try:
                if error:
                    raise error
                self._join(request, user)
            except errors.Error as refusal:
                self._refuse(request, refusal)

    def _user(self, uid: int) -> User:
        if uid not in self._users:
            self._forget_idle()
            self._users[uid] = User(uid, bounded=uid != own_uid())
        return self._users[uid]

    def _forget_idle(self) -> None:
        if len(self._users) >= _KNOWN_USERS:
            idle = {user.uid for user in self._users.values() if user.idle}
            self._users = {uid: user for uid, user in self._users.items() if uid not in idle}
            known = self._known.items()
            self._known = OrderedDict((s, user) for s, user in known if user.uid not in idle)

    def _join(self, request: Request, user: User) -> None:
        if user.bounded and user.calls >= CALLS_PER_USER:
            raise errors.LimitsExceeded(
                f"{user.calls} calls of uid {user.uid} are being worked on already; wait for some"
                " of them"
            )
        if user.bounded and self._in_all >= CALLS_IN_ALL:
            raise errors.LimitsExceeded("too many calls are being worked on; try again")
        request.user = user
        request.of_user = True
        user.calls += 1
        self._in_all += 1
        if not user.bounded:
            self._handle(request)
            return
        user.waiting.append(request)
        if len(user.waiting) == 1 and not user.held:
            self._turns.append(user)
            self._schedule(0)

    # Turns

    def _schedule(self, delay: float | None) -> None:
        if self._timer:
            self._timer.cancel()
        if delay is None:
            self._timer = None
        elif delay:
            self._timer = self._loop.call_later(delay, self._serve)
        else:
            self._timer = self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        self._timer = None
        started = time.perf_counter()
        while time.perf_counter() - started < _SLICE:
            if not self._turns:
                return
            owed = min(user.owes() for user in self._turns)
            if owed:
                self._schedule(owed)
                return
            self._serve_one()
        self._schedule(0)

    def _serve_one(self) -> None:
        """The next call of the next user who has not had more than its share."""
        while (user := self._turns[0]).owes():
            self._turns.rotate(-1)
        if self._unread.too_much(user):
            user.held = True
            self._turns.popleft()
            self._spawn(self._hold(user))
            return
        request = user.waiting.popleft()
        self._turns.popleft()
        if user.waiting:
            self._turns.append(user)
        started = time.perf_counter()
        self._handle(request)
        user.charge(time.perf_counter() - started)

    async def _hold(self, user: User) -> None:
        """Leave its calls waiting until it has read the answers it has already."""
        try:
            await self._unread.wait(user)
        finally:
            user.held = False
        if user.waiting:
            self._turns.append(user)
            self._schedule(0)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Out

    def finished(self, request: Request, size: int) -> None:
        """It has its answer, of ``size`` bytes."""
        if request.of_sender:
            sender = request.message.sender or ""
            self._senders[sender] -= 1
            if not self._senders[sender]:
                del self._senders[sender]
        if request.user:
            request.user.calls -= request.of_user
            self._in_all -= request.of_user
            request.user.charge(size * SECONDS_PER_BYTE)
            self._unread.sent(request.user, request.message.sender or "", size)

    def charge(self, sender: str, size: int) -> None:
        """A message of this size was refused unread."""
        if user := self._known.get(sender):
            user.charge(size * SECONDS_PER_BYTE)

    @asynccontextmanager
    async def reading(self, user: User) -> AsyncIterator[None]:
        """A look at the pool: what it takes is its user's, and a few of a user go at a time."""
        if not user.bounded:
            yield
            return
        async with user.reads:
            await self._unread.wait(user)
            await asyncio.sleep(user.owes())
            started = time.perf_counter()
            try:
                yield
            finally:
                user.charge(time.perf_counter() - started)


def own_uid() -> int:
    """The user the service runs as."""
    return os.geteuid()
