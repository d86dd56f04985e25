"""Content decides what an image is."""

from __future__ import annotations

import os
import random
import subprocess

import pytest

from mvirt_zfs_dbus.errors import CorruptImage, UnsupportedImage
from mvirt_zfs_dbus.image.detect import image_format
from mvirt_zfs_dbus.image.source import HEAD, Seekable

from . import qemu


def decide(path, asked: str = "auto") -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        source = Seekable(fd, os.fstat(fd).st_size)
        return image_format(asked, source.read_up_to(0, HEAD), source)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("qemu_format", "options"),
    [
        ("vmdk", []),
        ("vmdk", ["-o", "subformat=streamOptimized"]),
        ("vmdk", ["-o", "subformat=twoGbMaxExtentSparse"]),
        ("vhdx", []),
        ("vdi", []),
        ("vpc", []),
        ("vpc", ["-o", "subformat=fixed"]),
    ],
)
def test_an_image_of_another_hypervisor_is_told_by_its_content(tmp_path, qemu_format, options):
    path = tmp_path / "image"
    qemu.run("qemu-img", "create", "-f", qemu_format, *options, path, "8M")
    assert decide(path) == decide(path, qemu_format) == qemu_format
    assert decide(path, "raw") == "raw"
    for other in {"qcow2", "vmdk", "vhdx", "vdi", "vpc"} - {qemu_format}:
        with pytest.raises(CorruptImage, match=f"no {other} image: .* {qemu_format}"):
            decide(path, other)


@pytest.mark.parametrize(
    ("qemu_format", "name"),
    [("qed", "QED"), ("qcow", r"qcow \(version 1\)"), ("parallels", "Parallels")],
)
@pytest.mark.parametrize("asked", ["auto", "qcow2"])
def test_an_image_of_a_format_that_is_not_read_is_refused_by_name(
    tmp_path, qemu_format, name, asked
):
    path = tmp_path / "image"
    qemu.run("qemu-img", "create", "-f", qemu_format, path, "8M")
    with pytest.raises(UnsupportedImage, match=name):
        decide(path, asked)


def test_a_fixed_vhd_is_known_at_its_end_only_and_may_be_asked_for_before():
    assert image_format("auto", bytes(1000), None) == "raw"
    assert image_format("vpc", bytes(1000), None) == "vpc"


@pytest.mark.parametrize("tool", ["gzip", "xz", "bzip2"])
def test_a_packed_image_is_refused_by_name(tmp_path, tool):
    packed = subprocess.run([tool, "-c"], input=b"x" * 10000, stdout=-1, check=True).stdout
    (tmp_path / "image").write_bytes(packed)
    with pytest.raises(UnsupportedImage, match=tool):
        decide(tmp_path / "image")


def test_an_encrypted_disk_is_refused_unless_it_is_asked_for_as_raw(tmp_path):
    (tmp_path / "image").write_bytes(b"LUKS\xba\xbe" + bytes(1000))
    with pytest.raises(UnsupportedImage, match=r"LUKS.*format=raw takes any bytes"):
        decide(tmp_path / "image")
    assert decide(tmp_path / "image", "raw") == "raw"


def test_a_qcow2_image_may_be_taken_for_what_it_is_or_as_bytes(tmp_path):
    qemu.create(tmp_path / "image", 1 << 20)
    assert decide(tmp_path / "image") == "qcow2"
    assert decide(tmp_path / "image", "qcow2") == "qcow2"
    assert decide(tmp_path / "image", "raw") == "raw"


def test_anything_unknown_is_a_raw_disk(tmp_path):
    (tmp_path / "image").write_bytes(random.Random(5).randbytes(10) + bytes(502))
    assert decide(tmp_path / "image") == "raw"


def test_what_is_asked_for_as_qcow2_must_be_one(tmp_path):
    (tmp_path / "image").write_bytes(bytes(512))
    with pytest.raises(CorruptImage, match="no qcow2 image"):
        decide(tmp_path / "image", "qcow2")


@pytest.mark.parametrize("asked", ["auto", "raw", "qcow2", "vpc"])
def test_an_empty_source_is_refused(tmp_path, asked):
    (tmp_path / "image").touch()
    with pytest.raises(CorruptImage, match="empty"):
        decide(tmp_path / "image", asked)
