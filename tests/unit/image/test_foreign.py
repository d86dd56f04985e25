"""VMDK, VHDX, VDI and VHD come in bit for bit as ``qemu-img convert`` reads them."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvirt_zfs_dbus.errors import CorruptImage, NoSpace, Truncated, UnsafeImage
from mvirt_zfs_dbus.image import foreign
from mvirt_zfs_dbus.model import Phase

from . import qemu
from .inprocess import import_bytes, import_fd, import_file, import_pipe

SECTOR = 512
KINDS = [
    ("vmdk", "subformat=monolithicSparse"),
    ("vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
    ("vmdk", "subformat=streamOptimized"),
    ("vhdx", "subformat=dynamic"),
    ("vhdx", "subformat=dynamic,block_size=2M,block_state_zero=off"),
    ("vhdx", "subformat=fixed,block_size=1M"),
    ("vdi", "static=off"),
    ("vdi", "static=on"),
    ("vpc", "subformat=dynamic"),
    ("vpc", "subformat=dynamic,force_size=on"),
    ("vpc", "subformat=fixed"),
    ("vpc", "subformat=fixed,force_size=on"),
]
WRITABLE = [kind for kind in KINDS if "streamOptimized" not in kind[1]]
every = pytest.mark.parametrize(("image_format", "options"), KINDS)


def convert(raw: Path, image_format: str, options: str) -> Path:
    path = raw.with_suffix(f".{image_format}")
    qemu.run(
        "qemu-img", "convert", "-f", "raw", "-O", image_format, "-o", options, raw, path
    )  # fmt: skip
    return path


def disk_in(path: Path, image_format: str) -> bytes:
    """What qemu-img finds in it."""
    raw = path.with_suffix(".oracle")
    qemu.run("qemu-img", "convert", "-f", image_format, "-O", "raw", path, raw)
    try:
        return raw.read_bytes()
    finally:
        raw.unlink()


@pytest.fixture
def raw(tmp_path) -> Path:
    """A disk of 5 MiB and 3 sectors with data, zeros and a last sector that is no zeros."""
    path = tmp_path / "disk.raw"
    some = random.Random(3).randbytes
    end = some(SECTOR)
    path.write_bytes(
        some(100_000) + bytes(2_000_000) + b"x" * 1_000_000
        + bytes((5 << 20) + 2 * SECTOR - 3_100_000) + end
    )  # fmt: skip
    return path


@every
def test_each_format_arrives_bit_for_bit(raw, image_format, options):
    path = convert(raw, image_format, options)
    result = import_file(path, algorithm="sha256")
    expected = disk_in(path, image_format)
    assert expected.startswith(raw.read_bytes())
    assert result.disk == expected
    assert result.info.format == image_format
    assert result.info.virtual_size == result.done.size == len(expected)
    assert result.done.received == path.stat().st_size
    assert result.done.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert result.allocated <= 1_200_000


@every
def test_each_format_arrives_through_a_pipe_and_packed(raw, image_format, options):
    path = convert(raw, image_format, options)
    expected, image = disk_in(path, image_format), path.read_bytes()
    for source in (image, gzip.compress(image, 1)):
        for asked in ("auto", image_format):
            result = import_pipe(source, algorithm="sha512", image_format=asked)
            assert result.disk == expected
            assert result.done.received == len(source)
            assert result.done.digest == hashlib.sha512(source).hexdigest()
    assert import_bytes(gzip.compress(image, 1)).disk == expected


@every
def test_a_larger_disk_that_held_data_reads_as_zeros_behind_the_image(raw, image_format, options):
    path = convert(raw, image_format, options)
    result = import_file(path, extra=70_000, target=b"old")
    assert result.disk == disk_in(path, image_format) + bytes(70_000)


@st.composite
def disks(draw):
    """(size, writes) of a disk; each write is (offset, length, byte) or zeros in sectors."""
    sectors = draw(st.integers(1, 12_000))
    writes = draw(
        st.lists(
            st.tuples(st.integers(0, sectors - 1), st.integers(1, 3000), st.integers(0, 255)),
            max_size=8,
        )
    )
    return sectors, [(at, min(length, sectors - at), byte) for at, length, byte in writes]


@settings(deadline=None, max_examples=60)
@given(disks(), st.sampled_from(KINDS), st.sampled_from(["file", "pipe"]))
def test_any_disk_converted_by_qemu_img_comes_back(disk, kind, way):
    sectors, writes = disk
    content = bytearray(sectors * SECTOR)
    for at, length, byte in writes:
        content[at * SECTOR : (at + length) * SECTOR] = bytes([byte]) * (length * SECTOR)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "disk.raw"
        raw.write_bytes(content)
        path = convert(raw, *kind)
        expected = disk_in(path, kind[0])
        result = import_file(path) if way == "file" else import_pipe(path.read_bytes())
    assert result.disk == expected
    assert result.disk[: len(content)] == content


@settings(deadline=None, max_examples=40)
@given(disks(), st.sampled_from(WRITABLE))
def test_any_image_a_machine_has_written_comes_back(disk, kind):
    """Blocks in the order they were written, written twice, and made zero again."""
    sectors, writes = disk
    image_format, options = kind
    commands = [
        f"write -z {at * SECTOR} {length * SECTOR}"
        if byte < 64
        else f"write -P {byte} {at * SECTOR} {length * SECTOR}"
        for at, length, byte in writes
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        qemu.run(
            "qemu-img", "create", "-f", image_format, "-o", options, path, str(sectors * SECTOR)
        )
        words = [word for command in commands for word in ("-c", command)]
        qemu.run("qemu-io", "-f", image_format, *words, "-c", "flush", path)
        expected = disk_in(path, image_format)
        assert import_file(path).disk == expected


def footer_at_its_end(image: bytes) -> bytes:
    """A streamOptimized VMDK as VMware's tools write it: the grain directory's place at the end."""
    header = bytearray(image[:SECTOR])
    header[56:64] = b"\xff" * 8

    def marker(sectors: int, kind: int) -> bytes:
        packed = sectors.to_bytes(8, "little") + bytes(4) + kind.to_bytes(4, "little")
        return packed.ljust(SECTOR, b"\0")

    body = image[SECTOR:] + bytes(-len(image) % SECTOR)
    return bytes(header) + body + marker(1, 3) + image[:SECTOR] + marker(0, 0)


def test_a_stream_optimized_vmdk_with_its_directory_told_at_its_end_is_read(raw, tmp_path):
    path = convert(raw, "vmdk", "subformat=streamOptimized")
    image = footer_at_its_end(path.read_bytes())
    (tmp_path / "ova").write_bytes(image)
    assert disk_in(tmp_path / "ova", "vmdk") == raw.read_bytes()
    assert import_bytes(image).disk == raw.read_bytes()
    assert import_pipe(image).disk == raw.read_bytes()
    with pytest.raises(Truncated, match="does not end with its footer"):
        import_bytes(image[: -2 * SECTOR])


def test_a_vhd_of_any_creator_has_the_size_it_says_and_nothing_is_cut_off(tmp_path):
    """Virtual PC shows a guest less, and QEMU cuts what others' disks have beyond that."""
    path = tmp_path / "disk.vhd"
    size = 10 << 20
    qemu.run("qemu-img", "create", "-f", "vpc", "-o", "force_size=on", path, str(size))
    qemu.run("qemu-io", "-f", "vpc", "-c", f"write -P 7 {size - 4096} 4096", path)
    image = bytearray(path.read_bytes())
    for start in (0, len(image) - SECTOR):
        footer = image[start : start + SECTOR]
        footer[28:32] = b"vbox"
        footer[56:60] = (301).to_bytes(2, "big") + bytes([4, 17])  # cylinders, heads, sectors
        footer[64:68] = bytes(4)
        footer[64:68] = (~sum(footer) & 0xFFFFFFFF).to_bytes(4, "big")
        image[start : start + SECTOR] = footer
    path.write_bytes(image)
    assert len(disk_in(path, "vpc")) < size
    assert import_file(path).disk == bytes(size - 4096) + b"\7" * 4096


