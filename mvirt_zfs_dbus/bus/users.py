"""The users of the bus: what the calls of each have taken, and what each has not read yet."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from .wire import BUS, BUS_PATH, BusError, Connection, Message

READS_PER_USER: Final = 4
"""Reads of one user that look at the pool at a time."""
SHARE: Final = 0.1
"""How much of the service's time a user may take in the long run."""
BURST: Final = 0.1
"""Seconds a user may take at once."""

UNREAD: Final = 16 * 2**20
"""Bytes of answers a user may leave unread."""
UNREAD_IN_ALL: Final = 64 * 2**20
"""Bytes. dbus-daemon reads nothing more from a connection of which 127 MiB wait for others
(max_incoming_bytes, bus/config-parser.c): whoever reads no answers would silence the service."""
_LITTLE: Final = 2**20
_CONNECTIONS: Final = 1024
"""Connections of a user that are kept apart; no bus lets it have as many at a time."""
_LOOK_AGAIN: Final = 1.0
"""Seconds until a user that does not read is looked at again."""
_STATS: Final = "org.freedesktop.DBus.Debug.Stats"
_ANSWER_WITHIN: Final = 5.0


@dataclass(slots=True, eq=False)
class Request:
    """A method call on its way from arrival to answer."""

    message: Message
    user: User | None = None
    """Known from the moment it is handled."""
    of_sender: bool = False
    """It counts as a call of its connection."""
    of_user: bool = False
    """It counts as a call of its user."""


@dataclass(slots=True, eq=False)
class User:
    uid: int
    bounded: bool
    calls: int = 0
    """Without an answer yet."""
    waiting: deque[Request] = field(default_factory=deque)
    reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READS_PER_USER))
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    unread: Counter[str] = field(default_factory=Counter)
    """Bytes sent to each of its connections since it was last known how many of them wait."""
    held: bool = False
    """It is not served while it is looked at how much it has not read."""
    silent: bool = False
    """It reads nothing: not even refusals are sent to it."""
    _spent: float = 0.0
    _counted_at: float = 0.0

    def charge(self, seconds: float) -> None:
        self._spent = self._spent_now() + seconds

    def owes(self) -> float:
        """Seconds until it has its share again; 0 when it has."""
        return max(0.0, (self._spent_now() - BURST) / SHARE) if self.bounded else 0.0

    @property
    def idle(self) -> bool:
        """Whether it need not be remembered."""
        return not (self.calls or self.held or self._spent_now() or self.unread.total())

    def _spent_now(self) -> float:
        now = time.monotonic()
        left = self._spent - (now - self._counted_at) * SHARE
        self._spent, self._counted_at = max(0.0, left), now
        return self._spent


class Unread:
    """How much the bus holds of what was sent to whom. dbus-daemon tells root and on a bus of one's
    own; dbus-broker need not, since it disconnects who does not read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._in_all = 0

    def sent(self, user: User, sender: str, size: int) -> None:
        if user.bounded:
            user.unread[sender] += size
            self._in_all += size

    def too_much(self, user: User) -> bool:
        """Whether it is time to look, or to wait, as far as is known."""
        if len(user.unread) > _CONNECTIONS:
            return True
        unread = user.unread.total()
        return unread > UNREAD or (self._in_all > UNREAD_IN_ALL and unread > _LITTLE)

    async def wait(self, user: User) -> None:
        """Return when it has read enough."""
        async with user.looking:
            while self.too_much(user):
                await self._look(user)
                user.silent = self.too_much(user)
                if user.silent:
                    await asyncio.sleep(_LOOK_AGAIN)

    async def _look(self, user: User) -> None:
        for sender in list(user.unread):
            waiting = await self._waiting_for(sender)
            self._in_all += waiting - user.unread[sender]
            user.unread[sender] = waiting
            if not waiting:
                del user.unread[sender]

    async def _waiting_for(self, sender: str) -> int:
        """Bytes that wait for a connection; 0 if it has gone, or the bus does not say."""
        try:
            (stats,) = await self._connection.call(
                BUS,
                BUS_PATH,
                _STATS,
                "GetConnectionStats",
                "s",
                [sender],
                timeout=_ANSWER_WITHIN,
            )
            return int(stats["OutgoingBytes"].value)
        except (BusError, TimeoutError, KeyError, TypeError, ValueError):
            return 0
