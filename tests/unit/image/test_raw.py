"""Raw images from files, devices' like and streams: every byte, no zero, and the right size."""

from __future__ import annotations

import hashlib
import os
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvirt_zfs_dbus.errors import CorruptImage, Error, Truncated
from mvirt_zfs_dbus.image.source import CHUNK

from .builder import Qcow2
from .inprocess import import_bytes, import_fd, import_file, import_pipe
from .layouts import Layout

pieces = st.lists(
    st.tuples(st.sampled_from([b"\0", b"x", b"yz"]), st.integers(1, 3 * CHUNK // 2)),
    min_size=1,
    max_size=4,
)


def joined(parts) -> bytes:
    return b"".join((byte * length)[:length] for byte, length in parts)


@settings(deadline=None)
@given(pieces, st.sampled_from([None, "sha256", "sha512"]), st.booleans(), st.integers(0, 9000))
def test_a_file_becomes_the_disk(parts, algorithm, used_before, extra):
    image = joined(parts)
    before = b"old" if used_before else None
    result = import_bytes(image, algorithm=algorithm, target=before, extra=extra)
    assert result.disk == image + bytes(extra)
    assert result.done.size == len(image)
    digest = hashlib.new(algorithm, image).hexdigest() if algorithm else None
    assert result.done.digest == digest


@settings(deadline=None)
@given(pieces, st.sampled_from([None, "sha256"]), st.booleans())
def test_a_pipe_becomes_the_disk_whether_its_length_is_known_or_not(parts, algorithm, known):
    image = joined(parts)
    length = len(image) if known else None
    result = import_pipe(image, algorithm=algorithm, length=length)
    assert result.info.virtual_size == length
    assert result.disk == image
    assert result.done.size == result.done.received == len(image)
    assert result.done.digest == (hashlib.sha256(image).hexdigest() if algorithm else None)
    assert bool(result.resizes) is not known


def test_a_target_of_unknown_size_grows_in_few_steps_and_ends_exact():
    image = b"x" * (20 * CHUNK + 5)
    result = import_pipe(image)
    assert len(result.resizes) == 2
    assert result.resizes[-1] == (len(image), len(image))
    assert all(size >= least for size, least in result.resizes)


@pytest.mark.parametrize("algorithm", [None, "sha256"])
def test_a_sparse_file_stays_sparse(tmp_path, algorithm):
    path = tmp_path / "disk"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 64 << 20)
        os.pwrite(file.fileno(), b"x" * 8192, 16 << 20)
    result = import_file(path, algorithm=algorithm)
    assert result.info.allocated <= 16384
    assert result.allocated <= 16384
    assert result.disk == path.read_bytes()
    if algorithm:
        assert result.done.digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("algorithm", [None, "sha256"])
def test_zeros_among_the_data_of_a_sparse_file_take_no_space(tmp_path, algorithm):
    path = tmp_path / "disk"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 64 << 20)
        os.pwrite(file.fileno(), b"x" * 8192 + bytes(20 << 20) + b"y" * 100_000, 16 << 20)
    result = import_file(path, algorithm=algorithm)
    assert result.info.allocated >= 20 << 20
    assert result.allocated <= 200_000
    assert result.disk == path.read_bytes()


def test_zeros_in_a_full_file_take_no_space(tmp_path):
    result = import_bytes(bytes(4 << 20) + b"x")
    assert result.info.allocated == (4 << 20) + 1
    assert result.allocated <= 8192


def test_a_raw_import_takes_a_qcow2_image_as_bytes_if_asked():
    image = Qcow2().build()
    assert import_bytes(image, image_format="raw").disk == image


@pytest.mark.parametrize("run", [import_bytes, import_pipe])
def test_nothing_is_no_image(run):
    with pytest.raises(CorruptImage, match="empty"):
        run(b"")


def test_a_pipe_that_ends_early_is_truncated():
    with pytest.raises(Truncated, match="after 100000 of 100001 bytes"):
        import_pipe(b"x" * 100000, length=100001)


def test_a_target_that_is_too_small_is_refused_before_anything_is_written():
    with pytest.raises(Error, match="a target of 999 bytes is too small for 1000 bytes"):
        import_bytes(b"x" * 1000, extra=-1)


def test_an_image_that_shrinks_while_it_is_read_is_truncated(monkeypatch):
    with tempfile.TemporaryFile() as file:
        os.truncate(file.fileno(), 8 << 20)
        size = os.fstat(file.fileno()).st_size

        import mvirt_zfs_dbus.image.convert as convert

        real = convert.Target

        def shrinking(*arguments, **options):
            os.truncate(file.fileno(), size // 2)
            return real(*arguments, **options)

        monkeypatch.setattr(convert, "Target", shrinking)
        with pytest.raises(Truncated):
            import_fd(file.fileno())


def test_progress_is_exact_at_its_end_and_says_what_is_done(tmp_path):
    image = b"x" * (3 << 20)
    last = import_bytes(image).reports[-1]
    assert (last.phase, last.done, last.total) == ("writing", 3 << 20, 3 << 20)
    first, *_, last = import_pipe(image).reports
    assert (first.phase, first.done, first.total) == ("downloading", 0, 0)
    assert (last.phase, last.done, last.total) == ("downloading", 3 << 20, 3 << 20)


def test_progress_of_an_image_with_its_tables_first_has_one_phase():
    image = Qcow2(size=1 << 20).data(0, b"x" * 4096).build()
    result = import_pipe(image, length=len(image), algorithm="sha512")
    assert result.spools == 0
    assert {report.phase for report in result.reports} == {"downloading"}
    assert result.reports[-1].done == result.reports[-1].total == len(image)
    assert result.done.digest == hashlib.sha512(image).hexdigest()


def test_progress_of_an_image_with_its_tables_last_has_two_phases():
    parts = ["refcounts", "data:0", "data:1", "l2:0", "l1"]
    image = Layout(parts, {0: "data:0", 1: "data:1"}, size=4096).build()
    result = import_pipe(image, length=len(image))
    phases = dict.fromkeys(report.phase for report in result.reports)
    assert list(phases) == ["downloading", "converting"]
    assert result.reports[-1].done == result.reports[-1].total == 1024
