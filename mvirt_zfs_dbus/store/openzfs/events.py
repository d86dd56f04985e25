"""What happens in a pool, as ``zpool events`` tells it (zpool-events(8)).

Every change of a dataset is an event of class ``sysevent.fs.zfs.history_event`` that names the
dataset; vdevs that come and go, export and import are classes of their own.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from ... import processes
from ...errors import Error
from ..watchers import Watchers
from . import zpool

_log = logging.getLogger(__name__)

_HISTORY: Final = "sysevent.fs.zfs.history_event"
_ENDED: Final = frozenset({"sysevent.fs.zfs.pool_export", "sysevent.fs.zfs.pool_destroy"})
_IMPORTED: Final = "sysevent.fs.zfs.pool_import"
_BEGUN: Final = frozenset({_IMPORTED, "sysevent.fs.zfs.pool_create"})
_RENAMED: Final = "rename"
_OF_ONE_DATASET: Final = frozenset(
    {"create", "clone", "destroy", "snapshot", "set", "inherit", "rollback", "clone swap"}
)
"""What changes the dataset it names and no other (spa_history_log_internal in the kernel)."""

ANYTHING: Final = ""
THE_POOL: Final = "/"
"""No dataset, but what they are in: its disks, and so its size and health."""

_CHUNK: Final = 64 * 1024

_GATHER: Final = 0.05
"""Seconds without a further event after which those that came are told."""
_LONGEST: Final = 0.5
"""Seconds that a watcher waits for that at most."""
_UNTIL_GONE: Final = 5.0
"""Seconds that an export may take after its event, which comes before the pool is unloaded. One
that takes longer is told twice."""
_RESTART: Final = 1.0
"""Seconds before ``zpool events`` is started again should it end."""


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    """The class, such as ``sysevent.fs.zfs.history_event``."""
    dataset: str = ""
    """The dataset or snapshot a history event is about."""
    action: str = ""
    """What was done to it: ``create``, ``set`` …"""
    detail: str = ""
    """In ZFS's words: of a rename, ``-> NEW-NAME``."""

    @property
    def imported(self) -> bool:
        return self.kind == _IMPORTED

    @property
    def begun(self) -> bool:
        """The pool was imported or created."""
        return self.kind in _BEGUN

    @property
    def ended(self) -> bool:
        """The pool is being exported or destroyed."""
        return self.kind in _ENDED

    def concerns(self, root: str) -> bool:
        """Whether it may have changed what exists below ``root``, or the pool's health.

        What happens below ``.tmp`` does not exist for anybody yet.
        """
        if self.kind != _HISTORY or not self.dataset:
            return True
        if self.action == _RENAMED and _is_below(self.detail.removeprefix("-> "), root):
            return not _is_below(self.dataset, f"{root}/.tmp")
        if _is_below(self.dataset, f"{root}/.tmp"):
            return False
        return _is_below(self.dataset, root) or _is_below(root, self.dataset)

    def changed(self, root: str) -> str | None:
        """The dataset that alone was changed, ANYTHING where it may be more, THE_POOL where it is
        none, None for one that does not matter."""
        if "." not in self.kind or self.begun:  # "dropped 7 events", or another pool than it was
            return ANYTHING
        if self.kind != _HISTORY or not self.dataset:
            return THE_POOL
        if self.action not in _OF_ONE_DATASET:
            return ANYTHING
        return self.dataset if self.dataset.startswith(f"{root}/") else None

    def is_inherited_by(self, root: str) -> bool:
        """Whether ``root``, and what is below it, may inherit something else than before."""
        if self.changed(root) == ANYTHING:
            return True
        is_of_root = bool(self.dataset) and "@" not in self.dataset
        return self.kind == _HISTORY and is_of_root and _is_below(root, self.dataset)


def _is_below(name: str, root: str) -> bool:
    dataset = name.partition("@")[0]
    return dataset == root or dataset.startswith(f"{root}/")


class Reader:
    """Reads what ``zpool events -H -v`` prints: a line, the payload indented, a blank line.

    ``-f`` begins with all that the kernel remembers, some hundred events. Therefore events are cut
    out whole and only what matters of each is looked at.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete with this piece of the output."""
        *complete, self._rest = (self._rest + data).split(b"\n\n")
        found = (event for text in complete for event in _read(text.lstrip(b"\n")))
        return [event for event in found if event.kind]


