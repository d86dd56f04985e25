"""Packed images: gzip, xz, zstd and bzip2, unpacked as they come.

Bounded whatever the input: in memory by feeding and taking no more than about a MiB at a time, in
bytes by how far unpacking may blow the source up. A packed file may have several members, as
``cat a.gz b.gz`` makes it. What follows the last one is ignored where the format's own tool ignores
it (gzip, bzip2), and refused where that refuses it (xz but for zeros, zstd).
"""

from __future__ import annotations

import bz2
import contextlib
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..errors import CorruptImage, Truncated, UnsafeImage, UnsupportedImage
from . import decompress, zstd_frames
from .source import CHUNK, HEAD, Source

FREE: Final = 16 << 30
"""Bytes that any source may unpack to: empty disks pack 1000 (gzip) to a million (bzip2) to 1."""
RATIO: Final = 2000
"""How many times its size a source may unpack to beyond that."""
MOST: Final = 16 << 40
"""Bytes that no source may unpack to more of."""
MEMORY: Final = 128 << 20
"""For a decoder's window; xz -9 takes 64 MiB, zstd --long 128 MiB."""
_MOST_PEEKED: Final = 8 << 20
"""Packed bytes looked at for the first unpacked ones; a block of bzip2 has up to 900 KB."""
_GZIP: Final = 31
"""A gzip header (16) and any window (15)."""


class _Decoder(Protocol):
    """One member; what the standard library's bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _Gunzip:
    """zlib's decoder, or isal's, in the manner of the others."""

    def __init__(self) -> None:
        self._decoder: Any = decompress.zlib_library.decompressobj(_GZIP)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return bool(self._decoder.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._decoder.unused_data)

    def decompress(self, data: bytes, max_length: int = CHUNK) -> bytes:
        output: bytes = self._decoder.decompress(self._decoder.unconsumed_tail + data, max_length)
        self.needs_input = not self._decoder.unconsumed_tail and len(output) < max_length
        return output


def _unxz() -> _Decoder:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)


@dataclass(frozen=True, slots=True)
class _Format:
    magic: bytes
    decoder: Callable[[], _Decoder]
    padding: bool
    """Whether zeros may stand between members and after the last."""
    ignores_rest: bool


_FORMATS: Final[Mapping[str, _Format]] = {
    "gzip": _Format(b"\x1f\x8b", _Gunzip, padding=True, ignores_rest=True),
    "xz": _Format(b"\xfd7zXZ\0", _unxz, padding=True, ignores_rest=False),
    "bzip2": _Format(b"BZh", bz2.BZ2Decompressor, padding=False, ignores_rest=True),
}
_BLOCK_MAGIC: Final = (b"1AY&SY", b"\x17rE8P\x90")
"""Of bzip2, in the digits of π and of its square root: a block, or the end of an empty file."""
_ERRORS: Final = (zlib.error, decompress.zlib_library.error, lzma.LZMAError, OSError, ValueError)


def packing(head: bytes) -> str | None:
    """``gzip``, ``xz``, ``zstd``, ``bzip2``, or None for what is not packed."""
    if head.startswith(zstd_frames.MAGIC):
        return "zstd"
    for name, found in _FORMATS.items():
        if head.startswith(found.magic) and (name != "bzip2" or head[4:10] in _BLOCK_MAGIC):
            return name
    return None


def peek(source: Source, name: str) -> bytes:
    """The first unpacked bytes; nothing of the source is used up."""
    length, output = HEAD, b""
    while len(output) < HEAD:
        packed = source.head(length)
        output = b""
        whole = len(packed) < length
        with contextlib.nullcontext() if whole else contextlib.suppress(Truncated):
            for piece in unpacked([packed], name):
                output += piece
                if len(output) >= HEAD:
                    break
        if whole or length >= _MOST_PEEKED:
            break
        length *= 2
    return output[:HEAD]


def unpacked(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Pieces of about a MiB at most, and not many small ones.

    CorruptImage, Truncated; UnsafeImage: a bomb; UnsupportedImage: it needs too much memory.
    """
    received = produced = 0

    def counted() -> Iterator[bytes]:
        nonlocal received
        for chunk in chunks:
            received += len(chunk)
            yield chunk

    unpack = _zstd(counted()) if name == "zstd" else _members(counted(), name)
    pieces: list[bytes] = []
    size = 0
    for piece in unpack:
        produced += len(piece)
        _check_bounds(received, produced, name)
        pieces.append(piece)
        size += len(piece)
        if size >= CHUNK:
            yield b"".join(pieces)
            pieces, size = [], 0
    if pieces:
        yield b"".join(pieces)


def _check_bounds(received: int, produced: int, name: str) -> None:
    if produced > min(FREE + received * RATIO, MOST):
        raise UnsafeImage(
            f"{received} bytes of {name} unpack to more than {produced} bytes, which no disk image"
            f" does: at most {FREE} bytes and {RATIO} times the packed size, {MOST} in all, are"
            " taken; a very empty disk can be imported unpacked, or as qcow2"
        )


def _members(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    found = _FORMATS[name]
    decoder: _Decoder | None = found.decoder()
    between = b""
    for chunk in chunks:
        data = between + chunk
        while data:
            if decoder is None:
                data = data.lstrip(b"\0") if found.padding else data
                if len(data) < len(found.magic):
                    break
                if not data.startswith(found.magic):
                    yield from _after(chunks, found, name)
                    return
                decoder = found.decoder()
            yield from _decoded(decoder, data, name)
            data = decoder.unused_data if decoder.eof else b""
            decoder = None if decoder.eof else decoder
        between = data
    if decoder is not None:
        raise Truncated(f"the {name} data ends in its middle")
    if between:
        yield from _after(chunks, found, name)


def _after(chunks: Iterator[bytes], found: _Format, name: str) -> Iterator[bytes]:
    """Something that is no member follows the last one."""
    if not found.ignores_rest:
        raise CorruptImage(f"something that is not {name} follows the {name} data")
    for _ in chunks:  # all of it is part of the source's checksum and length
        yield b""


def _decoded(decoder: _Decoder, data: bytes, name: str) -> Iterator[bytes]:
    try:
        yield decoder.decompress(data, CHUNK)
        while not decoder.eof and not decoder.needs_input:
            yield decoder.decompress(b"", CHUNK)
    except MemoryError as error:
        raise UnsupportedImage(f"the {name} data needs too much memory") from error
    except _ERRORS as error:
        if "emory usage limit" in str(error):
            raise UnsupportedImage(
                f"the {name} data needs more than {MEMORY} bytes of memory to be unpacked"
            ) from error
        raise CorruptImage(f"the {name} data is damaged: {error}") from error


def _zstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    library = decompress.zstd_library()
    frames = zstd_frames.Frames()
    decoder = None
    told, produced = None, 0
    for chunk in chunks:
        for piece, ends in frames.feed(chunk):
            try:
                if decoder is None:
                    unlimited = library.ZstdDecompressor(max_window_size=MEMORY)
                    decoder = unlimited.decompressobj()
                    told, produced = zstd_frames.content_size(piece), 0
                output = decoder.decompress(piece)
            except library.ZstdError as error:
                raise CorruptImage(f"the zstd data is damaged: {error}") from error
            produced += len(output)
            yield output
            if ends:
                decoder = None
                if told not in (None, produced):  # the library does not look before an empty block
                    raise CorruptImage(
                        f"the zstd data is damaged: a frame of {told} bytes has {produced}"
                    )
    if not frames.between:
        raise Truncated("the zstd data ends in its middle")
