"""Distances of shares, against scipy and against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.stats import rv_histogram

from lensai_integrations.drift.distances import (
    PSI_SMOOTHING,
    hellinger,
    jensen_shannon,
    population_stability,
    total_variation,
)

COUNTS = arrays(np.int64, (2, 6), elements=st.integers(0, 50)).filter(lambda c: bool((c.sum(axis=1) > 0).all()))


def shares_of(counts):
    return counts / counts.sum(axis=1, keepdims=True)


@settings(max_examples=50, deadline=None)
@given(COUNTS)
def test_jensen_shannon_is_scipys_in_bits(counts):
    p, q = shares_of(counts)
    assert jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2), abs=1e-7)


@settings(max_examples=50, deadline=None)
@example(np.array([[26, 0, 11, 0, 0, 0], [0, 46, 0, 20, 0, 0]]))
@given(COUNTS)
def test_distances_are_symmetric_within_0_and_1_and_0_for_equal_shares(counts):
    p, q = shares_of(counts)
    for distance in (jensen_shannon, hellinger, total_variation):
        assert 0 <= distance(p, q) <= 1
        assert distance(p, q) == pytest.approx(distance(q, p), abs=1e-12)
        assert distance(p, p) == 0
    # known inequalities between them
    assert hellinger(p, q) ** 2 <= total_variation(p, q) + 1e-12
    assert total_variation(p, q) <= math.sqrt(2) * hellinger(p, q) + 1e-12


@pytest.mark.parametrize("distance", [jensen_shannon, hellinger, total_variation])
def test_shares_that_do_not_overlap_are_at_distance_1(distance):
    assert distance(np.array([0.3, 0.7, 0.0, 0.0]), np.array([0.0, 0.0, 0.5, 0.5])) == pytest.approx(1.0)


def test_rows_are_taken_one_by_one(rng):
    p, q = (shares_of(rng.integers(1, 20, (7, 5))) for _ in range(2))
    for distance in (jensen_shannon, hellinger, total_variation):
        np.testing.assert_allclose(distance(p, q), [distance(a, b) for a, b in zip(p, q, strict=True)], atol=1e-12)


def test_published_numbers():
    """Frouros's own tests: N(1,1) against N(5,2), 100 of each, numpy's seed 31 set anew for either."""
    p = np.random.RandomState(31).normal(1, 1, 100)
    q = np.random.RandomState(31).normal(5, 2, 100)
    both = np.concatenate([p, q])
    edges = np.histogram(both, bins=10)[1]
    counts = np.stack([np.histogram(side, edges)[0] for side in (p, q)])
    assert hellinger(*shares_of(counts)) == pytest.approx(0.74509099, abs=1e-8)
    grid = np.linspace(both.min(), both.max(), 10)
    smooth = [np.diff(rv_histogram(np.histogram(side, bins="auto")).cdf(grid)) for side in (p, q)]
    smooth = [side / side.sum() for side in smooth]  # as scipy's jensenshannon does for them
    assert jensen_shannon(*smooth) * math.sqrt(math.log(2)) == pytest.approx(0.67010107, abs=1e-8)  # theirs is in nats


def index_of(p, q, n, m, used=None):
    p, q = np.atleast_2d(p), np.atleast_2d(q)
    used = np.ones(p.shape, bool) if used is None else np.atleast_2d(used)
    return float(population_stability(p, q, np.array([n]), np.array([m]), used)[0])


def test_psi_by_hand():
    # 10 and 90 rows against 20 and 80, half a row more in each of the two bins
    p, q = np.array([10.5, 90.5]) / 101, np.array([20.5, 80.5]) / 101
    expected = (p[0] - q[0]) * math.log(p[0] / q[0]) + (p[1] - q[1]) * math.log(p[1] / q[1])
    assert index_of([0.1, 0.9], [0.2, 0.8], 100, 100) == pytest.approx(expected, rel=1e-12)


def test_psi_without_smoothing_in_the_limit_of_many_rows():
    p, q = np.array([0.1, 0.2, 0.7]), np.array([0.3, 0.3, 0.4])
    assert index_of(p, q, 10**12, 10**12) == pytest.approx(float(np.sum((p - q) * np.log(p / q))), rel=1e-9)


def test_psi_does_not_explode_in_empty_bins():
    p = np.full(10, 0.1)
    q = np.eye(10)[0]
    assert 1 < index_of(p, q, 2000, 100) < 6  # filling empty bins with the smallest float gives 461 and the like


def test_psi_leaves_bins_out_that_are_not_used():
    with_rest = index_of([0.5, 0.5, 0.0], [0.25, 0.75, 0.0], 100, 50, [True, True, False])
    assert with_rest == pytest.approx(index_of([0.5, 0.5], [0.25, 0.75], 100, 50), rel=1e-12)


def test_psi_of_clean_data_shrinks_with_the_rows(rng):
    expected = {}
    for rows in (100, 1000):
        counts = rng.multinomial(rows, np.full(10, 0.1), size=200)
        p, used = np.full((200, 10), 0.1), np.ones((200, 10), bool)
        index = population_stability(p, counts / rows, np.full(200, 10**6), np.full(200, rows), used)
        expected[rows] = index.mean()
    assert expected[100] == pytest.approx(9 / 100, rel=0.15)
    assert expected[1000] == pytest.approx(9 / 1000, rel=0.15)
    assert PSI_SMOOTHING == 0.5