def _read(text: bytes) -> Iterator[Event]:
    heading, _, rest = text.partition(b"\n")
    if heading.startswith(b"dropped "):
        yield Event(heading.decode(errors="replace"))
        heading, text = rest.partition(b"\n")[0], rest
    yield Event(
        kind=heading.rpartition(b"\t")[2].decode(errors="replace"),
        dataset=_payload(text, b"history_dsname"),
        action=_payload(text, b"history_internal_name"),
        detail=_payload(text, b"history_internal_str"),
    )


def _payload(text: bytes, key: bytes) -> str:
    value = text.partition(b"\n        " + key + b' = "')[2].partition(b'"\n')[0]
    return value.decode(errors="replace")


class Follower:
    """Follows one pool, whether it is imported or not, and tells every watcher.

    ``root`` is the dataset that matters. Before anybody is told, ``changed`` is called with the
    dataset that changed, ANYTHING or THE_POOL, and ``on_inherited`` when what all below the root
    inherit may be another; ``on_import`` is awaited when the pool came back.
    """

    def __init__(
        self,
        root: str,
        changed: Callable[[str], None],
        on_import: Callable[[], Awaitable[None]],
        on_inherited: Callable[[], None],
    ) -> None:
        self._root = root
        self._pool = zpool.pool_of(root)
        self._changed = changed
        self._on_import = on_import
        self._on_inherited = on_inherited
        self.watchers = Watchers(_GATHER, _LONGEST)
        self._aside: set[str] = set()
        self._owed: set[str] = set()
        """What happened something to while it was kept aside."""
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._silent = False
        """Nobody is told of anything: the pool is about to go."""

    @contextmanager
    def aside(self, dataset_id: str) -> Iterator[None]:
        """What happens to a dataset that this store is making is told of when it is made: reading
        the pool before takes the time of those who make it."""
        dataset = f"{self._root}/{dataset_id}"
        self._aside.add(dataset)
        try:
            yield
        finally:
            self._aside.discard(dataset)
            if dataset in self._owed:
                self._owed.discard(dataset)
                self.watchers.tell()

    def start(self) -> None:
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        self.watchers.close()
        tasks = [task for task in (self._task, self._ending) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._task = self._ending = None

    async def _follow(self) -> None:
        while True:
            try:
                await self._read()
            except (Error, OSError) as error:
                _log.warning("zpool events cannot be run: %s", error)
            await asyncio.sleep(_RESTART)
            self._changed(ANYTHING)  # what happened meanwhile is not known
            self._on_inherited()
            self.watchers.tell()

    async def _read(self) -> None:
        process = await asyncio.create_subprocess_exec(
            zpool.executable("zpool"),
            *("events", "-H", "-v", "-f", self._pool),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=zpool.ENVIRONMENT,
        )
        assert process.stdout is not None
        reader = Reader()
        try:
            while data := await process.stdout.read(_CHUNK):
                for event in reader.feed(data):
                    if event.concerns(self._root):
                        await self._take(event)
        finally:
            processes.send_signal(process, signal.SIGKILL)
            await process.communicate()  # wait() alone never ends while output is left unread
        _log.warning("zpool events ended with status %s", process.returncode)

    async def _take(self, event: Event) -> None:
        changed = event.changed(self._root)
        if changed is not None:
            self._changed(changed)
        if event.ended or event.begun:
            if self._ending is not None:
                self._ending.cancel()
            self._silent = event.ended
            self._ending = asyncio.create_task(self._end()) if event.ended else None
        if event.is_inherited_by(self._root):
            self._on_inherited()
        if event.imported:
            try:
                await self._on_import()
            except Error as error:
                _log.warning("the pool came back, but: %s", error)
        if event.dataset in self._aside:
            self._owed.add(event.dataset)
        elif not self._silent:
            self.watchers.tell()

    async def _end(self) -> None:
        """Tell all when the pool is gone: an export is told before it is done, and its end never.

        That may be long ago: ``zpool events`` begins with what the kernel remembers. So the events
        after it are read meanwhile, and one of them says that the pool is back.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_UNTIL_GONE):
                await self._gone(_GATHER)
        self._tell_all()
        await self._gone(_UNTIL_GONE)
        self._tell_all()

    async def _gone(self, pause: float) -> None:
        while zpool.health(self._pool) != zpool.UNAVAILABLE:  # noqa: ASYNC110
            await asyncio.sleep(pause)

    def _tell_all(self) -> None:
        self._silent = False
        self._changed(ANYTHING)
        self.watchers.tell()
