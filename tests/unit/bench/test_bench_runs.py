"""The benchmarks as they run: real commands, images, a report, and the smallest one end to end."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import commands, images, machine, proc
from bench.report import Report, put_into

MIB = 1 << 20
ROOT = Path(__file__).parents[3]


LARGE = """
import sys, time
from pathlib import Path
b = bytearray(200 << 20)
sum(range(3_000_000))
end = time.monotonic() + 60
while not Path(sys.argv[1]).exists() and time.monotonic() < end:
    time.sleep(0.01)
"""


def test_a_command_is_measured_with_its_children(monkeypatch, tmp_path):
    peak = proc.peak

    def look(pid):
        found = peak(pid)
        if found >= 200 * MIB:
            (tmp_path / "seen").touch()
        return found

    monkeypatch.setattr(proc, "peak", look)
    child = shlex.join([sys.executable, "-c", LARGE, str(tmp_path / "seen")])
    found = commands.measured(commands.shell(f"{child}; true"))
    assert found.seconds >= found.user > 0
    assert 200 * MIB <= found.memory < 400 * MIB


def test_a_command_that_fails_ends_the_benchmark():
    with pytest.raises(commands.CommandFailed, match=r"false.*: 1"):
        commands.measured(commands.shell("false; true"))


def test_the_processor_time_of_children_that_are_gone_counts():
    program = (
        "import os, subprocess, sys; from bench import proc;"
        "before = sum(proc.cpu(os.getpid()));"
        "work = 'import time\\nwhile time.process_time() < .3: pass';"
        "subprocess.run([sys.executable, '-c', work]);"
        "print(sum(proc.cpu(os.getpid())) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) >= 0.2
    assert list(proc.processes(2**22 + 1)) == [2**22 + 1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    if not shutil.which("qemu-img"):
        pytest.skip("qemu-img is not installed")
    return images.make(tmp_path_factory.mktemp("images"), 16 * MIB)


def test_all_images_hold_the_same_disk_and_a_part_of_it_is_data(made):
    disk = made.raw.read_bytes()
    assert len(disk) == 16 * MIB
    assert made.full.read_bytes() == disk
    assert 4 * MIB <= made.raw.stat().st_blocks * 512 <= 12 * MIB
    assert made.full.stat().st_blocks * 512 >= 16 * MIB
    for image in (made.plain, made.zlib, made.zstd):
        compare = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", made.raw, image]
        subprocess.run(compare, check=True, capture_output=True)
    assert made.zlib.stat().st_size < 0.8 * made.plain.stat().st_size


def test_an_image_that_is_there_is_not_made_again(made):
    before = made.zlib.stat()
    again = images.make(made.zlib.parent, made.size)
    assert again == made
    assert made.zlib.stat().st_mtime_ns == before.st_mtime_ns


def test_the_disk_is_the_same_each_time(made, tmp_path):
    images._write_disk(tmp_path / "again", made.size)
    assert digest(tmp_path / "again") == digest(made.raw)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_cheapest_way_to_write_a_zvol_comes_first():
    runs = [
        {
            "direct": direct,
            "batch": 1 << 20,
            "depth": 4,
            "bytes": 1 << 30,
            "seconds": 2.0,
            "cpu": cpu,
        }
        for direct, cpu in ((False, 5.0), (True, 1.0), (True, 9.0), (True, 3.0))
    ]
    rows = machine.table(runs).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["O_DIRECT", "page cache"]
    assert [row.split("|")[-2].strip() for row in rows] == ["3.0", "5.0"]
    assert "512.0" in rows[0]


MACHINE = {"date": "today", "commit": "abc", "processors": 2, "processor": "P", "memory": 8 << 30,
           "kernel": "6", "system": "Debian", "file_system": "ext4", "load": 0.5}  # fmt: skip


def test_a_report_goes_between_its_marks_and_nowhere_else(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- imports -->\nold\n<!-- /imports -->\nafter\n")
    put_into(readme, Report("imports", "make bench", MACHINE, ["| table |"], {"rounds": 1}))
    text = readme.read_text()
    assert text.startswith("before\n<!-- imports -->\n")
    assert text.endswith("<!-- /imports -->\nafter\n")
    assert "| table |" in text
    assert "2 × P, 8 GiB" in text
    assert "old" not in text
    with pytest.raises(ValueError, match="zvol"):
        put_into(readme, Report("zvol", "make bench", MACHINE, [], {}))


@pytest.mark.skipif(
    not all(map(shutil.which, ("nginx", "curl", "dbus-daemon", "qemu-img"))),
    reason="nginx, curl, dbus-daemon or qemu-img is not installed",
)
def test_the_smallest_benchmark_runs_from_end_to_end(made, tmp_path):
    command = [sys.executable, "-m", "bench", "imports", "--size", "16", "--rounds", "1"]
    folders = ["--images", made.raw.parent, "--directory", tmp_path, "--results", tmp_path / "out"]
    done = subprocess.run(
        [*command, *folders, "--only", "HTTP, qcow2 zlib"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "imports.json").read_text())
    assert result["machine"]["processors"] >= 1
    ran = {each["contestant"] for each in result["samples"]}
    assert {"job", "engine", "curl, then qemu-img", "curl to /dev/null"} <= ran
    assert all(each["median_seconds"] > 0 for each in result["samples"])
    (watched,) = result["watched"]
    assert watched["pings"] > 0
    assert 0 < watched["memory"] < 500 * MIB
    verdicts = {each["text"]: each["met"] for each in result["verdicts"]}
    assert verdicts["temporary files over HTTP"] is True
    assert verdicts["qcow2, zstd: job is times as fast as qemu-img"] is None
    assert "HTTP, qcow2 zlib" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
