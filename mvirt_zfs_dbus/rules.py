"""What a name, an id, a size, a label, a checksum or a source may be.

Each function answers the value in its normal form, or raises the error the caller is to see.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from .errors import InvalidArgs, InvalidName, InvalidSize, LimitsExceeded, WouldShrink

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@:-]{0,127}", re.ASCII)

MIN_BLOCK_SIZE: Final = 512
MAX_BLOCK_SIZE: Final = 128 * 1024
"""zfsprops(7), volblocksize: any power of two from 512 bytes to 128 KiB."""
DEFAULT_BLOCK_SIZE: Final = 16 * 1024
"""OpenZFS's default since 2.2; 2.1's 8 KiB wastes space on raidz."""

MAX_VOLUME_SIZE: Final = 2**63 - MAX_BLOCK_SIZE
"""The largest offset of a file or device (off_t), whole blocks of any size."""

MAX_LABELS: Final = 64
MAX_LABEL_KEY: Final = 128
MAX_LABEL_VALUE: Final = 4096
MAX_LABELS_BYTES: Final = 6144
"""All labels live in one ZFS user property, and its value has at most 8191 bytes (zfsprops(7))."""

MAX_SOURCE: Final = 8192
"""Bytes; a path has at most 4096 (PATH_MAX), and servers take no longer URLs."""

CHECKSUM_LENGTHS: Final[Mapping[str, int]] = {"sha256": 64, "sha512": 128}
COMPRESSIONS: Final = re.compile(
    r"on|off|lzjb|zle|lz4|gzip(-[1-9])?|zstd(-([1-9]|1[0-9]))?"
    r"|zstd-fast(-([1-9]|[1-9]0|100|500|1000))?"
)
"""zfsprops(7), compression."""
_USERINFO: Final = re.compile(r"^([^/?#]*://)[^/?#]*@")
"""RFC 3986, sections 3.1 and 3.2.1: of any scheme, a misspelt one too."""
_QUERY: Final = re.compile(r"^([^/?#]*://[^?#]*)[?#].*", re.DOTALL)
_WRONG_USERINFO: Final = re.compile("://.*@", re.DOTALL)
"""As somebody may write it whose password has a ``/``, ``?`` or ``#``."""
_UNSHOWABLE: Final = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that terminals obey, that end lines, or that turn the order of others round (Unicode
Technical Report 36, 2.5): with them a prompt could say what its caller likes."""

IMAGE_FORMATS: Final = ("auto", "raw", "qcow2", "vmdk", "vhdx", "vdi", "vpc")
"""The image formats that can be asked for by name; ``auto`` lets the content decide."""


def name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise InvalidName(
            f"{_shown(value)} is no valid name: it takes 1 to 128 letters, digits and . _ - + @ :"
            " and begins with a letter or digit"
        )
    return value


def object_id(value: str | None) -> str:
    """A UUID a caller chose, in lower case with dashes; a new one where the caller chose none."""
    if value is None:
        return str(uuid.uuid4())
    try:
        parsed = str(uuid.UUID(value))
    except ValueError:
        parsed = None
    if parsed is None or parsed != value.lower():
        raise InvalidArgs(
            f"id {_shown(value)} is no UUID: it looks like 1b4e28ba-2fa1-11d2-883f-0016d3cca427"
        )
    return parsed


def block_size(value: int) -> int:
    if not MIN_BLOCK_SIZE <= value <= MAX_BLOCK_SIZE or value & (value - 1):
        raise InvalidSize(
            f"block-size {value} is not a power of two from {MIN_BLOCK_SIZE} to {MAX_BLOCK_SIZE}"
        )
    return value


def volume_size(value: int, block: int, maximum: int) -> int:
    """A volume's size in bytes, rounded up to its block size."""
    if value <= 0:
        raise InvalidSize(f"size {value} is not a positive number of bytes")
    rounded = -(-value // block) * block
    if rounded > maximum:
        raise InvalidSize(f"size {value} is over the limit of {maximum} bytes")
    return rounded


def grown_size(value: int, current: int, block: int, maximum: int) -> int:
    """The size a volume of ``current`` bytes is resized to."""
    rounded = volume_size(value, block, maximum)
    if rounded < current:
        raise WouldShrink(
            f"size {value} is smaller than the present {current} bytes, and shrinking destroys data"
        )
    return rounded


def labels(value: Mapping[str, str]) -> dict[str, str]:
    """InvalidArgs: a label without a name. LimitsExceeded: too many, or too long."""
    if len(value) > MAX_LABELS:
        raise LimitsExceeded(
            f"{len(value)} labels are more than the {MAX_LABELS} an object can have"
        )
    for key, text in value.items():
        if not key:
            raise InvalidArgs(f"a label has a name of 1 to {MAX_LABEL_KEY} characters, not none")
        if len(key) > MAX_LABEL_KEY:
            raise LimitsExceeded(f"label {_shown(key)} is longer than {MAX_LABEL_KEY} characters")
        if len(text) > MAX_LABEL_VALUE:
            raise LimitsExceeded(
                f"the value of label {_shown(key)} has {len(text)} characters;"
                f" at most {MAX_LABEL_VALUE} are kept"
            )
    size = sum(len(key.encode()) + len(text.encode()) for key, text in value.items())
    if size > MAX_LABELS_BYTES:
        raise LimitsExceeded(f"labels of {size} bytes in all; at most {MAX_LABELS_BYTES} are kept")
    return dict(value)


def compression(value: str) -> str:
    """A name zfsprops(7) knows."""
    if not COMPRESSIONS.fullmatch(value):
        raise InvalidArgs(
            f"compression {_shown(value)} is none ZFS knows: on, off, lz4, zstd, zstd-1 … zstd-19,"
            " zstd-fast, gzip, gzip-1 … gzip-9, zle or lzjb"
        )
    return value


def image_format(value: str) -> str:
    if value not in IMAGE_FORMATS:
        raise InvalidArgs(f"format {_shown(value)} is none of {', '.join(IMAGE_FORMATS)}")
    return value


@dataclass(frozen=True, slots=True)
class Checksum:
    algorithm: str
    digest: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digest}"


