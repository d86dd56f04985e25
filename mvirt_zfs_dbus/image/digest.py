"""Checksums over the source's bytes, computed beside the conversion."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from ..model import Phase
from .base import Progress
from .meter import Meter
from .pool import Pool
from .source import CHUNK, Seekable


class Digest:
    """A digest of bytes that pass by, computed in a thread; of none, if no algorithm is named."""

    def __init__(self, algorithm: str | None, pool: Pool) -> None:
        self._hash = hashlib.new(algorithm) if algorithm else None
        self._pool = pool

    def of(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same chunks. Each is hashed while the caller works with it."""
        if self._hash is None:
            yield from chunks
            return
        hashed: Future[None] | None = None
        for chunk in chunks:
            if hashed:
                hashed.result()
            hashed = self._pool.start(self._hash.update, chunk)
            yield chunk
        if hashed:
            hashed.result()

    def value(self) -> str | None:
        """In hexadecimal, once all chunks have passed."""
        return self._hash.hexdigest() if self._hash else None


class FileDigest:
    """A digest of a whole file, read in its own thread while others read it elsewhere."""

    def __init__(self, algorithm: str | None, source: Seekable, pool: Pool) -> None:
        self._hash = hashlib.new(algorithm) if algorithm else None
        self._source = source
        self._done = 0
        self._meter: Meter | None = None
        self._finished = pool.start(self._run) if self._hash else None

    def _run(self) -> None:
        assert self._hash
        for offset in range(0, self._source.size, CHUNK):
            data = self._source.read(offset, min(CHUNK, self._source.size - offset))
            self._hash.update(data)
            self._done += len(data)
            if self._meter:
                self._meter.add(len(data))

    def value(self, report: Callable[[Progress], None]) -> str | None:
        """In hexadecimal, when it is done; reported as the phase ``verifying`` until then."""
        if self._hash is None or self._finished is None:
            return None
        if not self._finished.done():
            meter = Meter(Phase.VERIFYING, self._source.size, report)
            meter.add(self._done)
            self._meter = meter
            self._finished.result()
            meter.finish()
        self._finished.result()
        return self._hash.hexdigest()
