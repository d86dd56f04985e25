"""What VMDK, VHDX, VDI and VHD images are refused for, each before a byte is written.

``qemu-img`` takes many of them: cut in half, as one part of many, as a difference without its base,
and answers zeros for what is not there.
"""

from __future__ import annotations

import random
import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mvirt_zfs_dbus.errors import (
    CorruptImage,
    Error,
    ImportFailed,
    InvalidArgs,
    Truncated,
    UnsafeImage,
    UnsupportedImage,
)
from mvirt_zfs_dbus.image import vhdx

from .inprocess import import_bytes, import_pipe
from .test_foreign import KINDS, SECTOR, convert, disk_in, footer_at_its_end

SIZE = 3 << 20


@cache
def image(image_format: str, options: str) -> tuple[bytes, bytes]:
    """An image, and the disk in it: data, zeros, data."""
    with TemporaryDirectory() as folder:
        raw = Path(folder) / "disk.raw"
        some = random.Random(5).randbytes
        raw.write_bytes(some(700_000) + bytes(SIZE - 700_000 - 1_000_448) + some(1_000_448))
        path = convert(raw, image_format, options)
        return path.read_bytes(), disk_in(path, image_format)


VMDK = ("vmdk", "subformat=monolithicSparse")
STREAM = ("vmdk", "subformat=streamOptimized")
VHDX = ("vhdx", "subformat=dynamic,block_size=1M")
VDI = ("vdi", "static=off")
VHD = ("vpc", "subformat=dynamic,force_size=on")


def patched(kind: tuple[str, str], place: int, data: bytes) -> bytes:
    whole = image(*kind)[0]
    return whole[:place] + data + whole[place + len(data) :]


def summed(data: bytes, start: int, length: int, place: int) -> bytes:
    """A VHD's structure with its checksum right again."""
    part = bytearray(data[start : start + length])
    part[place : place + 4] = bytes(4)
    part[place : place + 4] = (~sum(part) & 0xFFFFFFFF).to_bytes(4, "big")
    return data[:start] + bytes(part) + data[start + length :]


def vhd(place: int, data: bytes) -> bytes:
    """With both copies of its footer changed."""
    whole = image(*VHD)[0]
    for start in (0, len(whole) - SECTOR):
        whole = whole[: start + place] + data + whole[start + place + len(data) :]
        whole = summed(whole, start, SECTOR, 64)
    return whole


def vhd_header(place: int, data: bytes) -> bytes:
    whole = image(*VHD)[0]
    start = SECTOR + place
    return summed(whole[:start] + data + whole[start + len(data) :], SECTOR, 1024, 36)


def vhdx_item(name: bytes) -> int:
    """Where in the image an item of its metadata lies."""
    whole = image(*VHDX)[0]
    metadata = struct.unpack_from("<Q", whole, whole.index(vhdx._METADATA) + 16)[0]
    return metadata + struct.unpack_from("<I", whole, whole.index(name, metadata) + 16)[0]


def descriptor(old: str, new: str) -> bytes:
    whole = image(*VMDK)[0]
    end = whole.index(b"\0", SECTOR)
    text = whole[SECTOR:end].decode()
    assert old in text
    return whole[:SECTOR] + text.replace(old, new).encode().ljust(end - SECTOR, b"\0") + whole[end:]


def shortened(data: bytes) -> bytes:
    """With a longer descriptor cut to the space it has."""
    return data[: len(image(*VMDK)[0])]


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def u64(number: int) -> bytes:
    return number.to_bytes(8, "little")


def grain_table() -> int:
    (directory,) = struct.unpack_from("<Q", image(*VMDK)[0], 56)
    return struct.unpack_from("<I", image(*VMDK)[0], directory * SECTOR)[0] * SECTOR


def vhd_table() -> int:
    return struct.unpack_from(">Q", image(*VHD)[0], SECTOR + 16)[0]


def vhdx_table() -> int:
    whole = image(*VHDX)[0]
    return struct.unpack_from("<Q", whole, whole.index(vhdx._BAT) + 16)[0]


DESCRIPTOR_ALONE = b"""# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"
RW 8 FLAT "/etc/shadow" 0
"""
EXTENT = 'SPARSE "disk.vmdk"'

