"""What an image is, told by its content and never by its name."""

from __future__ import annotations

from typing import Final

from ..errors import CorruptImage, UnsupportedImage
from . import unpack
from .source import Seekable, Source

AUTO: Final = "auto"
RAW: Final = "raw"
QCOW2: Final = "qcow2"
VMDK: Final = "vmdk"
VHDX: Final = "vhdx"
VDI: Final = "vdi"
VPC: Final = "vpc"
"""VHD, by the name QEMU has for it."""
READ: Final = (RAW, QCOW2, VMDK, VHDX, VDI, VPC)

_MAGIC: Final = (
    (0, b"KDMV", VMDK),
    (0, b"COWD", VMDK),
    (0, b"# Disk DescriptorFile", VMDK),
    (0, b"vhdxfile", VHDX),
    (0, b"conectix", VPC),
    (64, b"\x7f\x10\xda\xbe", VDI),
    (0, b"QED\0", "QED"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"WithoutFreeSpace", "Parallels"),
    (0, b"WithouFreSpacExt", "Parallels"),
    (0, b"\x04\x22\x4d\x18", "lz4"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"PK\x03\x04", "zip"),
)
"""(offset, bytes, name): each from the format's own specification."""
_QCOW: Final = b"QFI\xfb"
_VHD_FOOTER: Final = 512
"""A fixed VHD is a raw disk with its footer in the last sector."""


def found(head: bytes, source: Source | None) -> str:
    """The name of the format: one of ``READ``, or one that this service does not read."""
    if head.startswith(_QCOW):
        version = int.from_bytes(head[4:8], "big")
        return "qcow (version 1)" if version == 1 else QCOW2
    if packing := unpack.packing(head):
        return packing
    for offset, magic, name in _MAGIC:
        if head.startswith(magic, offset):
            return name
    if isinstance(source, Seekable) and source.size > _VHD_FOOTER:
        footer = source.read(source.size - _VHD_FOOTER, 8)
        if footer == b"conectix":
            return VPC
    return RAW


def packing(asked: str, head: bytes) -> str | None:
    """How the source is packed, if it is to be unpacked; ``asked`` as below."""
    return None if asked == RAW else unpack.packing(head)


def image_format(asked: str, head: bytes, source: Source | None) -> str:
    """One of ``READ``; ``asked`` is one of them, or ``auto`` to let the content decide.

    ``source`` is None for what has been unpacked. Who asks for raw gets the bytes as they are,
    whatever they look like. A fixed VHD that comes as a stream is raw until its end has come, or
    vpc for who asks for that.
    """
    if not head:
        raise CorruptImage("the source is empty")
    if asked == RAW:
        return RAW
    name = found(head, source)
    if name not in READ:
        raise UnsupportedImage(
            f"the source is in the format {name}; {', '.join(READ[:-1])} and {READ[-1]} are read"
            + (", and format=raw takes any bytes as they are" if asked == AUTO else "")
        )
    if asked in (AUTO, name):
        return name
    if asked == VPC and name == RAW and not isinstance(source, Seekable):
        return VPC
    raise CorruptImage(f"the source is no {asked} image: by its content it is {name}")
