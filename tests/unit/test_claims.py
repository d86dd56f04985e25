"""docs/security.md and docs/reliability.md: each claim names its test, or says that it has none."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TEXTS = {
    name: (TESTS.parent / "docs" / f"{name}.md").read_text() for name in ("security", "reliability")
}
CLAIMS = {"security": 50, "reliability": 30}
"""How many there are at least."""
NAMED = sorted(
    {found for text in TEXTS.values() for found in re.findall(r"`([^`\s]+)::(\w+)`", text)}
)


@cache
def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_test_it_names_is_there(file: str, test: str) -> None:
    assert test in functions(TESTS / file)


@pytest.mark.parametrize("page", TEXTS)
def test_every_claim_names_a_test_or_says_that_it_has_none(page: str) -> None:
    tables = re.findall(r"^(\|.*\|)\n\|[ |-]+\|\n((?:\|.*\n)+)", TEXTS[page], re.MULTILINE)
    claims = [
        row for heading, rows in tables if heading.endswith("| test |") for row in rows.splitlines()
    ]
    assert len(claims) > CLAIMS[page]
    for claim in claims:
        last = claim.split(" | ")[-1]
        assert "::test_" in last or last == "not tested |", claim


@pytest.mark.parametrize("page", TEXTS)
def test_every_name_of_a_test_in_it_was_checked(page: str) -> None:
    """One that is written otherwise would never be missed."""
    text = TEXTS[page]
    assert len(re.findall(r"\btest_\w+(?!\w|\.py)", text)) == len(re.findall(r"::test_\w+", text))
