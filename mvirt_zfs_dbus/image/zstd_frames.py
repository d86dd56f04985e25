"""Zstandard frames cut into their blocks, each of which unpacks to at most 128 KiB.

The library has no limit to what one call may produce, so it is fed a block at a time. Format:
RFC 8878, sections 3.1.1 and 3.1.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from ..errors import CorruptImage

MAGIC: Final = b"\x28\xb5\x2f\xfd"
MAX_BLOCK: Final = 128 << 10
"""Bytes of a block, packed or not."""
_SKIPPABLE: Final = 0x184D2A50
_DICTIONARY_ID: Final = (0, 1, 2, 4)
_CONTENT_SIZE: Final = (0, 2, 4, 8)
_RLE, _COMPRESSED, _RESERVED = 1, 2, 3

_Measure = Callable[[], tuple[int, Any]]


class Frames:
    """Fed with chunks of any size; holds back less than a block of them."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0
        self._measure: _Measure = self._header
        """What comes next: a header, a block or a checksum."""
        self._has_checksum = False

    @property
    def between(self) -> bool:
        """Whether no frame has begun that has not ended."""
        return not (self._skip or self._buffer) and self._measure == self._header

    def feed(self, chunk: bytes | memoryview) -> Iterator[tuple[bytes, bool]]:
        """(a header, a block or a checksum; whether its frame ends with it)."""
        self._buffer += chunk
        while True:
            if self._measure == self._header and not self._skip_frames():
                return
            length, following = self._measure()
            if length > len(self._buffer):
                return
            piece = bytes(self._buffer[:length])
            del self._buffer[:length]
            self._measure = following
            yield piece, following == self._header

    def _skip_frames(self) -> bool:
        """Whether a frame with data in it begins."""
        while True:
            skipped = min(self._skip, len(self._buffer))
            del self._buffer[:skipped]
            self._skip -= skipped
            if self._skip or len(self._buffer) < 8:
                return False
            if self._buffer.startswith(MAGIC):
                return True
            if int.from_bytes(self._buffer[:4], "little") & ~0xF != _SKIPPABLE:
                raise CorruptImage("something that is not zstd follows the zstd data")
            self._skip = 8 + int.from_bytes(self._buffer[4:8], "little")

    def _header(self) -> tuple[int, _Measure]:
        """(bytes of what comes next, what follows it)."""
        descriptor = self._buffer[4]
        single, size_flag = descriptor >> 5 & 1, descriptor >> 6
        content_size = _CONTENT_SIZE[size_flag] or single
        self._has_checksum = bool(descriptor >> 2 & 1)
        length = 5 + (not single) + _DICTIONARY_ID[descriptor & 3] + content_size
        return length, self._block

    def _block(self) -> tuple[int, _Measure]:
        if len(self._buffer) < 3:
            return 3, self._block
        header = int.from_bytes(self._buffer[:3], "little")
        kind, size = header >> 1 & 3, header >> 3
        if kind == _RESERVED or size > MAX_BLOCK or (kind == _COMPRESSED and not size):
            raise CorruptImage(f"the zstd data is damaged: a block of kind {kind}, {size} bytes")
        length = 3 + (1 if kind == _RLE else size)
        if not header & 1:
            return length, self._block
        return length, self._checksum if self._has_checksum else self._header

    def _checksum(self) -> tuple[int, _Measure]:
        return 4, self._header


def content_size(header: bytes) -> int | None:
    """Bytes of the whole frame unpacked, where its header tells."""
    size_flag = header[4] >> 6
    length = _CONTENT_SIZE[size_flag] or header[4] >> 5 & 1
    if not length:
        return None
    size = int.from_bytes(header[-length:], "little")
    return size + 256 if length == 2 else size


def first_frame(data: bytes | memoryview) -> int | None:
    """Bytes of the frame that ``data`` begins with; None if it does not end there."""
    length = 0
    try:
        for piece, ends in Frames().feed(data):
            length += len(piece)
            if ends:
                return length
    except CorruptImage:
        return None
    return None
