"""p-values against scipy's exact ones, and against how often they are below a level when nothing moved."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binom, binomtest, chi2_contingency, ks_2samp, kstwo

from lensai_integrations.drift.significance import (
    category_p_value,
    chi_square_p_value,
    e_bh,
    holm,
    ks_p_value,
    labels_p_value,
    log_e_value,
    log_mean_e,
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


def labels_together(rng, n, mode):
    """Labels of rows that belong together: one stands for all of a group, or a rare kind of row has all of them."""
    if mode == "groups":
        return np.repeat(rng.random((n, 3)) < 0.4, 6, axis=1)
    full = rng.random(n) < 0.1
    return np.column_stack([np.ones(n, bool), np.repeat(full[:, None], 29, axis=1)])


@pytest.mark.parametrize("mode", ["groups", "all or one"])
def test_labels_that_belong_together_raise_no_more_false_alarms_than_asked_for(mode):
    rng = np.random.default_rng(7)
    found = []
    for _ in range(10):
        before = labels_together(rng, 2000, mode).sum(axis=0)
        for _ in range(40):
            after = labels_together(rng, 200, mode).sum(axis=0)
            found.append(labels_p_value(before, after, 2000, 200))
    assert np.mean(np.array(found) <= 0.05) <= 0.05


def test_labels_that_belong_together_are_no_independent_draws():
    """What made a test of its own necessary."""
    rng = np.random.default_rng(7)
    draws = [labels_together(rng, 200, "all or one").sum(axis=0) for _ in range(200)]
    base = labels_together(rng, 2000, "all or one").sum(axis=0)
    wrong = [category_p_value(base, each, int(base.sum()), int(each.sum())) for each in draws]
    assert np.mean(np.array(wrong) <= 0.05) > 0.1


@pytest.mark.parametrize(("before", "after"), [(400, 60), (1600, 120), (0, 4), (20, 0), (1000, 100)])
def test_one_label_is_held_against_the_binomial_distribution(before, after):
    """Given how many rows of both sides have it; of a label that most rows have, how many do not."""
    fewer = (before, after) if 2 * (before + after) <= 2200 else (2000 - before, 200 - after)
    more = binom(sum(fewer), 200 / 2200).sf(fewer[1] - 1)
    less = binom(sum(fewer), 200 / 2200).cdf(fewer[1])
    expected = min(1.0, 2 * min(more, less))
    assert labels_p_value(np.array([before]), np.array([after]), 2000, 200) == pytest.approx(expected)


def test_a_label_that_became_frequent_is_found_among_many():
    rng = np.random.default_rng(8)
    before = (rng.random((2000, 80)) < 0.05).sum(axis=0)
    after = (rng.random((200, 80)) < np.where(np.arange(80) == 7, 0.2, 0.05)).sum(axis=0)
    assert labels_p_value(before, after, 2000, 200) < 1e-4


# -- e-values


@pytest.mark.parametrize("p", [1.0, 1 - 1e-9, 0.999, 0.5, 0.05, 1e-3, 1e-8])
def test_e_values_are_the_average_of_betting_scores(p):
    score, _ = quad(lambda kappa: kappa * p ** (kappa - 1), 0, 1, epsabs=0, epsrel=1e-10)
    assert np.exp(log_e_value(np.log(p))) == pytest.approx(score, rel=1e-8)


def test_e_values_of_the_smallest_p_values_are_the_formulas_in_exact_arithmetic():
    from decimal import Decimal, localcontext

    with localcontext() as context:
        context.prec = 700
        for power in (16, 100, 300):
            p = Decimal(10) ** -power
            e = (1 - p + p * p.ln()) / (p * p.ln() ** 2)
            assert log_e_value(float(p.ln())) == pytest.approx(float(e.ln()), rel=1e-12)


def test_e_values_are_1_on_average_where_nothing_moved_and_fall_with_p():
    assert quad(lambda x: np.exp(log_e_value(-x) - x), 0, np.inf, limit=500)[0] == pytest.approx(1, abs=0.01)
    logs = log_e_value(-np.linspace(0, 700, 10_001))
    assert (np.diff(logs) > 0).all()
    assert np.isfinite(logs).all()


def test_the_mean_of_e_values_that_no_float_can_hold():
    assert log_mean_e([800.0, 800.0 + np.log(3)]) == pytest.approx(800 + np.log(2))
    assert log_mean_e([800.0], 24) == pytest.approx(800 - np.log(24))
    assert log_mean_e([]) == -np.inf


def reported_by_definition(e, share):
    """The sets that are self-consistent, the largest: each of its e-values is at least K / (share * its size)."""
    sets = [[i for i, value in enumerate(e) if value * size * share >= len(e)] for size in range(1, len(e) + 1)]
    fitting = [each for size, each in enumerate(sets, 1) if len(each) >= size]
    return max(fitting, key=len, default=[])


@given(st.lists(st.floats(1e-3, 1e6), max_size=30), st.sampled_from([0.05, 0.1, 0.5, 1.0]))
def test_reported_is_the_largest_self_consistent_set(e, share):
    assert np.flatnonzero(e_bh(np.log(e), share)).tolist() == reported_by_definition(np.array(e), share)


def test_the_share_of_false_ones_holds_where_all_hang_together(rng):
    """One baseline that is off makes all p-values small at once."""
    shares = []
    for _ in range(4000):
        p = np.full(50, rng.uniform())  # the 50 clean ones are the same window
        p[:5] *= 1e-6
        reported = e_bh(log_e_value(np.log(p)), 0.2)
        shares.append(reported[5:].sum() / max(reported.sum(), 1))
    assert np.mean(shares) < 0.2