REFUSED = {
    # Another file is named
    "a descriptor by itself": (lambda: DESCRIPTOR_ALONE, UnsafeImage, "names the files"),
    "an extent elsewhere": (
        lambda: descriptor(EXTENT, 'SPARSE "/etc/shadow"'), UnsafeImage, "names /etc/shadow"),
    "an extent on Windows": (
        lambda: descriptor(EXTENT, 'SPARSE "..\\x.vmdk"'), UnsafeImage, "x.vmdk"),
    "a flat extent": (lambda: descriptor("SPARSE", "FLAT  "), UnsafeImage, "kind FLAT"),
    "two extents": (
        lambda: descriptor(EXTENT, EXTENT + '\nRW 1 SPARSE "2.vmdk"'), UnsafeImage, "2.vmdk"),
    "another type": (
        lambda: descriptor("monolithicSparse", "twoGbMaxExtentSparse"), UnsafeImage, "twoGbMax"),
    "no type": (lambda: descriptor("createType", "createTyp"), UnsafeImage, "type none"),
    "a parent in VMDK": (
        lambda: descriptor("parentCID=ffffffff", "parentCID=00000001"), UnsafeImage, "difference"),
    "a parent's name in VMDK": (
        lambda: descriptor("version=1", 'parentFileNameHint="/etc/shadow"'), UnsafeImage, "diff"),
    "a parent in VHD": (lambda: vhd(60, b"\0\0\0\4"), UnsafeImage, "difference"),
    "a parent in VHDX": (
        lambda: patched(VHDX, vhdx_item(vhdx._FILE_PARAMETERS) + 4, u32(2)), UnsafeImage, "differ"),
    "a parent in VDI": (lambda: patched(VDI, 0x1A8, b"x" * 16), UnsafeImage, "difference"),
    "a differencing VDI": (lambda: patched(VDI, 0x4C, u32(4)), UnsafeImage, "difference"),
    # Not a whole disk, or not one that is read
    "a part of a VMDK": (
        lambda: patched(VMDK, 28, bytes(16)), UnsupportedImage, "one of the files of a disk"),
    "an ESX extent": (lambda: b"COWD".ljust(4096, b"\0"), UnsupportedImage, "ESX"),
    "a descriptor elsewhere": (lambda: patched(VMDK, 28, u64(2)), UnsupportedImage, "sector 2"),
    "an encrypted VMDK": (
        lambda: descriptor("CID=", "encryption.keySafe=x\nCID="), UnsupportedImage, "encrypted"),
    "VMDK 4": (lambda: patched(VMDK, 4, u32(4)), UnsupportedImage, "version 4"),
    "VDI 2": (lambda: patched(VDI, 0x44, u32(0x20000)), UnsupportedImage, "VDI 2.0"),
    "an unknown VDI": (lambda: patched(VDI, 0x4C, u32(7)), UnsupportedImage, "type 7"),
    "VDI sectors of 4096": (lambda: patched(VDI, 0x168, u32(4096)), UnsupportedImage, "4096"),
    "an unknown VHD": (lambda: vhd(60, b"\0\0\0\x09"), UnsupportedImage, "type 9"),
    "VHDX blocks of 3 MiB": (
        lambda: patched(VHDX, vhdx_item(vhdx._FILE_PARAMETERS), u32(3 << 20)),
        UnsupportedImage, "3145728"),
    # Not closed
    "an unclean VMDK": (lambda: patched(VMDK, 72, b"\1"), CorruptImage, "not closed"),
    # Tables that lie
    "a grain outside": (
        lambda: patched(VMDK, grain_table(), u32(0x7FFFFF0)), CorruptImage, "outside the image"),
    "a grain twice": (
        lambda: patched(VMDK, grain_table(), image(*VMDK)[0][grain_table() + 4 :][:4]),
        CorruptImage, "two blocks"),
    "a grain table outside": (
        lambda: patched(VMDK, struct.unpack_from("<Q", image(*VMDK)[0], 56)[0] * SECTOR,
                        u32(0x7FFFFF0)), CorruptImage, "grain table 0"),
    "a grain directory outside": (lambda: patched(VMDK, 56, u64(1 << 40)), Truncated, "ends at"),
    "VMDK grains of 3 sectors": (lambda: patched(VMDK, 20, u64(3)), CorruptImage, "grains of 3"),
    "a VMDK without a disk": (lambda: patched(VMDK, 12, u64(0)), CorruptImage, "a disk of 0"),
    "a VMDK without tables": (lambda: patched(VMDK, 44, u32(0)), CorruptImage, "0 entries"),
    "a VMDK beyond all bounds": (lambda: patched(VMDK, 12, u64(1 << 62)), CorruptImage, "more"),
    "a VMDK's footer": (
        lambda: footer_at_its_end(image(*STREAM)[0])[:-1024 + 12] + u64(9)
        + footer_at_its_end(image(*STREAM)[0])[-1024 + 20:], CorruptImage, "contradicts"),
    "a VDI block outside": (lambda: patched(VDI, 512, u32(9999)), CorruptImage, "block 0"),
    "a VDI block twice": (lambda: patched(VDI, 512, u32(1)), CorruptImage, "two blocks"),
    "too few VDI blocks": (lambda: patched(VDI, 0x180, u32(1)), CorruptImage, "1 blocks"),
    "a VDI without a disk": (lambda: patched(VDI, 0x170, u64(0)), CorruptImage, "disk of 0"),
    "a VHD block outside": (
        lambda: patched(VHD, vhd_table(), b"\x07\0\0\0"), CorruptImage, "block 0"),
    "a VHD's damaged footer": (lambda: patched(VHD, 48, b"\1"), CorruptImage, "checksum"),
    "a VHD's damaged header": (lambda: patched(VHD, SECTOR + 30, b"\1"), CorruptImage, "damaged"),
    "too few VHD blocks": (lambda: vhd_header(28, bytes(4)), CorruptImage, "0 blocks"),
    "a VHD of half a sector": (
        lambda: vhd(48, (1000).to_bytes(8, "big")), CorruptImage, "no whole sectors"),
    "a VHD that says it is fixed": (lambda: vhd(60, b"\0\0\0\2"), CorruptImage, "dynamic"),
    "a VHDX block outside": (
        lambda: patched(VHDX, vhdx_table(), u64(1 << 40 | 6)), CorruptImage, "block 0"),
    "a VHDX block in the header": (
        lambda: patched(VHDX, vhdx_table(), u64(6)), CorruptImage, "where its header is"),
    "a VHDX without regions": (lambda: patched(VHDX, 192 << 10, b"x"), CorruptImage, "region"),
    "a VHDX without a disk": (
        lambda: patched(VHDX, vhdx_item(vhdx._DISK_SIZE), u64(0)), CorruptImage, "disk of 0"),
    "a VHDX of too large a disk": (
        lambda: patched(VHDX, vhdx_item(vhdx._DISK_SIZE), u64(1 << 50)), CorruptImage, "too short"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_an_image_is_refused_before_a_byte_is_written(case):
    make, error, says = REFUSED[case]
    for way in (import_bytes, import_pipe):
        with pytest.raises(error, match=says) as caught:
            way(make())
        assert type(caught.value) is error


@pytest.mark.parametrize("image_format", ["vmdk", "vhdx", "vdi"])
def test_what_is_asked_for_must_be_one(image_format):
    with pytest.raises(CorruptImage, match=f"no {image_format} image"):
        import_bytes(bytes(5000), image_format=image_format)


FOOTED = ("", "")


def whole(kind: tuple[str, str]) -> tuple[bytes, bytes]:
    if kind == FOOTED:
        packed, disk = image(*STREAM)
        return footer_at_its_end(packed), disk
    return image(*kind)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([*KINDS, FOOTED]), st.floats(0, 1, exclude_max=True))
@example(VMDK, 0.5)
@example(VDI, 0.5)
@example(STREAM, 0.9)
def test_a_file_cut_anywhere_is_refused_or_has_all_of_its_disk(kind, part):
    """The last sectors of some images hold nothing of the disk. Cut before its magic bytes, or a
    fixed VHD before its footer, an image is a raw disk to who does not ask for its format."""
    packed, disk = whole(kind)
    cut = packed[: int(len(packed) * part)]
    try:
        result = import_bytes(cut, image_format=kind[0] or "vmdk")
    except ImportFailed:
        return
    assert result.disk == disk


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from([VMDK, STREAM, VHDX, VDI, VHD]),
    st.lists(
        st.tuples(
            st.one_of(
                st.integers(0, 1500), st.integers(65536, 300_000), st.integers(1 << 20, SIZE)
            ),
            st.binary(min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_a_damaged_image_is_refused_or_read_and_never_a_fault(kind, damages):
    data = bytearray(image(*kind)[0])
    for place, junk in damages:
        data[place : place + len(junk)] = junk
    if len(data) > 1 << 27:
        return
    try:
        import_bytes(bytes(data), image_format=kind[0])
    except Error as error:
        assert isinstance(error, ImportFailed | InvalidArgs), repr(error)
