"""p-values against scipy's exact ones, and against how often they are below a level when nothing moved."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2_contingency, ks_2samp, kstwo

from lensai_integrations.drift.significance import (
    category_p_value,
    chi_square_p_value,
    holm,
    ks_p_value,
    rare_p_value,
)

LEVELS = (0.05, 0.01, 1e-4, 1e-6)

# -- Kolmogorov-Smirnov


@pytest.mark.parametrize("n", [10, 25, 50, 200, 1000])
@pytest.mark.parametrize("level", LEVELS)
def test_ks_p_values_are_the_exact_ones_of_a_large_baseline(n, level):
    """Against so large a baseline the two-sample distribution is the one-sample one, which scipy knows exactly."""
    p = ks_p_value(np.array([kstwo.isf(level, n)]), 10**9, n)[0]
    assert p > 0.9 * level
    assert p < (1.1 if level >= 0.01 else 5 if n == 10 else 1.7) * level


@pytest.mark.parametrize(("n", "m"), [(40, 30), (100, 100), (200, 50)])
def test_ks_p_values_of_two_samples_are_scipys(rng, n, m):
    for shift in (0.0, 0.2, 0.4, 0.8):
        a, b = rng.normal(size=n), rng.normal(shift, 1, m)
        result = ks_2samp(a, b, method="exact")
        p = ks_p_value(np.array([result.statistic]), n, m)[0]
        assert p == pytest.approx(result.pvalue, rel=0.35, abs=0.02)


@pytest.mark.parametrize("m", [1, 2, 5])
def test_a_few_rows_give_wide_p_values(m):
    p = ks_p_value(np.array([1.0]), 2000, m)[0]
    exact = ks_2samp(np.arange(2000.0), np.full(m, 1e9) + np.arange(m), method="exact").pvalue
    assert exact <= p < {1: 0.11, 2: 0.02, 5: 1e-4}[m]
    assert m > 1 or p > 0.09


def test_ks_p_values_fall_with_distance_and_stay_within_0_and_1():
    p = ks_p_value(np.linspace(0, 1, 101), 2000, 100)
    assert (np.diff(p) <= 0).all()
    assert p[0] == 1
    assert p[-1] >= 0


def test_the_error_of_a_sketch_is_taken_off():
    assert ks_p_value(np.array([0.01]), 10**7, 10**7)[0] < 1e-100
    assert ks_p_value(np.array([0.01]), 10**7, 10**7, error=0.0188)[0] == 1
    assert ks_p_value(np.array([0.2]), 500, 500, 0.05)[0] == pytest.approx(ks_p_value(np.array([0.15]), 500, 500)[0])


# -- chi-square


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(60, 300), st.integers(60, 300)), min_size=2, max_size=8))
def test_chi_square_is_scipys(pairs):
    a, b = np.array(pairs).T
    expected = chi2_contingency(np.stack([a, b]), correction=False)
    p, freedom = chi_square_p_value(a, b, int(a.sum()), int(b.sum()))
    assert freedom == expected.dof
    assert p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-300)


def test_rare_categories_are_put_together():
    a, b = np.array([1000, 500, 10, 8, 2, 0]), np.array([100, 50, 0, 1, 3, 40])
    # expected in 194 rows of 1714: the last four together 7.2; of them only the last has 4.5
    together = (np.array([1000, 500, 20]), np.array([100, 50, 44]))
    expected = chi2_contingency(np.stack(together), correction=False)
    p, freedom = chi_square_p_value(a, b, 1520, 194)
    assert freedom == 2
    assert p == pytest.approx(expected.pvalue, rel=1e-6)


def test_if_the_rare_ones_are_too_few_the_least_of_the_others_joins_them():
    a, b = np.array([1000, 200, 4]), np.array([100, 30, 0])
    expected = chi2_contingency(np.array([[1000, 204], [100, 30]]), correction=False)
    p, freedom = chi_square_p_value(a, b, 1204, 130)
    assert freedom == 1
    assert p == pytest.approx(expected.pvalue, rel=1e-6)


@pytest.mark.parametrize(("a", "b"), [([100], [50]), ([2, 2], [1, 0]), ([1000, 0], [3, 0]), ([0, 5], [0, 9])])
def test_with_one_cell_there_is_nothing_to_test(a, b):
    assert chi_square_p_value(np.array(a), np.array(b), sum(a), sum(b)) == (1.0, 0)


def test_the_error_of_counts_is_taken_off():
    a, b = np.array([500, 500]), np.array([450, 550])
    assert chi_square_p_value(a, b, 1000, 1000)[0] < 0.05
    assert chi_square_p_value(a, b, 1000, 1000, error=0.05)[0] == pytest.approx(1)


# -- rare categories


def test_one_category_among_two_is_a_binomial_test():
    p = rare_p_value(np.array([1990, 10]), np.array([190, 10]), 2000, 200)
    expected = binomtest(10, 20, 200 / 2200, alternative="greater").pvalue
    assert p == pytest.approx(2 * 2 * expected, rel=1e-9)  # two tails, two categories


def test_categories_the_baseline_never_had():
    assert rare_p_value(np.array([2000, 0]), np.array([197, 3]), 2000, 200) == pytest.approx(4 * (200 / 2200) ** 3)


def test_categories_that_vanished():
    assert rare_p_value(np.array([1800, 200]), np.array([200, 0]), 2000, 200) < 1e-6


def test_ten_rows_of_one_class_among_ten_classes():
    baseline, window = np.full(10, 200), np.eye(10, dtype=int)[3] * 10
    assert chi_square_p_value(baseline, window, 2000, 10)[1] == 0  # too few rows for that
    assert category_p_value(baseline, window, 2000, 10) < 1e-5


def test_errors_of_counts_count_against_a_change():
    a, b = np.array([1990, 10]), np.array([180, 20])
    p = [rare_p_value(a, b, 2000, 200, errors) for errors in ((0, 0), (0, 5), (5, 5), (100, 20))]
    assert p == sorted(p)
    assert p[0] < 1e-8
    assert p[-1] == 1


@pytest.mark.parametrize("m", [1, 5, 30, 200])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_false_alarms_of_categories(rng, m, classes):
    """Two samples of one distribution, its shares very unequal: p is below a level no more often than that."""
    shares = rng.dirichlet(np.full(classes, 0.5), 400)
    a, b = rng.multinomial(1000, shares), rng.multinomial(m, shares)
    p = np.array([category_p_value(x, y, 1000, m) for x, y in zip(a, b, strict=True)])
    assert (p <= 1).all()
    assert (p < 0.05).mean() <= 0.07
    assert (p < 0.01).mean() <= 0.02


def test_the_smaller_p_value_counts_twice():
    a, b = np.array([1000, 1000, 0]), np.array([90, 106, 4])
    common, rare = chi_square_p_value(a, b, 2000, 200)[0], rare_p_value(a, b, 2000, 200)
    assert category_p_value(a, b, 2000, 200) == pytest.approx(2 * min(common, rare))


# -- Holm


def test_holm_by_hand():
    adjusted = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06, 0.02])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=0, max_size=30), st.floats(0.001, 0.5))
def test_holm_rejects_what_its_procedure_rejects(p, alpha):
    p = np.array(p)
    rejected = np.zeros(len(p), bool)
    for step, index in enumerate(np.argsort(p, kind="stable")):
        if not p[index] * (len(p) - step) < alpha:
            break
        rejected[index] = True
    np.testing.assert_array_equal(holm(p) < alpha, rejected)


def test_holm_is_at_least_p_and_keeps_the_order(rng):
    p = rng.uniform(size=50) ** 4
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= 1).all()
    for i, j in itertools.combinations(range(50), 2):
        assert (p[i] < p[j]) <= (adjusted[i] <= adjusted[j])
