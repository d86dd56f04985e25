"""qcow2 images converted while they arrive.

A cluster is written as it comes if its table came before it. Everything else is kept: tables, what
came before its table, and what nothing refers to as far as is known. When all has arrived, the file
is checked and settled from what was kept (``qcow2_settle.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from ..errors import CorruptImage
from .pool import Pool
from .qcow2 import Clusters
from .qcow2_header import Header
from .qcow2_tables import Extent, Kind, l2_offset, words
from .qcow2_wanted import ClusterSet, Wanted, is_early
from .rest import Rest
from .source import CHUNK, Seekable
from .window import Window
from .writer import Target

MAX_TABLES: Final = 1 << 17
"""L2 tables looked out for: those of 64 TiB in clusters of 64 KiB. Others wait for the end."""
_L1: Final = -1

_Packed = tuple[Extent, memoryview, int]
"""A compressed cluster, its bytes, and how many of them no other cluster is known to begin in."""


class Arrival:
    """One image as it arrives, and in the end what has become of it."""

    def __init__(self, header: Header, target: Target, pool: Pool, rest: Rest) -> None:
        self.header = header
        self._span = header.table_span
        self._clusters = Clusters(header)
        self._target = target
        self._pool = pool
        self._rest = rest
        self._window = Window()
        self._position = 0
        """Everything before has been written or kept, or is ``_incomplete``."""
        self._covered = 0
        """The end of the last extent that was written; never less than the position."""
        self._l1 = words(b"")
        self._ahead: list[int] = [_L1]
        """The tables that are still to come, the next one last."""
        self._behind: deque[int] = deque()
        """The tables that came before they were known, or before there was room for them."""
        self._wanted = Wanted(header)
        self._incomplete: list[tuple[Extent, int]] = []
        """Compressed clusters whose last bytes are still to come, and as in ``_Packed``."""
        self._batch: list[_Packed] = []
        self._slack: deque[tuple[int, bytes]] = deque()
        """What threads have found not to belong to the clusters it came with."""
        self._since: dict[int, int] = {}
        self._taken = ClusterSet(header.cluster_bits)

    # What has been written already

    def is_written(self, extent: Extent) -> bool:
        since = self._since.get(extent.guest // self._span)
        return since is not None and is_early(self.header, extent, since)

    def is_kept(self, host: int, length: int) -> bool:
        """Whether the rest has these bytes for sure, none having been written without keeping."""
        return not self._taken.touches(host, length)

    # As the bytes come

    def receive(self, chunks: Iterable[bytes]) -> Seekable:
        """Take the whole image file; the answer is what was kept of it."""
        for chunk in chunks:
            self._window.add(chunk)
            self._advance()
            self._drop_used()
        self._finish()
        return self._rest.source(self._end)

    @property
    def _end(self) -> int:
        return self._window.end

    def _drop_used(self) -> None:
        needed = [self._position, *(extent.host for extent, _ in self._incomplete)]
        self._window.drop(min(needed))

    def _advance(self) -> None:
        incomplete, self._incomplete = self._incomplete, []
        for extent, alone in incomplete:
            self._unpack(extent, alone)
        while self._position < self._end:
            self._look_back()
            offset, length = self._next_table()
            if self._position < offset:
                self._pass(min(offset, self._end))
            elif self._position + length <= self._end:
                self._take_table(length)
            else:
                break
        self._flush()

    def _finish(self) -> None:
        """The file ends here, perhaps inside a compressed cluster's last sector, or a table."""
        self._keep(self._position, self._end)
        for extent, alone in self._incomplete:
            cut = self._end - extent.host
            self._unpack(extent._replace(stored=cut), min(alone, cut))
        self._flush()
        self._pool.finish()
        self._target.end_direct()
        self._keep_slack()

    def _keep(self, start: int, end: int) -> None:
        for offset in range(start, end, CHUNK):
            kept = self._window.view(offset, min(offset + CHUNK, end))
            self._rest.keep(offset, bytes(kept))

    # Tables

    def _place(self, index: int) -> tuple[int, int]:
        if index == _L1:
            return self.header.l1_offset, self.header.l1_entries * 8
        return self._l1[index], self.header.cluster_size

    def _next_table(self) -> tuple[int, int]:
        """(offset, length) of the next table; after all files' ends if there is none."""
        while self._ahead:
            offset, length = self._place(self._ahead[-1])
            if offset >= self._position:
                return offset, length
            self._ahead.pop()  # it overlaps another one, and the image will be refused
        return 1 << 63, 0

    def _take_table(self, length: int) -> None:
        index = self._ahead.pop()
        start, end = self._position, self._position + length
        table = bytes(self._window.view(start, end))
        self._keep(start, end)
        self._position, self._covered = end, max(self._covered, end)
        if index == _L1:
            self._learn(table)
        elif self._behind or not self._wanted.has_room:
            self._behind.append(index)
        else:
            self._add(index, table)

    def _learn(self, table: bytes) -> None:
        """Find out from the L1 table where the others are."""
        self._l1 = words(table)
        for index, entry in enumerate(self._l1):
            if entry:
                self._l1[index] = l2_offset(self.header, index, entry)
        used = (index for index, offset in enumerate(self._l1) if offset)
        known = list(islice(used, MAX_TABLES))
        place = self._l1.__getitem__
        self._behind.extend(index for index in known if place(index) < self._position)
        ahead = (index for index in known if place(index) >= self._position)
        self._ahead = sorted(ahead, key=place, reverse=True)

    def _add(self, index: int, table: bytes) -> None:
        parts = self._wanted.add(table, index * self._span, self._position)
        self._target.reserve(parts)
        self._since[index] = self._position

    def _look_back(self) -> None:
        """Read tables that have come already, of whose clusters some may be on their way."""
        if not self._behind or not self._wanted.has_room:
            return
        kept = self._rest.source(self._position)
        while self._behind and self._wanted.has_room:
            offset, length = self._place(self._behind[0])
            index = self._behind.popleft()
            if offset + length <= self._position:
                self._add(index, kept.read(offset, length))
            # Otherwise it overlaps the L1 table, and the image will be refused.

    # Clusters

    def _pass(self, stop: int) -> None:
        """Write or keep everything up to ``stop``, before which no table begins."""
        covered = max(self._covered, self._position)
        while extent := self._wanted.pop(stop):
            if extent.host < self._position:
                raise CorruptImage(f"a cluster at byte {extent.host} of the image is over a table")
            if extent.host > covered:
                self._keep(covered, extent.host)
            if extent.kind is Kind.DATA:
                end = self._write(extent, stop)
            else:
                end = extent.host + extent.stored
                following = self._wanted.next_host() or end
                self._unpack(extent, min(following, end) - extent.host)
            self._taken.add(extent.host, end - extent.host)
            covered = max(covered, end)
        self._keep(covered, stop)
        self._position, self._covered = stop, max(covered, stop)

    def _write(self, extent: Extent, stop: int) -> int:
        """Write a plain extent as far as it has come; the answer is where in the file that is."""
        end = min(extent.host + extent.length, stop)
        length = end - extent.host
        self._pool.run(self._target.write, self._window.view(extent.host, end), extent.guest)
        if length < extent.length:
            left = extent.length - length
            self._wanted.push_back(Extent(Kind.DATA, extent.guest + length, left, end, left))
        return end

    def _unpack(self, extent: Extent, alone: int) -> None:
        """Write a compressed cluster once its bytes are there."""
        end = extent.host + extent.stored
        if end > self._end:
            self._incomplete.append((extent, alone))
            return
        self._batch.append((extent, self._window.view(extent.host, end), alone))
        if len(self._batch) * self.header.cluster_size >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        if self._batch:
            self._pool.run(self._unpack_batch, self._batch)
            self._batch = []
        self._keep_slack()

    def _unpack_batch(self, batch: list[_Packed]) -> None:
        with self._target.gather() as gather:
            for extent, stored, alone in batch:
                used = self._clusters.write(extent, stored, gather)
                # The last sector of a cluster may hold the beginning of another one, whose table
                # is still to come. Zeros are what the rest reads as anyway.
                slack = bytes(stored[used:alone])
                if slack.count(0) != len(slack):
                    self._slack.append((extent.host + used, slack))

    def _keep_slack(self) -> None:
        while self._slack:
            self._rest.keep(*self._slack.popleft())
