"""Continued tails against scipy's distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from lensai_integrations.drift.null import SMALLEST, Smooth, log_p

VALUES = np.array([-1e30, -5.0, 0.0, 1.0, 10.0, 1e5, 1e30, np.inf])


@pytest.mark.parametrize("shape", [1.0, 2.0, 9.0, 100.0])
def test_smooth_is_the_gamma_distribution_its_draws_are_of(shape):
    gamma = stats.gamma(shape, loc=-3, scale=0.5)
    smooth = Smooth(gamma.mean(), gamma.std(), float(gamma.stats("s")))
    places = gamma.isf([0.9, 0.5, 0.1, 1e-2, 1e-4, 1e-8])
    np.testing.assert_allclose(smooth.log_p(places), gamma.logsf(places), rtol=1e-6)


def test_smooth_is_pearsons_type_three(rng):
    draws = rng.gumbel(size=2000)
    smooth = Smooth.of(draws)
    assert smooth.skewness == pytest.approx(stats.skew(draws))
    places = np.quantile(draws, [0.05, 0.5, 0.95, 0.999])
    expected = stats.pearson3.logsf(places, stats.skew(draws), draws.mean(), draws.std())
    np.testing.assert_allclose(smooth.log_p(places), expected, rtol=1e-6)


@pytest.mark.parametrize("draws", [np.zeros(5), np.ones(1), -(np.arange(9.0) ** 4), np.array([0.0] * 99 + [1e6])])
def test_smooth_of_odd_draws_is_finite_and_falls(draws):
    logs = Smooth.of(draws.astype(np.float32)).log_p(VALUES)
    assert np.isfinite(logs).all()
    assert (np.diff(logs) <= 0).all()
    assert logs[0] == 0
    assert logs[-1] == pytest.approx(np.log(SMALLEST))


@pytest.mark.parametrize("count", [100, 1000])
def test_exponential_tails_are_found_without_bias(rng, count):
    """On average over samples the decay is the true one; with the edge counted as an excess it was 20% too fast."""
    decay = []
    for _ in range(400):
        one, two = log_p(np.sort(rng.exponential(2.0, count)), [30.0, 40.0])
        decay.append(10 / (one - two))
    assert np.mean(decay) == pytest.approx(2.0, rel=0.08)


def test_counting_up_to_the_edge(rng):
    draws = np.sort(rng.normal(size=999))
    places = draws[[0, 100, 500, 940]]
    expected = [(np.sum(draws >= place) + 1) / 1000 for place in places]
    np.testing.assert_allclose(np.exp(log_p(draws, places)), expected)


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e6, 1e6)),
    hnp.arrays(np.float64, 20, elements=st.floats(-1e7, 1e7)),
)
def test_logarithms_fall_with_the_value_and_are_at_most_0(draws, values):
    logs = log_p(np.sort(draws), np.sort(values))
    assert not np.isnan(logs).any()
    assert (logs <= 0).all()
    assert (np.diff(logs) <= 1e-12).all()


def test_any_shape():
    assert log_p(np.arange(50.0), np.zeros((2, 3, 1))).shape == (2, 3, 1)
    assert Smooth.of(np.arange(50.0)).log_p(np.zeros((2, 3))).shape == (2, 3)
