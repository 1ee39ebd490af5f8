"""The MMD's p-value: how often it is small when nothing moved, and what it is made of."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from lensai_integrations.drift import kernel
from lensai_integrations.drift.kernel import (
    FEWEST_NULL_ROWS,
    NullMoments,
    bound_p_value,
    centred_products,
    kernel_test,
    weighted_chi_square_p_value,
)
from lensai_integrations.errors import DefinitionError
from lensai_integrations.sketches.kernel_mean import KernelMean


def mean_of(rows, exponents=None):
    result = KernelMean(rows.shape[1], exponents=exponents)
    result.update(rows.astype(np.float32))
    return result


def rows_of(rng, n, dim=16):
    """Correlated, skewed rows, as a layer after a ReLU gives them."""
    mixing = np.random.default_rng(5).normal(size=(dim, dim)) / dim**0.5
    return np.maximum(rng.normal(size=(n, dim)) @ mixing, 0).astype(np.float32)


@pytest.mark.parametrize("freedom", [1, 2, 7])
def test_equal_weights_give_the_chi_square_distribution(freedom):
    for value in (0.5, 3.0, 20.0):
        ours = weighted_chi_square_p_value(2.0 * value, 2.0 * freedom, 4.0 * freedom, 8.0 * freedom)
        assert ours == pytest.approx(chi2.sf(value, freedom), rel=1e-9)


def test_unequal_weights_down_to_the_far_tail(rng):
    weights = 0.7 ** np.arange(20)
    drawn = rng.chisquare(1, (200_000, 20)) @ weights
    for level, off in ((0.5, 0.1), (0.05, 0.1), (0.01, 0.15), (0.001, 0.35)):
        value = np.quantile(drawn, 1 - level)
        p = weighted_chi_square_p_value(value, weights.sum(), (weights**2).sum(), (weights**3).sum())
        assert p == pytest.approx(level, rel=off)


def test_for_many_rows_the_sums_are_traces_of_the_covariance(rng):
    rows = rows_of(rng, 2000)
    mean = mean_of(rows)
    features = mean.features(rows).reshape(2000, -1).astype(float) / 3**0.5
    covariance = np.cov(features.T)
    second, third = NullMoments.of(centred_products(mean, rows), np.trace(covariance)).sums(10**9, 10**9)
    assert second == pytest.approx(np.sum(covariance**2), rel=0.15)
    assert third == pytest.approx(np.trace(covariance @ covariance @ covariance), rel=0.3)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(10**9, 1), (10**9, 2), (10**9, 5), (10**9, 20), (6, 6), (3, 5)])
def test_the_sums_are_the_cumulants_of_the_squared_distance(rng, n, m):
    """Against drawing: points of three skewed columns stand for features, n or m of them at a time."""

    scale = np.array([1.0, 0.5, 0.2])

    def draw(count):
        return (rng.random((count, 3)) ** 3 - 0.25) * scale

    points = draw(3000)
    trace = (1 / 7 - 1 / 16) * np.sum(scale**2)
    second, third = NullMoments.of(points @ points.T, trace).sums(n, m)
    trials = 100_000
    centre = draw(trials * n).reshape(trials, n, 3).mean(axis=1) if n < 100 else 0
    distance = np.sum((draw(trials * m).reshape(trials, m, 3).mean(axis=1) - centre) ** 2, axis=1) / (1 / n + 1 / m)
    assert distance.mean() == pytest.approx(trace, rel=0.03)
    assert 2 * second == pytest.approx(distance.var(), rel=0.1)
    assert 8 * third == pytest.approx(np.mean((distance - distance.mean()) ** 3), rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(250, 1), (250, 10), (250, 100), (60, 100)])
def test_p_values_are_uniform_when_nothing_moved(rng, n, m):
    p = np.empty(60)
    for trial in range(len(p)):
        reference = rows_of(rng, n)
        baseline = mean_of(reference)
        p[trial] = kernel_test(baseline, mean_of(rows_of(rng, m), baseline.exponents), reference).p_value
    assert (p < 0.05).mean() <= 0.15
    assert (p < 0.01).mean() <= 0.05
    assert kstest(p, "uniform").pvalue > 1e-4


def test_a_shift_no_single_stream_could_show(rng):
    """Two columns, each distributed as before, but no longer alike."""
    both = rng.normal(size=(2000, 1))
    before = np.concatenate([both, both + 0.3 * rng.normal(size=(2000, 1))], axis=1)
    after = np.stack([rng.permutation(column) for column in before.T], axis=1)[:200]
    test = kernel_test(mean_of(before), mean_of(after), before)
    assert test.p_value < 1e-6
    assert test.effect > 0.1
    assert test.method == "gamma"


def test_the_effect_does_not_depend_on_the_window(rng):
    reference = rows_of(rng, 2000)
    baseline = mean_of(reference)
    effects = {}
    for m in (50, 200, 2000):
        windows = [mean_of(rows_of(rng, m) + 0.2, baseline.exponents) for _ in range(6)]
        effects[m] = np.mean([kernel_test(baseline, window, reference).effect for window in windows])
    assert effects[50] == pytest.approx(effects[2000], rel=0.2)
    assert effects[200] == pytest.approx(effects[2000], rel=0.1)


def test_what_is_reported(rng):
    reference = rows_of(rng, 500)
    baseline, window = mean_of(reference), mean_of(rows_of(rng, 80) + 0.5)
    test = kernel_test(baseline, window, reference)
    assert test.mmd == pytest.approx(baseline.mmd(window), rel=1e-9)
    assert (test.n, test.m) == (500, 80)
    assert set(test.bandwidths) == set(baseline.bandwidths) & set(window.bandwidths)


# -- without rows


def test_without_rows_the_bound_is_used(rng):
    baseline = mean_of(rows_of(rng, 2000))
    clean = kernel_test(baseline, mean_of(rows_of(rng, 200), baseline.exponents))
    moved = kernel_test(baseline, mean_of(rows_of(rng, 200) + 2, baseline.exponents))
    assert clean.method == moved.method == "bound"
    assert clean.p_value > 0.5
    assert moved.p_value < 1e-6


def test_the_bound_is_above_the_true_p_value(rng):
    reference = rows_of(rng, 1000)
    baseline = mean_of(reference)
    for shift in (0.0, 0.1, 0.2, 0.4):
        window = mean_of(rows_of(rng, 100) + shift, baseline.exponents)
        assert kernel_test(baseline, window).p_value >= kernel_test(baseline, window, reference).p_value


def test_the_bound_by_hand():
    # McDiarmid: exp(-2 t^2 / (n (2/n)^2 + m (2/m)^2)) with t = MMD - sqrt(1/n + 1/m)
    n, m, mmd = 50, 200, 0.5
    t = mmd - (1 / n + 1 / m) ** 0.5
    assert bound_p_value(mmd**2, 1 / n + 1 / m) == pytest.approx(np.exp(-2 * t**2 / (4 / n + 4 / m)))
    assert bound_p_value(0.0, 0.1) == 1


def test_too_few_or_invalid_rows_are_no_rows(rng):
    reference = rows_of(rng, 200)
    baseline, window = mean_of(reference), mean_of(rows_of(rng, 50))
    few = reference[: FEWEST_NULL_ROWS - 1]
    assert kernel_test(baseline, window, few).method == "bound"
    assert kernel_test(baseline, window, np.full((200, 16), np.nan)).method == "bound"
    holes = reference.copy()
    holes[::2, 3], holes[1, 0], holes[3, 1] = np.nan, np.inf, 3e38
    test = kernel_test(baseline, window, holes)
    assert test.method == "gamma"
    assert np.isfinite(test.p_value)


def test_rows_that_never_vary():
    baseline = mean_of(np.ones((100, 3)))
    same = kernel_test(baseline, mean_of(np.ones((20, 3)), baseline.exponents), np.ones((100, 3)))
    other = kernel_test(baseline, mean_of(np.full((20, 3), 9.0), baseline.exponents), np.ones((100, 3)))
    assert (same.p_value, same.effect) == (1.0, 0.0)
    assert other.p_value < 0.01
    assert other.effect == np.inf


# -- bandwidths


def test_one_row_takes_the_baselines_bandwidths(rng):
    reference = rows_of(rng, 500)
    baseline = mean_of(reference)
    test = kernel_test(baseline, mean_of(reference[:1]), reference)
    assert test.bandwidths == baseline.bandwidths
    assert test.p_value > 0.01


@pytest.mark.parametrize("kept", ["window", "baseline", "both"])
def test_without_a_shared_bandwidth_a_side_is_made_again_from_its_rows(rng, kept):
    reference, far = rows_of(rng, 400), 100 * rows_of(rng, 90)
    baseline, window = mean_of(reference), mean_of(far)
    assert not set(baseline.exponents) & set(window.exponents)
    kernel_test_rows = (reference if kept != "window" else None, far if kept != "baseline" else None)
    test = kernel_test(baseline, window, *kernel_test_rows)
    assert test.p_value < 1e-3
    assert test.bandwidths == (window.bandwidths if kept == "baseline" else baseline.bandwidths)


def test_without_a_shared_bandwidth_and_rows_there_is_no_test(rng):
    with pytest.raises(DefinitionError, match="share none"):
        kernel_test(mean_of(rows_of(rng, 400)), mean_of(100 * rows_of(rng, 90)))


def test_other_features_cannot_be_compared(rng):
    with pytest.raises(DefinitionError, match=r"\(16, 256, 20071\) and \(8, 256, 20071\)"):
        kernel_test(mean_of(rows_of(rng, 40)), mean_of(rows_of(rng, 40, dim=8)))


def test_neither_side_is_changed(rng):
    reference, other = rows_of(rng, 100), rows_of(rng, 10)
    baseline, window = mean_of(reference), mean_of(other)
    before = [{key: array.copy() for key, array in mean.state().items()} for mean in (baseline, window)]
    kernel_test(baseline, window, reference, other)
    for mean, state in zip((baseline, window), before, strict=True):
        for key, array in mean.state().items():
            np.testing.assert_array_equal(array, state[key])


def test_the_null_distribution_is_found_once_per_baseline(rng, monkeypatch):
    rows, windows = rows_of(rng, 400), [rows_of(rng, 100) for _ in range(3)]
    baseline = mean_of(rows)
    others = [mean_of(window, baseline.exponents) for window in windows]
    asked = []
    monkeypatch.setattr(
        kernel, "centred_products", lambda mean, rows: asked.append(mean) or centred_products(mean, rows)
    )
    found = [kernel_test(baseline, other, rows) for other in others]
    assert len(asked) == 1
    assert found == [kernel_test(mean_of(rows), other, rows) for other in others]


def test_another_sample_or_more_rows_are_looked_at_anew(rng):
    rows, more, window = rows_of(rng, 400), 2 * rows_of(rng, 300), rows_of(rng, 100)
    baseline = mean_of(rows)
    other = mean_of(window, baseline.exponents)
    kernel_test(baseline, other, rows)
    assert kernel_test(baseline, other, rows[200:]) == kernel_test(mean_of(rows), other, rows[200:])
    baseline.update(more)
    fresh = mean_of(rows, baseline.exponents)
    fresh.update(more)
    assert kernel_test(baseline, other, rows) == kernel_test(fresh, other, rows)


def test_the_null_moments_are_the_formulas(rng):
    """The null moments of a few rows, written out over all pairs and triples."""
    rows, n, m = rows_of(rng, 40), 70, 30
    mean = mean_of(rows)
    h, trace = centred_products(mean, rows), 0.4
    count = len(h)
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    s, excess = 1 / n + 1 / m, np.diag(h) - trace
    q, u, w = (n**-3 + m**-3) / s**2, (n**-2 - m**-2) ** 2 / s**3, (n**-5 + m**-5) / s**3
    square = np.mean([h[i, j] ** 2 for i, j in pairs])
    triangle = np.mean([h[i, j] * h[j, k] * h[k, i] for i, j in pairs for k in range(count) if k not in (i, j)])
    cube, once = np.mean([h[i, j] ** 3 for i, j in pairs]), np.mean([h[i, j] ** 2 * excess[j] for i, j in pairs])
    twice = np.mean([h[i, j] * excess[i] * excess[j] for i, j in pairs])
    variance = 2 * square * (1 - q) + np.mean(excess**2) * q
    inside = 8 * triangle * (1 - 2 * q) + 4 * cube * u + 12 * once * q + 6 * twice * u
    third = (1 - q) * inside + np.mean(excess**3) * w
    found = NullMoments.of(h, trace).sums(n, m)
    assert found[0] == pytest.approx(variance / 2, rel=1e-9)
    assert found[1] == pytest.approx(np.clip(third / 8, 1e-3 * found[0] ** 1.5, 2 * found[0] ** 1.5), rel=1e-9)
