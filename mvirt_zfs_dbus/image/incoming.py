"""A source that is read once, in order, whatever it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..model import Phase
from . import unpack
from .buffer import ALIGNMENT
from .digest import Digest
from .meter import Meter
from .source import InOrder, Seekable, Source


class Incoming:
    """Its bytes are hashed and counted as they are stored, then unpacked where they are packed."""

    def __init__(self, source: Source, packing: str | None) -> None:
        self._source = source
        self._packing = packing
        self.phase = Phase.CONVERTING if isinstance(source, InOrder) else Phase.DOWNLOADING

    @property
    def stored_length(self) -> int | None:
        """Bytes as they are stored, where that is known."""
        return self._source.size if isinstance(self._source, Seekable) else self._source.length

    @property
    def length(self) -> int | None:
        """Bytes of the image, where that is known."""
        return None if self._packing else self.stored_length

    def head(self) -> bytes:
        if self._packing:
            return unpack.peek(self._source, self._packing)
        return self._source.head()

    def chunks(self, digest: Digest, meter: Meter) -> Iterator[bytes]:
        """All bytes of the image, each chunk but the last in whole blocks of ALIGNMENT."""
        stored = _metered(digest.of(self._source.chunks()), meter)
        return _in_blocks(unpack.unpacked(stored, self._packing) if self._packing else stored)


def _metered(chunks: Iterable[bytes], meter: Meter) -> Iterator[bytes]:
    for chunk in chunks:
        meter.add(len(chunk))
        yield chunk


def _in_blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        data = rest + chunk if rest else chunk
        whole = len(data) - len(data) % ALIGNMENT
        rest = data[whole:]
        if whole:
            yield data[:whole]
    if rest:
        yield rest
