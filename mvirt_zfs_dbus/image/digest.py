"""Checksums over the source's bytes, computed beside the conversion."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future

from .pool import Pool


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