def checksum(value: str) -> Checksum:
    algorithm, _, digest = value.partition(":")
    length = CHECKSUM_LENGTHS.get(algorithm)
    if length is None or not re.fullmatch(rf"[0-9A-Fa-f]{{{length}}}", digest):
        raise InvalidArgs(
            f"checksum {_shown(value)} is neither sha256: and 64 hexadecimal digits"
            " nor sha512: and 128"
        )
    return Checksum(algorithm, digest.lower())


def is_url(source: str) -> bool:
    """Whether an allowed source is something to download; otherwise it is a path."""
    return not source.startswith("/")


def source(value: str) -> str:
    """An absolute path, or an http or https URL."""
    is_path = value.startswith("/")
    shown = _shown(value if is_path else shown_source(_WRONG_USERINFO.sub("://", value)))
    if len(value.encode()) > MAX_SOURCE:
        raise InvalidArgs(f"source {shown} is longer than {MAX_SOURCE} bytes")
    if is_path:
        if _UNSHOWABLE.search(value):
            raise InvalidArgs(
                f"source {shown} holds a control character, which no prompt can show; such a file"
                " can be passed as a file descriptor"
            )
        return value
    try:
        url = urlsplit(value)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        valid = False
    if not valid or not value.isprintable() or " " in value:
        raise InvalidArgs(
            f"source {shown} is neither an absolute path nor an http:// or https:// URL"
        )
    return value


def shown_source(value: str) -> str:
    """A source as everybody may see it: a URL without what may be a secret in it, which is the
    user and password, and the query, where signed URLs have their signature."""
    return _QUERY.sub(r"\1", _USERINFO.sub(r"\1", value))


def _shown(value: str) -> str:
    """A value as a message quotes it: printable, and cut where it is long."""
    return repr(value if len(value) <= 100 else value[:97] + "…")
