"""The overview of a layer: sorted, thinned without hiding a shift, its dead dimensions counted."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lensai_integrations.profiles.groups import Group
from lensai_integrations.report.streams import MOST_POINTS, SourceShare, effective_dimensions, fan, reading
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.moments import Moments


def part(rows: np.ndarray, number: int = 0, *, covariance: bool = True, **info: object) -> SourceShare:
    rows = rows.astype(np.float32)
    bank, moments = KLLBank(rows.shape[1], seed=0), Moments(rows.shape[1], covariance=covariance)
    bank.update(rows)
    moments.update(rows)
    streams = tuple(map(str, range(rows.shape[1])))
    group = Group("embeddings/fc", streams, {"*": "x"}, {"bank": bank, "moments": moments}, dict(info))
    return SourceShare(number, ("validation", "training")[number], group)


def facts(parts: list[SourceShare]) -> dict[str, str]:
    return {fact.term: fact.text for fact in fan(parts).facts}


def curve(svg: str, name: str) -> list[float]:
    """Heights of a curve above the bottom, in drawing units."""
    path = re.search(rf'class="{name}" d="M([^"]+)"', svg)
    return [130.0 - float(point.split()[1]) for point in path[1].split("L")]


def test_the_median_line_rises() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 40)) + np.random.default_rng(1).normal(0, 5, 40)
    drawn = fan([part(rows)])
    heights = curve(drawn.chart, "fm")
    assert len(heights) == 40
    assert heights == sorted(heights)
    assert heights[-1] > heights[0] + 50
    assert drawn.caption == "40 dimensions, sorted by median"


def test_wide_layers_are_thinned_to_means() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 2048))
    drawn = fan([part(rows, covariance=False)])
    heights = curve(drawn.chart, "fm")
    assert len(heights) <= MOST_POINTS
    assert heights == sorted(heights)
    assert drawn.caption.startswith("2,048 dimensions")
    assert drawn.caption.endswith("each point is the mean of 13")
    assert len(drawn.chart) < 20_000


def test_the_second_source_is_sorted_by_the_first() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 30)) + np.random.default_rng(1).normal(0, 5, 30)
    svg = fan([part(rows), part(rows, 1)]).chart
    lines = re.findall(r'class="s1" d="M([^"]+)"', svg)
    assert len(lines) == 3
    assert lines[1] == re.search(r'class="fm" d="M([^"]+)"', svg)[1]


def test_another_width_is_not_laid_over() -> None:
    rng = np.random.default_rng(0)
    assert "s1" not in fan([part(rng.normal(size=(50, 8))), part(rng.normal(size=(50, 9)), 1)]).chart


def test_dead_dimensions_are_counted_and_named() -> None:
    rows = np.abs(np.random.default_rng(0).normal(size=(100, 12)))
    rows[:, [2, 7]] = 0
    assert facts([part(rows)])["constant dimensions"] == "2 of 12: 2 and 7"
    assert facts([part(rows[:, :2])])["constant dimensions"] == "0 of 2"


def test_spread_is_that_of_the_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(150, 5)) * [1, 2, 3, 4, 100]
    low, high = np.quantile(rows, [0.05, 0.95], axis=0, method="inverted_cdf")
    told = [float(x) for x in re.findall(r"[\d.]+", facts([part(rows)])["spread"])]
    assert told == pytest.approx([(high - low).min(), (high - low).max(), np.median(high - low)], rel=0.01)


def test_one_huge_dimension_does_not_flatten_the_others() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 300))
    rows[:, 0] *= 10_000
    drawn = fan([part(rows)])
    assert float(drawn.high) < 10


def test_an_axis_of_activations_starts_at_zero() -> None:
    rows = np.maximum(np.random.default_rng(0).normal(size=(200, 20)), 0)
    drawn = fan([part(rows)])
    assert float(drawn.low) == 0
    assert 'class="zero"' not in drawn.chart
    assert 'class="zero"' in fan([part(rows - 0.5)]).chart


@pytest.mark.parametrize("width", [1, 2])
def test_layers_that_never_vary(width: int) -> None:
    drawn = fan([part(np.full((50, width), 3.0))])
    assert "nan" not in drawn.chart
    assert drawn.low == "2.50"
    assert drawn.high == "3.50"
    assert "effective dimensions" not in {fact.term for fact in drawn.facts}


def test_no_rows() -> None:
    drawn = fan([part(np.empty((0, 4)))])
    assert drawn.chart is None
    assert [fact.text for fact in drawn.facts] == ["no rows"]


def test_effective_dimensions_are_the_participation_ratio() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 6)) @ rng.normal(size=(6, 6))
    eigenvalues = np.linalg.eigvalsh(np.cov(rows, rowvar=False))
    expected = eigenvalues.sum() ** 2 / np.square(eigenvalues).sum()
    assert effective_dimensions(part(rows).group) == pytest.approx(expected, rel=1e-3)
    independent = part(rng.normal(size=(20_000, 10))).group
    assert effective_dimensions(independent) == pytest.approx(10, rel=0.01)


def test_without_a_covariance_there_are_no_effective_dimensions() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 4))
    assert effective_dimensions(part(rows, covariance=False).group) is None
    assert effective_dimensions(Group("embeddings/fc")) is None
    assert "effective dimensions" not in facts([part(rows, covariance=False)])


def test_how_a_layer_was_read() -> None:
    info = {"width": 2048, "reduce": "flatten", "projected_from": 50_176, "seed": 3}
    assert reading(Group("e", info=info)) == "2,048 wide, reduced by flatten, projected at random from 50,176, seed 3"
    assert reading(Group("e")) == ""


def test_a_layer_is_called_by_its_real_name() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3))
    assert fan([part(rows, layer="features.denseblock4")]).name == "features.denseblock4"
    assert fan([part(rows)]).name == "fc"