def test_a_raw_stream_is_not_taken_for_a_vhd(tmp_path):
    some = random.Random(4).randbytes
    image = some(3 * SECTOR) + b"conectix" * 63
    assert import_pipe(image).disk == image
    image = some(3 << 20)
    for length in (1, SECTOR - 1, SECTOR, SECTOR + 1, (1 << 20) + 5, len(image)):
        assert import_pipe(image[:length]).disk == image[:length]


def test_who_asks_for_raw_gets_the_bytes_of_an_image(raw):
    image = convert(raw, "vpc", "subformat=fixed").read_bytes()
    assert import_pipe(image, image_format="raw").disk == image
    assert import_bytes(image, image_format="raw").disk == image


def test_a_stream_asked_for_as_vhd_has_to_end_as_one():
    with pytest.raises(CorruptImage, match="neither begins nor ends with conectix"):
        import_pipe(bytes(5000), image_format="vpc")


def test_a_vhd_that_ends_too_early_is_not_a_disk(raw):
    image = convert(raw, "vpc", "subformat=fixed").read_bytes()
    for way in (import_bytes, import_pipe):
        with pytest.raises(Truncated, match="ends after"):
            way(image[: 1 << 20] + image[-SECTOR:])
        with pytest.raises(CorruptImage, match=r"has 1024 more"):
            way(image[:-SECTOR] + bytes(1024) + image[-SECTOR:])
        with pytest.raises(CorruptImage, match="checksum"):
            way(image[:-1] + b"x")


