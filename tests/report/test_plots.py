"""Drawings are well-formed, stay inside their frame, show the right heights, and cannot be broken out of."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.report.plots import (
    HEIGHT,
    WIDTH,
    Distribution,
    Histogram,
    bands_svg,
    bar_svg,
    histogram,
    histogram_svg,
)

#: What XML can hold; HTML replaces the rest.
TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Cn"), blacklist_characters="\ufffe\uffff"))


def numbers(path: str) -> list[float]:
    return [float(text) for text in re.findall(r"-?\d+\.?\d*", path)]


def paths(svg: str) -> list[str]:
    return [element.attrib["d"] for element in ElementTree.fromstring(svg).iter("path")]


def bars(*shares: list[float], discrete: bool = False) -> Histogram:
    count = len(shares[0])
    none = (0.0,) * len(shares)
    edges = np.arange(float(count if discrete else count + 1))
    return Histogram(edges, tuple(map(np.array, shares)), none, none, discrete)


def test_bars_have_the_heights_of_their_shares() -> None:
    (path,) = paths(histogram_svg(bars([0.25, 0.5, 0.0]), "three", [0]))
    heights = [HEIGHT - float(y) for y in re.findall(r"V([\d.]+)H", path)]
    assert heights == pytest.approx([(HEIGHT - 2) / 2, HEIGHT - 2, 0], abs=0.05)
    assert path.startswith(f"M0 {HEIGHT:g}")
    assert path.endswith(f"V{HEIGHT:g}")


def test_sources_share_the_axis_and_have_their_own_class() -> None:
    svg = histogram_svg(bars([0.5, 0.5], [1.0, 0.0]), "two", [0, 1])
    assert [e.attrib["class"] for e in ElementTree.fromstring(svg).iter("path")] == ["s0", "s1"]
    tops = [min(float(y) for y in re.findall(r"V([\d.]+)H", path)) for path in paths(svg)]
    assert tops == pytest.approx([HEIGHT - (HEIGHT - 2) / 2, 2], abs=0.05)


def test_a_source_without_rows_is_not_drawn() -> None:
    assert len(paths(histogram_svg(bars([0.5, 0.5], [0.0, 0.0]), "one", [0, 1]))) == 1


def test_bars_above_the_axis_are_cut_off() -> None:
    (path,) = paths(histogram_svg(bars([0.9, 0.1]), "cut", [0], top=0.1))
    assert [float(y) for y in re.findall(r"V([\d.]+)H", path)] == [2, 2]


def test_single_values_stand_apart_and_where_they_belong() -> None:
    drawn = Histogram(np.array([0.0, 1.0, 10.0]), (np.array([0.5, 0.25, 0.25]),), (0.0,), (0.0,), discrete=True)
    (path,) = paths(histogram_svg(drawn, "discrete", [0]))
    lefts = [float(x) for x in re.findall(r"M([\d.]+) ", path)]
    rights = [float(x) for x in re.findall(r"H([\d.]+)V", path)]
    assert lefts[0] == 0
    assert rights[-1] == WIDTH
    assert lefts[1] > rights[0]
    assert lefts[1] / lefts[2] == pytest.approx(0.1, abs=0.01)


def test_a_constant_is_one_bar_in_the_middle() -> None:
    (path,) = paths(histogram_svg(bars([1.0], discrete=True), "constant", [0]))
    left, right = float(re.findall(r"M([\d.]+) ", path)[0]), float(re.findall(r"H([\d.]+)V", path)[0])
    assert (left + right) / 2 == WIDTH / 2


@settings(max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60), st.sampled_from([None, (-1.0, 1.0)]))
def test_no_drawing_leaves_its_frame(rows: list[float], span: tuple[float, float] | None) -> None:
    values = np.sort(np.array(rows))
    drawn = histogram([Distribution(values, np.ones(len(rows)), len(rows))], span)
    assert drawn is not None
    for path in paths(histogram_svg(drawn, "any", [0])):
        assert "nan" not in path
        assert "e" not in path
        assert all(0 <= value <= WIDTH for value in numbers(path))


@settings(max_examples=50)
@given(TEXTS)
def test_titles_are_text_whatever_they_hold(title: str) -> None:
    one = [("s0", np.array([0.0, 1.0]))]
    drawings = [
        histogram_svg(bars([1.0]), title, [0]),
        bands_svg([], one, title, 10),
        bar_svg(0.5, [(1, 0.2)], 1.0, title),
    ]
    for svg in drawings:
        root = ElementTree.fromstring(svg)
        assert root.tag == "svg"
        assert root.attrib["role"] == "img"
        assert (root.findtext("title") or "") == title
        assert {element.tag for element in root.iter()} <= {"svg", "title", "path", "rect"}


def test_curves_run_from_edge_to_edge_and_are_clipped() -> None:
    (path,) = paths(bands_svg([], [("s1", np.array([-1.0, 0.5, 2.0]))], "curve", 10))
    assert path == f"M0 10L{WIDTH / 2:g} 5L{WIDTH:g} 0"


def test_bands_go_there_and_back() -> None:
    low, high = np.array([0.0, 0.2]), np.array([0.5, 1.0])
    band, curve = paths(bands_svg([("f1", low, high)], [("fm", (low + high) / 2)], "band", 10))
    assert band == f"M0 5L{WIDTH:g} 0L{WIDTH:g} 8L0 10Z"
    assert curve.startswith("M0 7.5L")


def test_one_point_is_drawn_as_a_level() -> None:
    one = np.array([0.5])
    band, curve = paths(bands_svg([("f1", one - 0.5, one)], [("fm", one)], "one", 10))
    assert band == f"M0 5L{WIDTH:g} 5L{WIDTH:g} 10L0 10Z"
    assert curve == f"M0 5L{WIDTH:g} 5"


def test_a_bar_and_its_marks() -> None:
    root = ElementTree.fromstring(bar_svg(0.25, [(2, 0.5), (1, 0.0)], 0.5, "bar"))
    assert float(next(root.iter("rect")).attrib["width"]) == WIDTH / 2
    assert [numbers(e.attrib["d"])[0] for e in root.iter("path")] == [WIDTH - 1, 1]
    assert [e.attrib["class"] for e in root.iter("path")] == ["s2 mark", "s1 mark"]


def test_a_bar_of_nothing() -> None:
    assert float(next(ElementTree.fromstring(bar_svg(0.0, [], 0.0, "none")).iter("rect")).attrib["width"]) == 0
