"""qcow2 images of every layout become the disk that QEMU says they are, or are refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvirt_zfs_dbus.errors import CorruptImage, ImportFailed, Truncated, UnsupportedImage
from mvirt_zfs_dbus.image import decompress, qcow2_tables

from . import qemu
from .builder import COMPRESSED, COPIED, Qcow2, deflate, zstd
from .inprocess import import_bytes, import_file, import_pipe

KIB = 1024


def x(count: int, byte: bytes = b"x") -> bytes:
    return byte * count


# As QEMU writes them


commands = st.lists(
    st.tuples(
        st.sampled_from(["write -P 0x11", "write -P 0xee", "write -z", "write -zu", "discard"]),
        st.integers(0, 2047),
        st.integers(1, 300),
    ),
    max_size=8,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cluster_bits=st.integers(9, 21),
    extended=st.booleans(),
    old=st.booleans(),
    zstd=st.booleans(),
    preallocation=st.sampled_from(["off", "metadata", "full"]),
    writes=commands,
    packed=st.lists(st.integers(0, 10), max_size=3, unique=True),
    snapshot=st.booleans(),
    tail=st.integers(1, 127),
    how=st.sampled_from(["file", "pipe", "over"]),
)
def test_an_image_as_qemu_writes_it_becomes_its_disk(
    tmp_path,
    cluster_bits,
    extended,
    old,
    zstd,
    preallocation,
    writes,
    packed,
    snapshot,
    tail,
    how,
):
    path = tmp_path / "image.qcow2"
    options = {"cluster_size": 1 << cluster_bits, "preallocation": preallocation}
    if old:
        options["compat"] = "0.10"
    else:
        options["extended_l2"] = "on" if extended and cluster_bits >= 14 else "off"
        options["compression_type"] = "zstd" if zstd else "zlib"
    size = (1 << 20) + tail * 512
    qemu.create(path, size, **options)
    compressed = [
        f"write -c -P {0x30 + n} {n << cluster_bits} {1 << cluster_bits}"
        for n in packed
        if (n + 1) << cluster_bits <= size
    ]
    io = [
        f"{command} {start * 512} {min(count * 512, size - start * 512)}"
        for command, start, count in writes
        if start * 512 < size
    ]
    qemu.io(path, *(compressed if preallocation == "off" else []), *io[: len(io) // 2], "flush")
    if snapshot:
        qemu.run("qemu-img", "snapshot", "-c", "before", path)
    qemu.io(path, *io[len(io) // 2 :], "flush")

    if how == "file":
        result = import_file(path)
    elif how == "pipe":
        result = import_pipe(path.read_bytes())
    else:
        result = import_file(path, target=b"old data", extra=4096)
    expected = qemu.disk(path)
    assert result.info.virtual_size == len(expected) == size
    assert result.done.size == size
    assert result.disk == expected.ljust(len(result.disk), b"\0")


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
@pytest.mark.parametrize("cluster_size", [512, 4096, 65536, 2 << 20])
def test_a_packed_image_as_qemu_converts_it_becomes_its_disk(tmp_path, compression, cluster_size):
    raw = tmp_path / "disk"
    words = b"".join(os.urandom(8) * 40 + bytes(200) for _ in range(4000))
    raw.write_bytes(words[: len(words) // 512 * 512])
    packed = tmp_path / "image"
    options = f"compression_type={compression},cluster_size={cluster_size}"
    qemu.run("qemu-img", "convert", "-O", "qcow2", "-c", "-o", options, raw, packed)
    result = import_file(packed, algorithm="sha256")
    assert result.disk == raw.read_bytes()
    assert result.info.format == "qcow2"


# As nobody would


@pytest.mark.parametrize("version", [2, 3])
def test_the_images_built_here_are_what_qemu_takes_them_for(tmp_path, version):
    image = Qcow2(version=version).data(0, x(4096)).packed(3, deflate(x(4096, b"y")))
    path = tmp_path / "image"
    path.write_bytes(image.build())
    assert import_file(path).disk == qemu.disk(path)


def test_subclusters_are_data_or_zeros_each_for_itself(tmp_path):
    image = Qcow2(cluster_bits=14, extended_l2=True, size=100 * KIB)
    image.data(0, x(16384), bitmap=0b1011)
    image.data(1, x(16384), bitmap=0b0001 | 0b1110 << 32)
    image.data(2, x(16384), bitmap=0)
    image.data(6, x(16384))
    image.packed(3, deflate(x(16384, b"z")))
    path = tmp_path / "image"
    path.write_bytes(image.build())
    assert import_file(path).disk == qemu.disk(path)


def test_the_size_of_a_disk_need_not_be_whole_sectors():
    image = Qcow2(size=5000).data(0, x(4096)).data(1, x(4096, b"y"))
    assert import_bytes(image.build()).disk == x(4096) + x(904, b"y")


def test_the_same_cluster_may_be_used_twice():
    image = Qcow2(size=8192).data(0, x(4096))
    image.clusters[1] = image.clusters[0]
    assert import_bytes(image.build()).disk == x(8192)


def test_a_preallocated_zero_cluster_reads_as_zeros():
    image = Qcow2(size=8192).data(0, x(4096))
    image.clusters[1] = lambda base: base | COPIED | 1
    assert import_bytes(image.build()).disk == x(4096) + bytes(4096)


def test_a_window_wider_than_qemus_is_inflated():
    import zlib

    far = os.urandom(20000)
    packer = zlib.compressobj(level=9, wbits=-15)
    data = packer.compress(far + far + bytes(65536 - 40000)) + packer.flush()
    image = Qcow2(size=65536, cluster_bits=16).packed(0, data)
    assert import_bytes(image.build()).disk == far + far + bytes(65536 - 40000)


ENTRIES = [
    (COPIED | 1 << 58, CorruptImage, "is invalid"),
    (COPIED | 0x1002, CorruptImage, "is invalid"),
    (COPIED | 0x1200, CorruptImage, "is invalid"),
    (COPIED, CorruptImage, "is invalid"),
    (COPIED | COMPRESSED | 0x4000, CorruptImage, "is invalid"),
    (COPIED | 0, CorruptImage, "is invalid"),
    (COPIED | 1 << 55, CorruptImage, "outside the image"),
    (COMPRESSED | 1 << 40, CorruptImage, "outside the image"),
    (COMPRESSED | 0x0010, CorruptImage, "over metadata"),
    (COPIED | 0x1000, CorruptImage, "over metadata"),
    (COPIED | 0x2000, CorruptImage, "over metadata"),
    (COPIED | 0x3000, CorruptImage, "over metadata"),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda case: f"{case[0]:#x}")
@pytest.mark.parametrize("how", [import_bytes, import_pipe])
def test_an_entry_that_cannot_be_is_refused(entry, how):
    value, error, says = entry
    with pytest.raises(error, match=says):
        how(Qcow2().data(5, x(4096)).entry(200, value).build())


def test_zero_clusters_do_not_exist_in_version_2():
    with pytest.raises(CorruptImage, match="is invalid"):
        import_bytes(Qcow2(version=2).entry(0, 1).build())


def test_compressed_offsets_above_the_addressable_are_refused():
    with pytest.raises(CorruptImage, match="is invalid"):
        import_bytes(Qcow2().entry(0, COMPRESSED | 1 << 57).build())


@pytest.mark.parametrize(
    ("entry", "bitmap"),
    [(0, 1), (COPIED | 0x10000, 1 | 1 << 32), (1, 0), (COPIED | 0x10200, 1)],
)
def test_subclusters_that_contradict_themselves_are_refused(entry, bitmap):
    image = Qcow2(cluster_bits=14, extended_l2=True).data(9, x(1)).entry(0, entry, bitmap)
    with pytest.raises(CorruptImage, match="is invalid"):
        import_bytes(image.build())


L1 = [
    (0x3001, "no L2 table's place"),
    (1 << 57 | 0x3000, "no L2 table's place"),
    (0x3200, "no L2 table's place"),
    (1 << 50, "outside the image"),
    (0x0000 | COPIED | 0x1000, "overlaps other metadata"),
    (0x2000, "overlaps other metadata"),
]


@pytest.mark.parametrize(("entry", "says"), L1)
def test_an_l1_entry_that_cannot_be_is_refused(entry, says):
    with pytest.raises(CorruptImage, match=says):
        import_bytes(Qcow2(l1={0: entry}).data(0, x(4096)).build())


def test_an_l1_entry_may_be_marked_and_still_be_none():
    assert import_bytes(Qcow2(l1={0: COPIED}).build()).disk == bytes(1 << 20)


def test_an_l2_table_used_twice_is_refused():
    image = Qcow2(size=4 << 20)
    image.data(0, x(4096)).l1[1] = image.l2_at
    with pytest.raises(CorruptImage, match=r"L2 table 1 at byte .* overlaps"):
        import_bytes(image.build())


def test_tables_outside_the_file_are_refused():
    with pytest.raises(CorruptImage, match="the L1 table is at byte 1073741824, outside"):
        import_bytes(Qcow2(l1_offset=1 << 30).build())
    with pytest.raises(CorruptImage, match="the refcount table is at byte 1073741824, outside"):
        import_bytes(Qcow2(refcount_offset=1 << 30).build())
    with pytest.raises(CorruptImage, match="overlaps"):
        import_bytes(Qcow2(refcount_offset=0x2000).build())


def test_a_file_of_absurdly_many_clusters_is_refused(monkeypatch):
    monkeypatch.setattr(qcow2_tables, "MAX_CLUSTERS", 3)
    with pytest.raises(UnsupportedImage, match="too large"):
        import_bytes(Qcow2().data(0, x(4096)).build())


def test_a_refused_image_leaves_the_target_as_it_was():
    image = Qcow2().data(0, x(4096)).entry(200, COPIED).build()
    with pytest.raises(CorruptImage):
        import_pipe(image, target=b"old")


# Damaged


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        (b"\xff" * 100, "damaged"),
        (deflate(x(4000)), "holds 4000 bytes in place of 4096"),
    ],
)
def test_a_damaged_compressed_cluster_is_refused(packed, says):
    with pytest.raises(CorruptImage, match=says):
        import_bytes(Qcow2().packed(0, packed).build())


@pytest.mark.parametrize(
    ("packed", "says"),
    [(b"\xff" * 100, "damaged"), (zstd(x(4000)), "damaged|holds 4000 bytes")],
)
def test_a_damaged_zstd_cluster_is_refused(packed, says):
    image = Qcow2(compression_type=1, incompatible=8).packed(0, packed)
    with pytest.raises(CorruptImage, match=says):
        import_bytes(image.build())


@pytest.mark.parametrize("pack", [deflate, zstd])
def test_a_cluster_that_unpacks_to_far_more_gives_no_more_than_a_cluster(pack):
    compression = {"compression_type": 1, "incompatible": 8} if pack is zstd else {}
    image = Qcow2(cluster_bits=16, **compression).packed(0, pack(x(60 << 20)))
    assert import_bytes(image.build()).disk[:65537] == x(65536) + b"\0"


def test_stdlib_zlib_and_isal_inflate_alike():
    import zlib

    packed = deflate(x(4096)) + b"whatever follows"
    for library in (zlib, decompress.zlib_library):
        output, used = decompress.inflate(packed, 4096, library=library)
        assert output == x(4096)
        assert packed[used:] == b"whatever follows"


def test_zstd_images_need_the_library(monkeypatch):
    monkeypatch.setattr(decompress, "zstandard", None)
    with pytest.raises(UnsupportedImage, match="python3-zstandard"):
        import_bytes(Qcow2(compression_type=1, incompatible=8).build())


def truncations(image: bytes, cluster: int) -> list[int]:
    bounds = range(0, len(image), cluster)
    return sorted({n for bound in bounds for n in (bound - 1, bound, bound + 1, bound + 600)})


def test_an_image_cut_anywhere_is_refused_or_still_whole():
    image = Qcow2(cluster_bits=10, size=200 * KIB)
    for n in range(0, 40, 3):
        image.data(n, os.urandom(1024))
    for n in range(1, 40, 3):
        image.packed(n, deflate(os.urandom(800) + bytes(224)))
    image.entry(2, 1)
    whole = image.build()
    disk = import_bytes(whole).disk
    refused = set()
    for length in truncations(whole, 1024):
        if not 8 <= length < len(whole):
            continue
        try:
            result = import_bytes(whole[:length])
        except ImportFailed as error:
            refused.add(type(error))
        else:
            assert result.disk == disk, length
    assert refused == {Truncated, CorruptImage}
