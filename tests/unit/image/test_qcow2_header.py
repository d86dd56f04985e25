"""Every header that is refused, each with its own reason, before anything is written."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvirt_zfs_dbus.errors import (
    CorruptImage,
    Error,
    ImportFailed,
    Truncated,
    UnsafeImage,
    UnsupportedImage,
)
from mvirt_zfs_dbus.image.qcow2_header import parse

from .builder import Qcow2


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("cluster_bits", range(9, 22))
def test_versions_and_cluster_sizes_that_exist_are_read(version, cluster_bits):
    header = parse(Qcow2(version=version, cluster_bits=cluster_bits, size=12345 * 512).build())
    assert header.version == version
    assert header.cluster_size == 1 << cluster_bits
    assert header.size == 12345 * 512
    assert header.compression == "zlib"


@pytest.mark.parametrize("order", range(7))
def test_every_width_of_refcounts_is_read(order):
    assert parse(Qcow2(refcount_order=order).build()).size == 1 << 20


def test_compression_types_are_told_apart():
    assert parse(Qcow2(compression_type=0).build()).compression == "zlib"
    assert parse(Qcow2(compression_type=1, incompatible=8).build()).compression == "zstd"


def test_table_entries_behind_the_disk_are_left_out():
    assert parse(Qcow2(l1_entries=7).build()).l1_entries == 1


REFUSED = [
    (Qcow2(version=4), UnsupportedImage, "version 4"),
    (Qcow2(cluster_bits=8), CorruptImage, "cluster_bits is 8"),
    (Qcow2(cluster_bits=22), CorruptImage, "cluster_bits is 22"),
    (Qcow2(backing=b"/etc/shadow"), UnsafeImage, "backing file '/etc/shadow'"),
    (Qcow2(version=2, backing=b"base.img"), UnsafeImage, "backing file 'base.img'"),
    (Qcow2(crypt_method=1), UnsupportedImage, r"encrypted \(AES\)"),
    (Qcow2(crypt_method=2), UnsupportedImage, r"encrypted \(LUKS\)"),
    (Qcow2(crypt_method=9), UnsupportedImage, r"encrypted \(method 9\)"),
    (Qcow2(incompatible=4), UnsafeImage, "external file"),
    (Qcow2(incompatible=1), CorruptImage, "marked dirty"),
    (Qcow2(incompatible=2), CorruptImage, "marked corrupt"),
    (Qcow2(incompatible=32), UnsupportedImage, "features that are not known here: bit 5"),
    (Qcow2(incompatible=1 << 63), UnsupportedImage, "bit 63"),
    (Qcow2(compression_type=2, incompatible=8), UnsupportedImage, "compression type 2"),
    (Qcow2(compression_type=1), CorruptImage, "compression type is 1, which"),
    (Qcow2(compression_type=0, incompatible=8), CorruptImage, "compression type is 0, which"),
    (Qcow2(incompatible=8), CorruptImage, "compression type is 0, which"),
    (Qcow2(refcount_order=7), CorruptImage, "refcount_order is 7"),
    (Qcow2(header_length=96), CorruptImage, "header_length is 96"),
    (Qcow2(header_length=105), CorruptImage, "header_length is 105"),
    (Qcow2(header_length=8192), CorruptImage, "header_length is 8192"),
    (Qcow2(extended_l2=True), CorruptImage, "extended L2 entries need clusters of 16384"),
    (Qcow2(size=0), CorruptImage, "0 bytes"),
    (Qcow2(size=(1 << 56) + 512, l1_entries=1), CorruptImage, "more than an image can hold"),
    (Qcow2(size=1 << 40, l1_entries=1), CorruptImage, "takes 524288"),
    (Qcow2(l1_entries=0), CorruptImage, "L1 table has 0 entries"),
    (Qcow2(l1_entries=(4 << 20) + 1), CorruptImage, "at most 4194304"),
    (Qcow2(l1_offset=0), CorruptImage, "L1 table is at byte 0"),
    (Qcow2(l1_offset=4097), CorruptImage, "L1 table is at byte 4097"),
    (Qcow2(refcount_offset=0), CorruptImage, "refcount table is at byte 0"),
    (Qcow2(refcount_offset=512), CorruptImage, "refcount table is at byte 512"),
    (Qcow2(refcount_clusters=2049), CorruptImage, "refcount table has 2049 clusters"),
]


@pytest.mark.parametrize(("image", "error", "says"), REFUSED, ids=[case[2] for case in REFUSED])
def test_what_an_image_must_not_be_is_refused_with_the_reason(image, error, says):
    with pytest.raises(error, match=says):
        parse(image.header())


def test_an_unknown_feature_is_named_as_the_image_names_it():
    table = struct.pack(">II", 0x6803F857, 96)
    table += bytes([1, 5]) + b"not this".ljust(46, b"\0")
    table += bytes([0, 5]) + b"teleport".ljust(46, b"\0")
    other = struct.pack(">II", 0x12345678, 5) + b"abcde\0\0\0"
    image = Qcow2(incompatible=32, extensions=other + table + bytes(8))
    with pytest.raises(UnsupportedImage, match=r"'teleport' \(bit 5\)"):
        parse(image.build())


@pytest.mark.parametrize("length", [4, 71])
def test_a_header_cut_short_is_truncated(length):
    with pytest.raises(Truncated, match="inside its header"):
        parse(Qcow2(version=2).build()[:length])


def test_a_version_3_header_cut_short_is_truncated():
    with pytest.raises(Truncated, match="after 103 bytes"):
        parse(Qcow2().build()[:103])


@settings(deadline=None)
@given(st.binary(min_size=72, max_size=400), st.sampled_from([2, 3]), st.integers(9, 21))
def test_no_header_does_worse_than_to_be_refused(data, version, cluster_bits):
    fields = b"QFI\xfb" + struct.pack(">I", version) + bytes(12) + struct.pack(">I", cluster_bits)
    try:
        header = parse(fields + data)
    except ImportFailed:
        return
    except Error as error:
        raise AssertionError(error) from error
    assert header.l1_entries * 8 <= 32 << 20
    assert header.l1_entries * header.table_span >= header.size
