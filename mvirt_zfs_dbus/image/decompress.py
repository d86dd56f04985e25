"""One compressed cluster in, one cluster out; never more memory than that."""

from __future__ import annotations

import contextlib
import importlib
import threading
import zlib
from collections.abc import Callable
from typing import Any, Final

from ..errors import CorruptImage, UnsupportedImage
from . import zstd_frames

zlib_library: Any = zlib
with contextlib.suppress(ImportError):
    zlib_library = importlib.import_module("isal.isal_zlib")

try:
    import zstandard
except ImportError:
    zstandard = None  # type: ignore[assignment]

_RAW_DEFLATE: Final = -15
"""No header, any window: QEMU writes windows of 2^12, others may write larger ones."""
_MAX_ZSTD_WINDOW: Final = 32 << 20

_threads = threading.local()

Decompress = Callable[[bytes | memoryview, int], tuple[bytes, int]]
"""(compressed bytes and whatever follows them, bytes to produce) → (bytes, fewer if it ends;
how many of the compressed ones are theirs, at most)."""


def inflate(
    data: bytes | memoryview, length: int, *, library: Any = zlib_library
) -> tuple[bytes, int]:
    """``library``: zlib, or isal's replacement for it."""
    decoder = library.decompressobj(_RAW_DEFLATE)
    try:
        # One byte more, for only on the way to it the end of the stream is seen.
        output: bytes = decoder.decompress(data, length + 1)
    except library.error as error:
        raise CorruptImage(f"a compressed cluster is damaged: {error}") from error
    return output[:length], len(data) - len(decoder.unused_data)


def unzstd(data: bytes | memoryview, length: int) -> tuple[bytes, int]:
    try:
        if zstandard.frame_content_size(data) == length:
            return _unzstd_frame(data, length), zstd_frames.first_frame(data) or len(data)
        return _unzstd_stream(data, length), zstd_frames.first_frame(data) or len(data)
    except zstandard.ZstdError as error:
        raise CorruptImage(f"a compressed cluster is damaged: {error}") from error


def _unzstd_frame(data: bytes | memoryview, length: int) -> bytes:
    """At once, for decompress() allocates what the frame claims to have, which is this length."""
    try:
        decoder = _threads.zstd
    except AttributeError:
        decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
        _threads.zstd = decoder
    output: bytes = decoder.decompress(data, length, allow_extra_data=True)
    return output


def _unzstd_stream(data: bytes | memoryview, length: int) -> bytes:
    """Whatever the frames claim, no more than these bytes, out of as many frames as it takes."""
    decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
    output = bytearray()
    with decoder.stream_reader(data, read_across_frames=True) as reader:
        while len(output) < length and (piece := reader.read(length - len(output))):
            output += piece
    return bytes(output)


def decompressor(compression: str) -> Decompress:
    if compression == "zlib":
        return inflate
    zstd_library()
    return unzstd


def zstd_library() -> Any:
    """UnsupportedImage: it is missing."""
    if zstandard is None:
        raise UnsupportedImage("zstd-compressed images need python3-zstandard, which is missing")
    return zstandard
