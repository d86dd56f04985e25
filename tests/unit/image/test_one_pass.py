"""qcow2 images converted while they arrive: every legal layout, whatever comes first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvirt_zfs_dbus.errors import CorruptImage, ImportFailed, Truncated
from mvirt_zfs_dbus.image import qcow2_header, qcow2_settle, qcow2_stream, qcow2_wanted, rest
from mvirt_zfs_dbus.image.pool import Pool
from mvirt_zfs_dbus.image.writer import Target

from . import qemu
from .inprocess import import_bytes, import_file, import_pipe
from .layouts import Layout, cut, layouts, one_pass, write

chunk_sizes = st.lists(
    st.one_of(st.integers(1, 600), st.integers(1, 20_000), st.just(1 << 20)), max_size=4
).map(lambda sizes: [*sizes, 5000])


def fresh(function):
    return settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )(function)


@fresh
@given(layout=layouts(), sizes=chunk_sizes, used_before=st.booleans())
def test_an_image_in_any_order_becomes_its_disk(layout, sizes, used_before):
    result = one_pass(layout.build(), sizes, b"old" if used_before else None)
    assert result.disk == layout.disk()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(layout=layouts())
def test_the_disk_in_such_an_image_is_what_qemu_says(layout, tmp_path):
    image = layout.build()
    disk = qemu.disk(write(image, tmp_path / "image"))
    assert disk == layout.disk()[: len(disk)]  # QEMU leaves out a last sector that is cut
    assert layout.size - len(disk) < 512
    assert import_bytes(image).disk == import_pipe(image).disk == layout.disk()


@fresh
@given(
    layout=layouts(),
    sizes=chunk_sizes,
    memory=st.sampled_from([0, 5000, 1 << 20]),
    extents=st.integers(0, 6),
    tables=st.integers(0, 3),
    batch=st.integers(1, 3),
)
def test_bounds_change_what_is_kept_and_nothing_else(layout, sizes, memory, extents, tables, batch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rest, "IN_MEMORY", memory)
        patch.setattr(qcow2_wanted, "MAX_EXTENTS", extents)
        patch.setattr(qcow2_stream, "MAX_TABLES", tables)
        patch.setattr(qcow2_settle, "_BATCH", batch)
        result = one_pass(layout.build(), sizes)
    assert result.disk == layout.disk()
    assert result.spools == (memory == 0) or memory == 5000


# What is spooled, and what is not


def parts(*names: str) -> list[str]:
    return ["refcounts", *names]


SOME = {0: "data:0", 1: "packed:0", 2: "packed:1", 70: "data:1", 71: "packed:2"}
TWO_TABLES = {"guests": SOME, "size": 65536, "cluster_bits": 9}
DATA = ["data:0", "packed:0", "packed:1", "data:1", "packed:2"]


@pytest.mark.parametrize(
    "order",
    [
        parts("l1", "l2:0", "l2:1", *DATA),
        parts("l2:1", "l2:0", "l1", *DATA),
        parts("l2:0", "l1", "l2:1", *DATA),
        parts("l1", "l2:0", *DATA[:3], "l2:1", *DATA[3:]),
    ],
)
@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_with_the_tables_before_the_data_nothing_is_settled_at_the_end(order, size):
    layout = Layout(parts=order, **TWO_TABLES)
    result = one_pass(layout.build(), [size])
    assert result.disk == layout.disk()
    assert result.settled == 0


@pytest.mark.parametrize("last", ["l1", "l2:0"])
def test_with_the_tables_at_the_end_everything_is_spooled(last, monkeypatch):
    monkeypatch.setattr(rest, "IN_MEMORY", 2048)
    order = [*DATA, "l2:1", *(part for part in ("l2:0", "l1") if part != last), last]
    layout = Layout(parts=parts(*order), **TWO_TABLES)
    result = one_pass(layout.build(), [1000])
    assert result.disk == layout.disk()
    assert result.spools == 1
    assert result.settled >= 2 * 512


def test_a_cluster_whose_table_comes_later_may_begin_in_the_sector_of_another():
    # packed:1 is of the second table, and shares sectors with its neighbours of the first.
    guests = {0: "packed:0", 64: "packed:1", 1: "packed:2"}
    layout = Layout(parts("l1", "l2:0", *(f"packed:{n}" for n in range(3)), "l2:1"), guests, 65536)
    result = one_pass(layout.build(), [1 << 20])
    assert result.disk == layout.disk()
    assert result.settled


def test_a_cluster_that_was_written_is_copied_when_a_later_table_names_it_again():
    for part in ("data:0", "packed:0"):
        layout = Layout(parts("l1", "l2:0", part, "l2:1"), {5: part, 70: part}, 65536)
        result = one_pass(layout.build(), [700])
        assert result.disk == layout.disk()


def test_of_a_disk_that_ends_inside_a_cluster_the_whole_cluster_can_be_used_again():
    for part in ("data:0", "packed:0"):
        guests = {127: part, 5: part}
        layout = Layout(parts("l1", "l2:1", part, "l2:0"), guests, 65536 - 100)
        assert one_pass(layout.build(), [700]).disk == layout.disk()


@pytest.mark.parametrize("options", [[], ["-c"], ["-c", "-o", "compression_type=zstd"]])
@pytest.mark.parametrize("cluster_size", [4096, 65536])
def test_an_image_as_qemu_img_converts_it_needs_no_spool(tmp_path, options, cluster_size):
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        for n in range(300):
            file.seek(n * 700_000)
            file.write(os.urandom(20_000) + b"words " * (n * 10 % 7000))
        os.truncate(file.fileno(), 300 << 20)
    image = tmp_path / "image"
    more = ["-o", f"cluster_size={cluster_size}"]
    qemu.run("qemu-img", "convert", "-O", "qcow2", *options, *more, disk, image)
    result = import_pipe(image.read_bytes(), algorithm="sha256")
    assert result.spools == 0
    assert result.disk == disk.read_bytes()
    reports = [report for report in result.reports if report.phase == "converting"]
    assert sum(report.done for report in reports) < 1 << 20
    assert result.done.digest == import_file(image, algorithm="sha256").done.digest


# Refused, if only at the end


def test_an_image_that_is_cut_anywhere_is_refused_or_still_whole():
    layout = Layout(parts("l1", "l2:0", *DATA[:3], "l2:1", *DATA[3:]), **TWO_TABLES)
    whole = layout.build()
    refused = set()
    for length in range(512, len(whole), 97):
        try:
            result = one_pass(whole[:length], [300])
        except ImportFailed as error:
            refused.add(type(error))
        else:
            assert result.disk == layout.disk()
    assert refused == {Truncated, CorruptImage}


def test_a_late_cluster_that_reaches_into_a_written_one_is_refused():
    """Else it would read zeros where the other one was, and unpack to something else."""
    stored = b"\x01\x00\x02\xff\xfd" + b"x" * 512  # deflate's block without compression
    order = parts("l1", "l2:0", "junk", "packed:0", "l2:1")
    layout = Layout(order, {0: "packed:0", 64: "packed:0"}, 65536)
    image = layout.build()
    early = int.from_bytes(image[3 * 512 :][:8], "big") & 0xFFFFFF
    late = early - 256
    image = image[:late] + stored[:256] + image[early:]
    image = patched(image, len(image) - 512, 1 << 62 | 1 << 61 | late)
    assert import_bytes(image).disk[64 * 512 :][:251] == b"x" * 251
    with pytest.raises(CorruptImage, match="holds 251 bytes in place of 512"):
        one_pass(image, [700])


def patched(image: bytes, at: int, entry: int) -> bytes:
    return image[:at] + entry.to_bytes(8, "big") + image[at + 8 :]


@settings(max_examples=150, deadline=None)
@given(
    layout=layouts(),
    sizes=st.just([1000]),
    victim=st.integers(0, 20),
    where=st.integers(0, 1 << 15),
    flags=st.sampled_from([0, 1 << 62, 1 << 63, 1]),
)
def test_what_is_refused_from_a_file_is_refused_from_a_stream(layout, sizes, victim, where, flags):
    """An entry of some L2 table points somewhere else: over metadata, over data, outside."""
    image = layout.build()
    l1_offset = int.from_bytes(image[40:48], "big")
    places = [int.from_bytes(image[l1_offset + 8 * n :][:8], "big") for n in range(layout.tables)]
    places = [place & ~(1 << 63) for place in places if place]
    if not places:
        return
    at = places[victim % len(places)] + victim % 4 * (16 if layout.extended else 8)
    image = patched(image, at, where // layout.cluster_size * layout.cluster_size | flags)
    try:
        expected = import_bytes(image).disk
    except ImportFailed:
        with pytest.raises(ImportFailed):
            one_pass(image, sizes)
        return
    try:
        assert one_pass(image, sizes).disk == expected
    except CorruptImage as error:
        assert "overlap" in str(error) or "compressed" in str(error)


# Memory


class Watched(qcow2_stream.Arrival):
    """Notes what it holds whenever a chunk has been worked on."""

    most_window = most_extents = 0

    def _drop_used(self) -> None:
        super()._drop_used()
        self.most_window = max(self.most_window, len(self._window))
        self.most_extents = max(self.most_extents, self._wanted._count)


@pytest.mark.parametrize("backwards", [False, True])
def test_what_is_held_in_memory_has_a_bound(backwards, monkeypatch):
    monkeypatch.setattr(rest, "IN_MEMORY", 64 << 10)
    monkeypatch.setattr(qcow2_wanted, "MAX_EXTENTS", 128)
    data = [f"{'packed' if n % 2 else 'data'}:{n}" for n in range(1000)]
    guests = dict(enumerate(data))
    tables = [f"l2:{n}" for n in range(16)]
    layout = Layout(
        parts("l1", *tables, *(reversed(data) if backwards else data)), guests, 512 * 1000
    )
    memory, pool, held = os.memfd_create("rest"), Pool(2), []

    def open_spool() -> int:
        held.append(os.fstat(memory).st_blocks * 512)
        return os.memfd_create("spool")

    target = Target(os.memfd_create("disk"), layout.size, is_zero=True)
    header = qcow2_header.parse(layout.build()[:512])
    arrival = Watched(header, target, pool, rest.Rest(memory, open_spool, pool))
    kept = arrival.receive(cut(layout.build(), [3000]))
    qcow2_settle.settle(arrival, kept, target, pool, lambda _: None)
    assert target.read(0, layout.size) == layout.disk()
    assert len(held) == backwards
    assert all(size <= 68 << 10 for size in held)
    assert os.fstat(memory).st_blocks * 512 <= 64 << 10
    assert 0 < arrival.most_extents <= 128 + 64
    assert arrival.most_window <= 3000 + 1024
    pool.close()
    for fd in (memory, target.fd, *([kept.fd] if backwards else [])):
        os.close(fd)


def test_an_image_with_its_tables_at_the_end_takes_little_memory(tmp_path):
    """In a process of its own, whose memory is looked at when it is done."""
    code = """
