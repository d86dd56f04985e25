"""Which signals to receive, and to whom they go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .library import Message


@dataclass(frozen=True, slots=True)
class MatchRule:
    """Which signals to receive; an empty part matches anything.

    ``sender`` has to be a unique name or the bus itself: a signal carries no other, and whoever
    may send to this connection could pretend to be the owner of a well-known name.
    """

    sender: str = ""
    path: str = ""
    path_namespace: str = ""
    interface: str = ""
    member: str = ""
    arg0: str = ""

    def __str__(self) -> str:
        parts = {name: getattr(self, name) for name in self.__slots__}
        return ",".join(
            ["type='signal'", *(f"{name}='{value}'" for name, value in parts.items() if value)]
        )

    def matches(self, message: Message) -> bool:
        return (
            self.sender in ("", message.sender)
            and self.path in ("", message.path)
            and self.interface in ("", message.interface)
            and self.member in ("", message.member)
            and (not self.arg0 or (bool(message.body) and message.body[0] == self.arg0))
            and (not self.path_namespace or _is_below(message.path, self.path_namespace))
        )


class Subscription:
    """Signals of one match rule on their way to a handler; ``close()`` ends it."""

    def __init__(
        self,
        rule: MatchRule,
        handler: Callable[[Message], None],
        end: Callable[[Subscription], None],
    ) -> None:
        self.rule = rule
        self.handler = handler
        self._end = end

    def close(self) -> None:
        self._end(self)


def _is_below(path: str | None, namespace: str) -> bool:
    return path is not None and (
        namespace == "/" or path == namespace or path.startswith(namespace + "/")
    )
