"""Bars hold what the sketch holds: against the rows themselves and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lensai_integrations.report.plots import (
    MAX_BARS,
    MAX_DISCRETE,
    MIN_BARS,
    Distribution,
    bank_distributions,
    count_distribution,
    gap,
    histogram,
)
from lensai_integrations.sketches.bank import KLLBank

EMPTY = Distribution(np.empty(0), np.empty(0), 0)


def of(values: np.ndarray) -> Distribution:
    values = np.sort(np.asarray(values, np.float64))
    return Distribution(values, np.ones(len(values)), len(values))


SAMPLES = arrays(np.float64, st.integers(1, 200), elements=st.floats(-1e6, 1e6, width=32))


@settings(max_examples=60)
@given(SAMPLES, SAMPLES)
def test_no_row_is_lost(a: np.ndarray, b: np.ndarray) -> None:
    drawn = histogram([of(a), of(b)])
    assert drawn is not None
    for shares, below, above in zip(drawn.shares, drawn.below, drawn.above, strict=True):
        assert shares.sum() + below + above == pytest.approx(1.0)
        assert below <= 0.0051
        assert above <= 0.0051
    assert np.all(np.diff(drawn.edges) > 0)


@settings(max_examples=40)
@given(SAMPLES)
def test_quantiles_are_numpys(a: np.ndarray) -> None:
    for rank in (0.005, 0.05, 0.5, 0.95, 0.995):
        assert of(a).quantile(rank) == np.quantile(a, rank, method="inverted_cdf")


@settings(max_examples=40)
@given(SAMPLES, SAMPLES)
def test_the_gap_is_the_largest_distance_of_the_cumulative_distributions(a: np.ndarray, b: np.ndarray) -> None:
    distances = [abs(np.mean(a <= point) - np.mean(b <= point)) for point in np.concatenate([a, b])]
    assert gap(of(a), of(b)) == pytest.approx(max(distances), abs=1e-12)


def test_bars_are_numpys_histogram_between_the_robust_quantiles() -> None:
    rows = np.concatenate([np.random.default_rng(0).normal(0, 1, 5000), [1e9]])
    drawn = histogram([of(rows)])
    assert drawn is not None
    assert not drawn.discrete
    low, high = drawn.span
    assert low == pytest.approx(np.quantile(rows, 0.005), abs=0.02)
    assert high == pytest.approx(np.quantile(rows, 0.995), abs=0.02)
    np.testing.assert_allclose(drawn.shares[0], np.histogram(rows, drawn.edges)[0] / len(rows))
    assert drawn.above[0] == pytest.approx(np.mean(rows > high))


def test_a_range_without_outliers_is_drawn_whole() -> None:
    drawn = histogram([of(np.linspace(2.0, 7.0, 1000))])
    assert drawn is not None
    assert drawn.span == (2.0, 7.0)
    assert drawn.above == drawn.below == (0.0,)


@pytest.mark.parametrize("n", [1, 3, 50, 1000, 100_000])
def test_the_number_of_bars_follows_the_rows(n: int) -> None:
    drawn = histogram([of(np.arange(float(n)))], span=(0.0, float(n)))
    assert drawn is not None
    assert MIN_BARS <= len(drawn.shares[0]) <= MAX_BARS
    asked = histogram([of(np.arange(float(n)))], span=(0.0, float(n)), bars=5)
    assert asked is not None
    assert len(asked.shares[0]) == 5


def test_a_stream_of_few_values_gets_a_bar_per_value() -> None:
    drawn = histogram([of(np.repeat([1.0, 2.0, 40.0], [50, 30, 20])), of(np.repeat([2.0, 3.0], 10))])
    assert drawn is not None
    assert drawn.discrete
    assert drawn.edges.tolist() == [1, 2, 3, 40]
    assert [s.tolist() for s in drawn.shares] == [[0.5, 0.3, 0, 0.2], [0, 0.5, 0.5, 0]]


def test_a_constant_stream_is_one_bar() -> None:
    drawn = histogram([of(np.full(100, 224.0))])
    assert drawn is not None
    assert drawn.discrete
    assert drawn.span == (224.0, 224.0)
    assert drawn.shares[0].tolist() == [1.0]


def test_few_rows_of_different_values_are_not_taken_for_categories() -> None:
    drawn = histogram([of(np.random.default_rng(0).normal(size=MAX_DISCRETE))])
    assert drawn is not None
    assert not drawn.discrete


def test_rows_that_nearly_all_tie_still_have_an_axis() -> None:
    rows = np.concatenate([np.zeros(100_000), np.linspace(1, 2, 100)])
    drawn = histogram([of(rows)])
    assert drawn is not None
    assert not drawn.discrete
    assert drawn.span == (0.0, 2.0)


def test_nothing_to_draw() -> None:
    assert histogram([EMPTY]) is None
    assert histogram([EMPTY, EMPTY]) is None
    assert gap(EMPTY, of(np.ones(3))) is None
    assert gap(of(np.ones(3)), EMPTY) is None
    assert np.isnan(EMPTY.quantile(0.5))


def test_an_empty_side_is_drawn_as_nothing() -> None:
    for first in (np.full(9, 2.0), np.arange(1000.0)):
        drawn = histogram([of(first), EMPTY])
        assert drawn is not None
        assert drawn.shares[1].sum() == 0
        assert drawn.shares[0].sum() == pytest.approx(1.0)


def test_a_bank_becomes_distributions_within_its_rank_error() -> None:
    rows = np.random.default_rng(1).lognormal(0, 1, (20_000, 3)).astype(np.float32)
    bank = KLLBank(3, seed=0)
    bank.update(rows)
    drawn = histogram(bank_distributions(bank))
    assert drawn is not None
    for column, distribution in enumerate(bank_distributions(bank)):
        assert distribution.n == 20_000
        assert distribution.weights.sum() == 20_000
        exact = np.histogram(rows[:, column], drawn.edges)[0] / len(rows)
        assert np.abs(drawn.shares[column] - exact).max() < 2 * bank.rank_error


def test_chosen_columns_of_a_bank() -> None:
    bank = KLLBank(3, seed=0)
    bank.update(np.array([[1.0, 2.0, 3.0]], np.float32))
    assert [d.values.tolist() for d in bank_distributions(bank, [2, 0])] == [[3.0], [1.0]]
    assert all(d.empty for d in bank_distributions(KLLBank(3), [1, 2]))


def test_pixel_counts_are_exact() -> None:
    pixels = np.random.default_rng(2).integers(0, 200, 5000)
    distribution = count_distribution(np.bincount(pixels, minlength=256))
    assert distribution.n == 5000
    assert distribution.quantile(0.5) == np.quantile(pixels, 0.5, method="inverted_cdf")
    assert count_distribution(np.zeros(256, np.int64)).empty
