"""That the contract suite ran on ZFS as it runs on the directory store: the same tests, all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

RAN = os.environ.get("MVIRT_TEST_CONTRACT", "")


@pytest.mark.skipif(not RAN, reason="the contract suite was not run before")
def test_every_contract_test_of_the_directory_store_ran_on_zfs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran = ElementTree.parse(RAN).findall(".//testcase")
    cases = [case for case in ran if case.get("classname", "").startswith("tests.contract.")]
    passed = sorted(case.get("name", "") for case in cases if not len(case.findall("skipped")))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q"]
    collected = subprocess.run(
        [*command, Path(__file__).parents[4] / "tests" / "contract"],
        env={**os.environ, "MVIRT_TEST_STORES": "directory"},
        capture_output=True,
        text=True,
        check=True,
    )
    there = sorted(re.findall(r"::(.+)$", collected.stdout, re.MULTILINE))
    with capsys.disabled():
        print(f"\ncontract tests: {len(there)} for the directory store, {len(passed)} ran on ZFS")
    assert passed == [name.replace("directory", "zfs") for name in there]