@pytest.mark.parametrize(("image_format", "options"), WRITABLE[:1] + WRITABLE[4:6])
def test_progress_counts_the_bytes_of_the_source(raw, image_format, options):
    path = convert(raw, image_format, options)
    size = path.stat().st_size
    reports = import_file(path).reports
    assert {report.phase for report in reports} == {Phase.CONVERTING}
    assert {report.total for report in reports} == {size}
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert done[-1] == size
    reports = import_pipe(path.read_bytes()).reports
    assert {report.phase for report in reports} == {Phase.DOWNLOADING, Phase.CONVERTING}
    assert reports[-1].done == size


def test_a_small_stream_is_kept_in_memory_and_a_large_one_in_the_spool(tmp_path):
    small = tmp_path / "small.raw"
    small.write_bytes(os.urandom(1 << 20))
    assert import_pipe(convert(small, "vdi", "static=off").read_bytes()).spools == 0
    large = tmp_path / "large.raw"
    large.write_bytes(os.urandom(40 << 20))
    result = import_pipe(convert(large, "vdi", "static=off").read_bytes())
    assert result.spools == 1
    assert result.disk == large.read_bytes()


def test_a_stream_of_more_than_its_disk_can_need_is_not_kept(raw, monkeypatch):
    image = convert(raw, "vdi", "static=off").read_bytes()
    monkeypatch.setattr(foreign, "_SPARE", 1 << 20)
    with pytest.raises(UnsafeImage, match=r"more than \d+ bytes come"):
        import_pipe(image + bytes(4 << 20))


def test_a_disk_that_is_full_is_no_space_and_nothing_else(raw):
    """A real file on a real file system that is full: /dev/full says so of every write."""
    path = convert(raw, "vdi", "static=off")
    full = os.open("/dev/full", os.O_RDWR)
    source = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(NoSpace):
            import_fd(source, disk=full)
    finally:
        os.close(source)
        os.close(full)


@pytest.fixture
def device(tmp_path):
    """A block device of 8 MiB full of old data."""
    backing = tmp_path / "backing"
    backing.write_bytes(b"o" * (8 << 20))
    attached = subprocess.run(
        ["losetup", "--find", "--show", backing], capture_output=True, text=True, check=False
    )
    if attached.returncode:
        pytest.skip(f"no loop devices here: {attached.stderr.strip()}")
    path = Path(attached.stdout.strip())
    yield path
    subprocess.run(["losetup", "--detach", path], check=True)


@pytest.mark.parametrize(("image_format", "options"), [KINDS[0], KINDS[6]])
def test_an_image_is_written_to_a_block_device_and_read_from_one(
    raw, device, image_format, options
):
    path = convert(raw, image_format, options)
    expected = disk_in(path, image_format)
    source, target = os.open(path, os.O_RDONLY), os.open(device, os.O_RDWR)
    try:
        import_fd(source, disk=target, target=b"old", extra=(8 << 20) - len(expected))
    finally:
        os.close(source)
        os.close(target)
    assert device.read_bytes() == expected.ljust(8 << 20, b"\0")
    with device.open("r+b") as file:
        file.write(path.read_bytes())
    assert import_file(device).disk == expected
