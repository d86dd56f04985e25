"""What the fuzzer found once, and what it begins with, run through its targets every time."""

from __future__ import annotations

from pathlib import Path

import fuzz
import pytest
from fuzz import seeds
from fuzz.targets import TARGETS

FOUND = sorted((Path(fuzz.__file__).parent / "found").glob("*/*"))


@pytest.mark.parametrize("case", FOUND, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_what_was_found_once_is_found_no_more(case: Path) -> None:
    TARGETS[case.parent.name](case.read_bytes())


def test_what_qemu_img_and_packers_make_is_read_right(tmp_path: Path) -> None:
    seeds.write(tmp_path)
    made = sorted(tmp_path.glob("*/*"))
    assert {seed.parent.name for seed in made} == set(TARGETS)
    for seed in made:
        TARGETS[seed.parent.name](seed.read_bytes())
