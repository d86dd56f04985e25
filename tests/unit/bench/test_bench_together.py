"""The benchmark of imports side by side."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.together import Case, Together, table, targets
from bench.watch import Watched

MIB = 1 << 20
CHECKOUT = Path(__file__).parents[3]


def case(imports: int, at_a_time: int, seconds: float, *each: float) -> Case:
    watched = Watched("x", 0, imports * 10 * MIB, 0, 0.001, 0.02, 100)
    return Case(imports, at_a_time, 64 * MIB, [Together(seconds, 1.0, each)], watched)


CASES = [case(1, 16, 2.0, 2.0), case(4, 16, 4.0, 3.0, 4.0),
         case(16, 16, 8.0, 4.0, 8.0, 6.0), case(16, 4, 8.0, 1.0, 2.0)]  # fmt: skip


def test_what_runs_together_is_compared_with_one_alone():
    found = {each.text: each for each in targets(CASES)}
    assert found["16 together: times the rate of one"].measured == 4
    assert found["16: the slowest's time over the fastest's"].measured == 2
    assert found["16: memory an import"].measured == 10
    assert found["16: longest Ping"].measured == 20
    assert all(each.met for each in found.values())


def test_a_row_tells_how_many_run_at_a_time_where_not_all_do():
    rows = [line.split("|")[1:4] for line in table(CASES).splitlines()[2:]]
    names = [row[0].strip() for row in rows]
    assert names == ["1", "4", "16", "16, 4 at a time"]
    assert [row[2].strip() for row in rows] == ["32", "64", "128", "128"]


@pytest.mark.skipif(
    not all(map(shutil.which, ("dbus-daemon", "qemu-img"))),
    reason="dbus-daemon or qemu-img is not installed",
)
def test_the_smallest_imports_side_by_side_run_from_end_to_end(tmp_path):
    command = [sys.executable, "-m", "bench", "together", "--size", "64", "--rounds", "1"]
    folders = ["--directory", tmp_path, "--images", tmp_path / "images"]
    done = subprocess.run(
        [*command, *folders, "--results", tmp_path / "out"],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "together.json").read_text())
    assert [len(each["rounds"][0]["each"]) for each in result["cases"]] == [1, 4, 16, 16]
    assert all(seconds > 0 for each in result["cases"] for seconds in each["rounds"][0]["each"])
    assert all(each["meanwhile"]["pings"] > 0 for each in result["cases"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out"]
