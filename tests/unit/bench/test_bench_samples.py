"""What the benchmarks make of their samples: medians, ratios, verdicts, tables."""

from __future__ import annotations

import pytest

from bench.contest import Case, run
from bench.report import times, verdicts
from bench.samples import Figures, Sample, Samples, Verdict, lines_of


def samples(case: str, contestant: str, *seconds: float) -> Samples:
    return Samples(
        case, contestant, [Sample(each, each / 2, each / 4, 10 << 20) for each in seconds]
    )


def test_figures_are_medians_and_not_the_best_or_the_mean():
    found = samples("zlib", "job", 9.0, 1.0, 2.0)
    assert found.seconds == 2.0
    assert found.fastest == 1.0
    assert found.cpu == 1.5
    assert found.as_json()["median_seconds"] == 2.0


def test_a_ratio_is_how_many_times_as_fast_ours_is():
    figures = Figures([samples("zlib", "job", 2.0), samples("zlib", "peer", 5.0)])
    assert figures.times_as_fast("zlib", "job", "peer") == 2.5
    with pytest.raises(KeyError):
        figures.seconds("zstd", "job")


@pytest.mark.parametrize(
    ("measured", "at_least", "met"),
    [(2.5, True, True), (2.4, True, False), (2.5, False, True), (2.6, False, False),
     (None, True, None)],
)  # fmt: skip
def test_a_verdict_says_whether_a_figure_is_met(measured, at_least, met):
    assert Verdict("x", measured, 2.5, at_least).met is met


def test_what_did_not_run_is_no_verdict():
    (row,) = verdicts([Verdict("zlib", None, 2.5, True)]).splitlines()[2:]
    assert "not run" in row
    assert "met" not in row


def test_a_table_is_markdown_whose_columns_are_aligned():
    lines = lines_of(("", "s"), [["job", "0.10"], ["a longer name", "12.30"]])
    assert lines == [
        "|               |     s |",
        "| ------------- | ----: |",
        "| job           |  0.10 |",
        "| a longer name | 12.30 |",
    ]


def test_each_contestant_is_compared_with_ours_in_the_same_case():
    table = times(
        [samples("a", "job", 1.0), samples("a", "peer", 3.0), samples("b", "peer", 7.0)], "job"
    )
    rows = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in table.splitlines()}
    assert rows["job"] == ""
    assert "3.00 ×" in table
    assert "7.00 ×" not in table


async def test_contestants_alternate_and_another_one_begins_each_round():
    order = []

    def contestant(name):
        async def work():
            order.append(name)
            return Sample(len(order), 0, 0)

        return work

    cases = [Case(case, {n: contestant(case + n) for n in "xyz"}) for case in "ab"]
    found = await run(cases, 2, lambda _: None)
    assert order == ["ax", "ay", "az", "bx", "by", "bz", "ay", "az", "ax", "by", "bz", "bx"]
    assert [len(each.runs) for each in found] == [2] * 6
    assert found[0].runs[1].seconds == 9
