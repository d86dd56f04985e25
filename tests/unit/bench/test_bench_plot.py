"""The pictures of the results."""

from __future__ import annotations

import json
from dataclasses import asdict
from xml.etree import ElementTree as ET

import pytest

from bench import plot
from bench.scale_tables import Measured

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("value", "end"),
    [(0, 1), (0.3, 0.5), (0.05, 0.05), (1, 1), (1.1, 2), (24, 25), (26, 50), (99, 100), (100, 100)],
)
def test_an_axis_ends_at_a_round_number_not_below_the_value(value, end):
    assert plot._nice(value) == pytest.approx(end)


def test_what_is_linear_is_a_straight_line_from_the_origin():
    _, elements = plot.lines("title", "things", [(10, 1), (20, 2), (40, 4)])
    circles = [ET.fromstring(each) for each in elements if each.startswith("<circle")]
    (x1, y1), (x2, y2), (x3, y3) = [
        (float(c.get("cx")) - plot._LEFT, plot._TOP + plot._PLOT_HEIGHT - float(c.get("cy")))
        for c in circles
    ]
    assert y1 / x1 == pytest.approx(y2 / x2, rel=0.01) == pytest.approx(y3 / x3, rel=0.01)
    assert 0 < x1 < x2 < x3 < plot._WIDTH


def test_bars_are_as_long_as_their_values_and_names_are_escaped():
    _, elements = plot.bars("title", [("<one>", 1.0), ("two", 4.0)])
    one, two = [ET.fromstring(each) for each in elements if each.startswith("<rect")]
    assert float(two.get("width")) == pytest.approx(4 * float(one.get("width")), rel=0.01)
    assert any("&lt;one&gt;" in each for each in elements)


def test_what_was_measured_is_drawn_and_what_was_not_is_left_out(tmp_path):
    store = dict.fromkeys(Measured.__dataclass_fields__, 1)
    stores = [asdict(Measured(**store | {"volumes": n, "snapshots": 4 * n})) for n in (0, 5, 10)]
    (tmp_path / "scale.json").write_text(json.dumps({"stores": stores}))
    seconds = {"D-Bus": [1.0], "zfs": [2.0]}
    found = {"one": {"create": seconds}, "ten": {"create": seconds}}
    (tmp_path / "operations.json").write_text(json.dumps(found))
    written = plot.draw(tmp_path, tmp_path / "plots")
    assert sorted(each.name for each in written) == ["operations.svg", "scale.svg"]
    for picture in written:
        root = ET.parse(picture).getroot()
        assert root.tag == f"{SVG}svg"
        _, _, _, height = map(float, root.get("viewBox").split())
        assert height > 50
    scale = ET.parse(tmp_path / "plots" / "scale.svg")
    assert len(scale.findall(f".//{SVG}circle")) == 5 * 2, "a store of nothing is no point"