import os, resource, struct, sys, tempfile
from mvirt_zfs_dbus.image import qcow2_header
from mvirt_zfs_dbus.image.pool import Pool
from mvirt_zfs_dbus.image.qcow2_settle import settle
from mvirt_zfs_dbus.image.qcow2_stream import Arrival
from mvirt_zfs_dbus.image.rest import Rest
from mvirt_zfs_dbus.image.writer import Target

count = 4096
end = (2 + count) << 16
head = struct.pack(
    ">4sIQIIQIIQQIIQQQQII", b"QFI\\xfb", 3, 0, 0, 16, count << 16, 0, 1, end, 1 << 16, 1, 0, 0,
    0, 0, 0, 4, 104).ljust(2 << 16, b"\\0")
block = os.urandom(1 << 16) * 16

def chunks():
    yield head
    for _ in range(count // 16):
        yield block
    yield struct.pack(">Q", 1 << 63 | end + (1 << 16)).ljust(1 << 16, b"\\0")
    yield struct.pack(f">{count}Q", *(1 << 63 | (2 + n) << 16 for n in range(count))).ljust(1 << 16)

spool, disk = tempfile.TemporaryFile(), tempfile.TemporaryFile()
pool = Pool(2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
target = Target(disk.fileno(), count << 16, is_zero=True)
rest = Rest(os.memfd_create("rest"), spool.fileno, pool)
arrival = Arrival(qcow2_header.parse(head), target, pool, rest)
kept = arrival.receive(chunks())
settle(arrival, kept, target, pool, lambda _: None)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert all(target.read(n << 20, 1 << 20) == block for n in range(count // 16))
assert kept.fd == spool.fileno()
print(after - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        env={"TMPDIR": str(tmp_path)},
    )
    assert run.returncode == 0, run.stderr.decode()
    assert int(run.stdout) < 64 << 10  # KiB, of an image of 256 MiB
