"""Rows that resemble those before them: how much they do, and what a verdict makes of it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from dependent import autoregressive, in_time, layer_of, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from made_profiles import make_profile
from scipy.stats import chi2_contingency

from lensai_integrations import Profiler, calibrate, compare, profile_dataset
from lensai_integrations.drift.calibration import calibration_of
from lensai_integrations.drift.compare import beyond_chance, compare_segments
from lensai_integrations.drift.dependence import (
    INDEPENDENT,
    Inflation,
    correlation,
    inflation_of,
    visible,
)
from lensai_integrations.drift.evidence import Side, compare_group
from lensai_integrations.drift.max_t import corrected_statistics
from lensai_integrations.drift.significance import (
    category_p_value,
    chi_square_distance,
    chi_square_p_value,
    ks_p_value,
    labels_p_value,
)

POOL = "embeddings/pool"


@pytest.fixture(scope="module")
def plain():
    return layer_of(np.random.default_rng(1).normal(size=(2000, 4)), 1, source="validation")


@pytest.fixture(scope="module")
def calibrated(plain):
    return calibrate(plain, draws=200)


# -- correlations


def by_hand(column, lost=1):
    """One less half of von Neumann's ratio."""
    successive = sum((after - before) ** 2 for before, after in pairwise(column)) / (len(column) - 1)
    variance = sum((value - sum(column) / len(column)) ** 2 for value in column) / (len(column) - lost)
    return 1 - successive / variance / 2


def all_of(rows):
    """Rows, and that each of them came after the one before."""
    return rows, np.arange(len(rows)), np.arange(len(rows)) > 0


@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 2**32 - 1), st.sampled_from([1e-30, 1.0, 1e30]))
@settings(max_examples=60, deadline=None)
def test_the_correlation_is_one_less_half_of_von_neumanns_ratio(n, columns, seed, unit):
    rows = np.random.default_rng(seed).normal(size=(n, columns))
    found = correlation(*all_of((rows * unit).astype(np.float32)))
    np.testing.assert_allclose(found, [by_hand(column) for column in rows.T], rtol=1e-3, atol=1e-4)


def test_rows_are_taken_in_the_order_in_which_they_came():
    rng = np.random.default_rng(1)
    rows, order = autoregressive(rng, 200, 3, 0.8), rng.permutation(200)
    shuffled = np.empty_like(rows)
    shuffled[order] = rows
    np.testing.assert_allclose(correlation(shuffled, order, np.arange(200) > 0), correlation(*all_of(rows)))


def test_the_correlation_is_of_those_rows_that_follow_one_another():
    rows = np.array([[1.0], [5.0], [2.0], [7.0]], np.float32)
    found = correlation(rows, np.arange(4), np.array([False, True, False, True]))
    np.testing.assert_allclose(found, [1 - (4**2 + 5**2) / 2 / 2 / np.var([1, 5, 2, 7], ddof=1)], rtol=1e-6)


def test_the_correlation_of_columns_together_is_of_their_sums():
    """As of classes, each of which is a column of 0 and 1."""
    rows = np.eye(3)[np.random.default_rng(2).choice(3, 30, p=[0.1, 0.3, 0.6])]
    variances = rows.var(axis=0, ddof=1)
    alone = correlation(*all_of(rows))
    together = correlation(*all_of(rows), together=True)
    np.testing.assert_allclose(together, [alone @ variances / variances.sum()])


def test_the_correlation_of_none_and_of_what_does_not_vary():
    assert np.isnan(correlation(*all_of(np.zeros((0, 2))))).all()
    assert np.isnan(correlation(*all_of(np.ones((1, 2))))).all()
    assert np.isnan(correlation(np.arange(6.0)[:, None], np.arange(6), np.zeros(6, bool))).all()
    assert np.isnan(correlation(*all_of(np.full((100, 2), 3.0)))).all()


@pytest.mark.parametrize("r", [0.3, 0.6, 0.9])
def test_the_inflation_is_how_much_more_means_of_a_series_vary(r):
    """Against the means of many series themselves, and the formula of Box and Jenkins."""
    rng, m = np.random.default_rng(2), 2000
    series = autoregressive(rng, m, 400, r)
    of_means = m * float(np.mean(series.mean(axis=0) ** 2))
    found = inflation_of(correlation(*all_of(series)))
    assert of_means == pytest.approx((1 + r) / (1 - r), rel=0.2)
    assert float(np.mean(found)) == pytest.approx((1 + r) / (1 - r), rel=0.1)
    assert float(np.mean(found)) == pytest.approx(of_means, rel=0.2)


def test_each_stream_has_at_least_what_all_have_in_the_mean():
    found = inflation_of(np.array([-0.5, 0.5, 0.9]))
    np.testing.assert_allclose(found, [(1 + 0.3) / (1 - 0.3), 3, 19])
    assert inflation_of(np.array([-0.5, -0.1])).tolist() == [1, 1]
    assert inflation_of(np.array([np.nan, 0.5])).tolist() == [3, 3]  # what does not vary has the mean of the others
    assert (inflation_of(np.array([1.0, 1.0])) > 1e5).all()


@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.floats(0.01, 3))
def test_the_variance_is_at_most_that_of_the_baseline(n, seed, most):
    rows = np.random.default_rng(seed).normal(size=(n, 2))
    own, bounded = (correlation(*all_of(rows), each) for each in (None, np.array([most, 100.0])))
    variance = rows.var(axis=0, ddof=1)
    np.testing.assert_allclose(1 - bounded, (1 - own) * variance / np.minimum(variance, [most, 100]), rtol=1e-6)


# -- what can be seen in a window


@pytest.mark.parametrize(("rows", "first", "burst"), [(30, 20, 10), (30, 10, 20), (200, 80, 20), (200, 80, 60)])
def test_what_begins_or_ends_within_a_window_is_no_dependence(rows, first, burst, calibrated):
    rng, found = np.random.default_rng(40), 0
    for seed in range(8):
        series = rng.normal(size=(rows, 4))
        series[first : first + burst] += 4
        window = in_time(layer_of(series, 700 + seed, like=calibrated))
        found += compare(calibrated, window).drift
    assert found == 8


@pytest.mark.parametrize("r", [0.5, 0.8])
def test_what_is_visible_of_a_series_is_its_inflation(r):
    window = layer_of(autoregressive(np.random.default_rng(3), 2000, 6, r), 5)
    found = visible(window)
    expected = (1 + r) / (1 - r)
    assert set(found.streams) == {POOL, *(f"{POOL}/{number}" for number in range(6))}
    assert found.streams[POOL] == pytest.approx(expected, rel=0.25)
    assert found.effective_rows(2000) == pytest.approx(2000 / expected, rel=0.25)
    assert (found.blocks[POOL, "distributions"] > 1).all()
    assert found.known.startswith(f"successive rows resemble each other in {POOL} (correlation 0.")
    assert found.rows == 2000
    assert not found.inside
    assert found.others == found.of_stream("metadata/speed", 2000) == pytest.approx(expected, rel=0.25)


def test_it_is_visible_in_a_sample_of_many_rows():
    """2,000 of 20,000 rows are kept, and 200 of them came directly after another."""
    window = layer_of(autoregressive(np.random.default_rng(4), 20_000, 3, 0.9), 6)
    assert visible(window).streams[POOL] == pytest.approx(19, rel=0.4)


def test_independent_rows_are_hardly_ever_taken_for_a_series():
    """About 1 in 600, in the mean of several columns fewer."""
    rng, seen = np.random.default_rng(5), 0
    for seed in range(500):
        rows = rng.normal(size=(int(rng.choice([30, 100, 300])), 1))
        rows = np.exp(rows) if seed % 2 else rows
        seen += visible(make_profile({POOL: rows}, seed=seed)) is not INDEPENDENT
    assert seen <= 3


@pytest.mark.parametrize("shift", [3, 1000])
def test_a_shift_of_all_rows_does_not_look_like_dependence(shift, calibrated):
    rows = np.random.default_rng(6).normal(size=(300, 4)) + shift
    window = layer_of(rows, 7)
    assert visible(window, calibration_of(calibrated)) is INDEPENDENT
    report = compare(calibrated, window)
    assert report.drift
    assert math.isnan(report.effective_rows)


def test_rows_that_are_unlike_those_before_them_are_not_dependent():
    assert visible(layer_of(autoregressive(np.random.default_rng(7), 1000, 3, -0.6), 8)) is INDEPENDENT


def test_a_change_within_the_window_does_not_look_like_dependence(plain):
    rows = np.random.default_rng(6).normal(size=(200, 4))
    rows[160:] += 3
    assert visible(layer_of(rows, 7), before=plain.rows.data) is INDEPENDENT
    assert visible(layer_of(rows, 7)) is not INDEPENDENT  # without a baseline's rows it cannot be told


@pytest.mark.parametrize("rows", [1, 2, 10, 15])
def test_few_rows_show_nothing_and_sixteen_may(rows):
    assert visible(layer_of(np.linspace(0, 1, rows)[:, None], 9)) is INDEPENDENT
    assert visible(layer_of(np.linspace(0, 1, 100)[:, None], 9, rows=100)) is not INDEPENDENT
    assert visible(layer_of(np.linspace(0, 1, 25)[:, None], 9)) is not INDEPENDENT


def test_without_a_sample_of_rows_nothing_is_visible():
    assert visible(layer_of(autoregressive(np.random.default_rng(8), 500, 3, 0.9), 9, rows=0)) is INDEPENDENT


def test_labels_are_not_looked_at():
    profiler, rng = Profiler(seed=0), np.random.default_rng(9)
    profiler.update(outputs=rng.normal(size=(400, 3)), labels=np.sort(rng.integers(0, 3, 400)))
    window = profiler.profile()
    assert any("labels" in name for name in window.rows.data)
    assert visible(window) is INDEPENDENT


def test_what_is_not_looked_at_counts_as_little_as_what_is():
    """Labels and custom measures of frames of a scene are of that scene as well: as the group that has most."""
    profiler, rng = Profiler(seed=0), np.random.default_rng(9)
    profiler.update(
        outputs=autoregressive(rng, 1000, 3, 0.5),
        embeddings={"pool": autoregressive(rng, 1000, 4, 0.9)},
        labels=rng.integers(0, 3, 1000),
    )
    found = visible(profiler.profile())
    most = found.streams[POOL]
    assert found.streams["outputs"] == pytest.approx(3, rel=0.25)
    assert most == pytest.approx(19, rel=0.4)
    for name in ("labels", "labels/age", "inputs/custom", f"{POOL}/invalid"):
        assert found.of_stream(name, 1000) == found.others == pytest.approx(most, rel=0.15)
    assert found.known == (
        "successive rows resemble each other in outputs, outputs/top_class, embeddings/pool (correlation 0.90)"
    )


@pytest.fixture(scope="module")
def by_brightness():
    """Images in the order of their brightness, of which a data set's profile was made, and a baseline of others."""
    rng = np.random.default_rng(10)
    bright = np.sort(rng.integers(20, 230, 240))[:, None, None, None]
    images = np.clip(bright * rng.uniform(0.7, 1.0, (240, 8, 8, 3)), 0, 255).astype(np.uint8)
    stored = profile_dataset([(image, 0) for image in images], seed=1)
    baseline = profile_dataset([(image, 0) for image in rng.permutation(images)], seed=2)
    return images, stored, baseline


def test_of_a_data_set_that_is_sorted_it_is_said_and_no_more(by_brightness):
    """Rows count in full whatever their order: the verdict is that of the same rows in any other."""
    images, stored, baseline = by_brightness
    assert visible(stored).effective_rows(240) < 120
    report = compare(baseline, stored)
    assert math.isnan(report.effective_rows)
    (said,) = (note for note in report.notes if "successive rows resemble each other" in note)
    assert "they count in full, as those of a sorted data set do" in said
    assert "a DriftMonitor allows for that" in said
    shuffled = profile_dataset([(image, 0) for image in np.random.default_rng(0).permutation(images)], seed=3)
    in_any_order = compare(baseline, shuffled)
    assert not any("resemble" in note for note in in_any_order.notes)
    p_values, others = (
        {stream.stream: stream.p_value for group in each.groups for stream in group.streams}
        for each in (report, in_any_order)
    )
    assert p_values == pytest.approx(others, nan_ok=True)
    came = compare(baseline, in_time(stored))
    assert came.effective_rows < 120
    assert any(note.startswith("240 rows count as ") for note in came.notes)


def test_rows_came_in_time_only_if_all_did(by_brightness):
    images, stored, baseline = by_brightness
    profiler = Profiler(like=stored, seed=2)
    profiler.update(inputs=images)
    other = profiler.profile()
    for merged in (in_time(stored).merge(other), other.merge(in_time(stored))):
        assert math.isnan(compare(baseline, merged).effective_rows)
    assert compare(baseline, in_time(stored).merge(in_time(other))).effective_rows < 240


@pytest.mark.parametrize("like_the_baseline", [True, False])
def test_rows_sorted_by_class_count_in_full(like_the_baseline):
    """Of 1,000 such rows a shift of one logit in ten is found, as by rows in any order."""
    rng = np.random.default_rng(11)
    centres = 2 * rng.normal(size=(10, 10))

    def of(n, seed, shift=0.0, like=None):
        profiler, classes = Profiler(seed=seed, like=like, source="validation"), np.sort(rng.integers(0, 10, n))
        logits = centres[classes] + rng.normal(size=(n, 10))
        logits[:, 3] += shift * logits[:, 3].std()
        profiler.update(outputs=logits if like else rng.permutation(logits))
        return profiler.profile()

    reference = of(2000, 1)
    baseline = calibrate(reference, draws=200) if like_the_baseline else reference
    assert not compare(baseline, of(1000, 2, like=reference)).drift
    report = compare(baseline, of(1000, 3, shift=0.6, like=reference))
    assert any("they count in full" in note for note in report.notes)
    assert report.moved[0].stream in ("outputs/3", "outputs/softmax/3")


def test_a_column_that_does_not_vary_is_as_the_others_are_in_the_mean():
    rng = np.random.default_rng(11)
    series = autoregressive(rng, 600, 3, 0.7)
    series[:, 1] = 5
    first, constant, last = visible(layer_of(series, 10)).blocks[POOL, "distributions"]
    mean = np.mean([(each - 1) / (each + 1) for each in (first, last)])  # correlations; none is below their mean
    assert constant == min(first, last)
    assert (constant - 1) / (constant + 1) == pytest.approx(mean, abs=0.05)
    independent = rng.normal(size=(600, 3))
    independent[:, 1] = 5
    assert visible(layer_of(independent, 11)) is INDEPENDENT
    assert visible(layer_of(np.full((600, 3), 5.0), 12)) is INDEPENDENT


def test_rows_that_are_not_finite_are_in_no_pair():
    rng = np.random.default_rng(12)
    series = autoregressive(rng, 2000, 3, 0.8)
    series[rng.random(2000) < 0.3, 1] = np.nan
    series[rng.random(2000) < 0.1, 2] = np.inf
    assert visible(layer_of(series, 13)).streams[POOL] == pytest.approx(9, rel=0.25)
    series[:] = np.nan
    assert visible(layer_of(series, 14)) is INDEPENDENT


def answers(rng, n, stay, classes=3):
    """Logits whose largest stays where it is with a probability, and is drawn anew otherwise."""
    top = rng.integers(0, classes, n)
    for number in range(1, n):
        top[number] = top[number - 1] if rng.random() < stay else top[number]
    return rng.uniform(0, 1, (n, classes)) + 5 * np.eye(classes)[top]


@pytest.mark.parametrize("stay", [0.5, 0.8])
def test_the_top_class_stays_as_a_markov_chain_does(stay):
    """Its indicators are correlated by the probability to stay, whatever the class."""
    profiler, rng = Profiler(seed=1), np.random.default_rng(13)
    logits = answers(rng, 2000, stay)
    logits[::50] = np.nan  # the model has no answer
    profiler.update(outputs=logits)
    found = visible(profiler.profile())
    assert found.streams["outputs/top_class"] == pytest.approx((1 + stay) / (1 - stay), rel=0.25)


def test_a_top_class_that_never_changes_is_no_series():
    profiler, rng = Profiler(seed=1), np.random.default_rng(14)
    profiler.update(outputs=rng.uniform(0, 1, (500, 3)) + np.array([5, 0, 0]))
    assert visible(profiler.profile()) is INDEPENDENT


@pytest.mark.parametrize("top", [5, 0], ids=["never changes", "changes"])
def test_a_top_class_has_at_least_what_its_outputs_have(top):
    """A scene of one class alone says nothing of how long it lasts."""
    profiler, rng = Profiler(seed=1), np.random.default_rng(14)
    profiler.update(outputs=autoregressive(rng, 1000, 3, 0.9) / 10 + np.array([top, 0, 0]))
    found = visible(profiler.profile())
    assert found.streams["outputs/top_class"] >= 0.999 * found.streams["outputs"] > 5
    assert found.blocks["outputs/top_class", "class_shares"] == found.streams["outputs/top_class"]


def test_more_classes_than_can_be_looked_at_are_not():
    profiler, rng = Profiler(seed=1), np.random.default_rng(14)
    profiler.update(outputs=50 * np.eye(300)[np.repeat(np.arange(300), 2)] + rng.normal(size=(600, 300)))
    found = visible(profiler.profile())
    assert found.streams["outputs/top_class"] == pytest.approx(found.streams["outputs"])  # not by its own classes


def test_blocks_of_whole_rows_are_inflated_too(calibrated):
    window = layer_of(autoregressive(np.random.default_rng(15), 1500, 4, 0.8), 15, like=calibrated)
    found = visible(window, calibration_of(calibrated))
    assert {kind for _, kind in found.blocks} == {part.block.kind for part in calibration_of(calibrated).parts}
    for part in calibration_of(calibrated).parts:
        each = found.blocks[POOL, part.block.kind]
        assert each.shape == ((4,) if part.block.kind == "distributions" else (part.block.width,))
        assert ((each >= 1) & (each <= 1500)).all()
    assert found.blocks[POOL, "bounded_components"] == pytest.approx([9] * 4, rel=0.35)


# -- what is made of it


def ratios(calibrated, inflation, m, n, rows=None, inside=False):
    """What deviations of a block are multiplied by."""
    part = next(each for each in calibration_of(calibrated).parts if each.block.kind == "distributions")
    known = Inflation(rows or m, {(part.rows, part.block.kind): np.full(4, inflation)}, inside=inside)
    return known.of(replace(part, n=n), m)


@given(st.floats(1, 1e6), st.integers(1, 10**6), st.integers(1, 10**6))
@settings(deadline=None)
def test_the_ratio_is_that_of_standard_deviations_of_a_difference_of_means(calibrated, inflation, m, n):
    found = ratios(calibrated, inflation, m, n)
    fewer = min(inflation, m)  # no window counts less than one row
    assert found.dtype == np.float32
    np.testing.assert_allclose(found**2 * (fewer / m + 1 / n), 1 / m + 1 / n, rtol=1e-5)
    np.testing.assert_allclose(ratios(calibrated, inflation, m, n, inside=True), fewer**-0.5, rtol=1e-5)
    np.testing.assert_allclose(ratios(calibrated, 0.5, m, n), 1, rtol=1e-6)


def test_of_a_sample_rows_are_further_apart_and_depend_less_on_each_other(calibrated):
    """1 + 2 times the sum of all correlations, of which those of the sampled rows are so many fewer."""
    np.testing.assert_allclose(
        ratios(calibrated, 21.0, 100, 500, rows=1000), ratios(calibrated, 3.0, 100, 500), rtol=1e-6
    )
    np.testing.assert_allclose(ratios(calibrated, 21.0, 100, 500, rows=50), ratios(calibrated, 21.0, 100, 500))


def test_of_what_nothing_is_known_nothing_is_multiplied(calibrated):
    assert INDEPENDENT.of(calibration_of(calibrated).parts[0], 100) is None
    assert Inflation(100, others=5.0).of(calibration_of(calibrated).parts[0], 100) is None


def test_a_stream_has_its_own_inflation_or_that_of_all_others():
    known = Inflation(100, streams={"a": 4.0, "b": 0.5, "c": 500.0}, others=9.0)
    assert [known.of_stream(name, 100) for name in "abcd"] == [4, 1, 100, 9]
    assert (known.of_stream("d", 5), known.of_stream("d", 0), INDEPENDENT.of_stream("d", 100)) == (5, 1, 1)


@given(
    st.lists(st.integers(20, 200), min_size=2, max_size=6),
    st.lists(st.integers(20, 200), min_size=6, max_size=6),
)
@settings(max_examples=30, deadline=None)
def test_the_chi_square_distance_is_the_statistic_of_counts_in_variances_of_a_row(before, after):
    one, two = np.array(before), np.array(after[: len(before)])
    n, m = one.sum(), two.sum()
    distance, freedom = chi_square_distance(one, two, n, m)
    known = chi2_contingency(np.stack([one, two]), correction=False)
    assert (distance / (1 / n + 1 / m), freedom) == (pytest.approx(known.statistic, abs=1e-9), known.dof)
    assert chi_square_p_value(one, two, n, m)[0] == pytest.approx(known.pvalue)
    assert chi_square_distance(one[:1], two[:1], one[0], two[0]) == (0, 0)


def groups_of(numbers=None, categories=None):
    return make_profile(numbers, categories=categories).groups


@pytest.mark.parametrize("own", [True, False], ids=["of its own", "as all others"])
def test_p_values_by_formulas_are_those_of_fewer_rows(own):
    """Of numbers, classes and rows that are not finite: those of a quarter of the window's rows."""
    rng = np.random.default_rng(32)
    sides = []
    for n, shift, classes in ((300, 0.0, 3), (120, 0.3, 4)):
        rows = rng.normal(size=(n, 2)) + shift
        rows[rng.random(n) < 0.1 + shift / 3] = np.nan
        sides.append(groups_of({"g": rows}, {"g/top": rng.integers(0, classes, n).astype(str)})["g"])
    a, b = map(Side.of, sides)
    names = ["g/0", "g/1", "g/top", "g/invalid"]
    inflation = Inflation(120, streams=dict.fromkeys(names, 4.0)) if own else Inflation(120, others=4.0)
    plain, fewer = (
        {stream.stream: stream for stream in compare_group(a, b, (), each).streams} for each in (INDEPENDENT, inflation)
    )
    assert plain.keys() == fewer.keys() == {*names}
    for name in names[:2]:
        assert fewer[name].raw_p_value == pytest.approx(
            float(ks_p_value(np.array(plain[name].effect), a.n, b.n / 4)), rel=1e-6
        )
    before, after = (np.array([dict(side.categories["top"].top(9)).get(str(k), 0) for k in range(4)]) for side in sides)
    assert fewer["g/top"].raw_p_value == pytest.approx(category_p_value(before, after / 4, 300, 30))
    left_out = np.array([a.n, a.invalid]), np.array([b.n, b.invalid]) / 4
    assert fewer["g/invalid"].raw_p_value == pytest.approx(category_p_value(*left_out, 300, 30))
    for name in names:
        assert fewer[name].raw_p_value > plain[name].raw_p_value
        assert fewer[name].effect == plain[name].effect  # which is no matter of chance


def test_counts_of_fewer_rows_need_not_be_whole():
    before, after = np.array([500, 500, 0]), np.array([30.4, 9.6, 2.6])
    for formula in (category_p_value, labels_p_value):
        assert 0 < formula(before, after, 1000, 42.6) < 0.01
        assert formula(before, after / 40, 1000, 42.6 / 40) > 0.05


@pytest.mark.parametrize("columns", [1, 4, 20])
def test_the_p_value_of_rows_as_wholes_is_that_of_fewer_rows(columns):
    """Means that are off four times as much, and count as a sixteenth of the rows: p-values are as of independent ones.

    A window of m rows around a mean of its own has an inflation of 1 + m times that mean's variance, whatever m.
    """
    rng, found = np.random.default_rng(30), {"scenes": [], "independent": [], "scenes, all rows count": []}
    baseline = make_profile({POOL: rng.normal(size=(20_000, columns))}, vectors=(POOL,), keep=500)
    (group,) = baseline.groups.values()
    ours, m = Side.of(group, baseline.rows.data[POOL]), 160
    for _ in range(60):
        for name, p_values in found.items():
            spread = 0.0 if name == "independent" else 0.3062  # sqrt(15 / 160)
            made = make_profile({POOL: scene(rng, m, columns, spread)}, vectors=(POOL,), like=baseline, keep=9)
            inflation = Inflation(m, streams={POOL: 16.0}) if name == "scenes" else INDEPENDENT
            test = compare_group(ours, Side.of(made.groups[POOL]), (), inflation).vectors.test
            p_values.append(test.p_value)
    shares = {name: np.mean(np.array(p_values) < 0.05) for name, p_values in found.items()}
    assert shares["independent"] < 0.17
    assert shares["scenes"] < 0.17
    assert shares["scenes, all rows count"] > 0.4


def test_effective_rows_are_those_of_the_group_that_has_fewest():
    inflation = Inflation(
        100,
        {
            ("a", "distributions"): np.array([2.0, 4.0]),
            ("b", "distributions"): np.array([2.0, 2.0]),
            ("a", "kernel"): np.array([50.0]),
        },
        {"b": 10.0},
        others=20.0,
    )
    assert inflation.effective_rows(100) == pytest.approx(37.5)
    assert Inflation(100, {("a", "distributions"): np.array([500.0])}).effective_rows(100) == pytest.approx(1)
    assert INDEPENDENT.effective_rows(100) == 100


def test_an_inflation_of_one_changes_nothing(calibrated):
    calibration = calibration_of(calibrated)
    window = layer_of(np.random.default_rng(16).normal(size=(100, 4)), 16, like=calibrated)
    ones = Inflation(
        100,
        {
            (part.rows, part.block.kind): np.ones(4 if part.block.kind == "distributions" else part.block.width)
            for part in calibration.parts
        },
    )
    plain, inflated = (corrected_statistics(calibration, window, None, each) for each in (INDEPENDENT, ones))
    for one, other in zip(plain, inflated, strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-4, atol=1e-5)
        assert other.inflation == pytest.approx(1, rel=1e-4)


def test_the_effect_of_rows_as_wholes_is_none_of_how_much_they_count(calibrated):
    """A shift stands for so many rows, however few independent ones tell it."""
    calibration = calibration_of(calibrated)
    window = layer_of(np.random.default_rng(33).normal(size=(400, 4)) + 0.5, 16, like=calibrated)
    inflation = Inflation(
        400,
        {
            (part.rows, part.block.kind): np.full(4 if part.block.kind == "distributions" else part.block.width, 9.0)
            for part in calibration.parts
        },
    )
    plain, inflated = (corrected_statistics(calibration, window, None, each) for each in (INDEPENDENT, inflation))
    for one, other in zip(plain, inflated, strict=True):
        assert one.inflation == 1
        assert np.abs(other.values).max() < np.abs(one.values).max()
        if one.part.block.kind == "distributions":
            assert other.inflation == 1
        else:
            expected = (9 / 400 + 1 / one.part.n) / (1 / 400 + 1 / one.part.n)
            assert other.inflation == pytest.approx(expected, rel=1e-3)
    one, other = (next(b for b in each if b.part.block.kind == "bounded_components") for each in (plain, inflated))
    assert 0.5 * beyond_chance(one) < beyond_chance(other) < beyond_chance(one)  # chance has a larger part in it


def test_the_share_of_rows_of_a_shift_of_many_columns_is_told_of_a_series():
    """0.15 in each of 20 columns is 0.67 standard deviations of rows as wholes: 2 Phi(0.335) - 1 = 0.26 of the rows."""
    rng = np.random.default_rng(34)
    baseline = calibrate(layer_of(rng.normal(size=(2000, 20)), 1), draws=200)
    for seed in range(3):
        window = in_time(layer_of(autoregressive(rng, 2000, 20, 0.8) + 0.15, seed, like=baseline))
        report = compare(baseline, window)
        assert report.effective_rows == pytest.approx(2000 / 9, rel=0.25)
        assert report.groups[0].vectors.drift
        assert report.groups[0].vectors.effect == pytest.approx(0.26, abs=0.06)


@pytest.mark.parametrize("kind", ["plain", "calibrated"])
def test_a_series_counts_as_fewer_rows_and_a_real_shift_still_shows(kind, plain, calibrated):
    baseline = {"plain": plain, "calibrated": calibrated}[kind]
    rng = np.random.default_rng(17)
    windows = [layer_of(autoregressive(rng, 400, 4, 0.95), 100 + seed, like=plain) for seed in range(15)]
    reports = [compare(baseline, in_time(window)) for window in windows]
    assert [report.drift for report in reports].count(True) <= 1
    for report in reports:
        assert 2 <= report.effective_rows <= 30  # 400 / 39 of an endless series
        (said,) = (note for note in report.notes if "successive rows resemble each other" in note)
        assert said.startswith(f"400 rows count as {report.effective_rows:,.0f} independent ones: ")
        assert "independent ones" in str(report)
    shifted = layer_of(autoregressive(rng, 400, 4, 0.95) + 4, 200, like=plain)
    assert compare(baseline, in_time(shifted)).drift
    reports = [compare(baseline, window) for window in windows]
    assert [report.drift for report in reports].count(True) >= 12  # what it is of a data set
    assert all("they count in full" in str(report) for report in reports)


@pytest.mark.parametrize("correction", ["holm", "benjamini-hochberg"])
def test_other_corrections_are_of_fewer_rows_too(correction, calibrated):
    rng = np.random.default_rng(18)
    windows = [in_time(layer_of(autoregressive(rng, 400, 4, 0.95), 300 + at, like=calibrated)) for at in range(10)]
    reports = [compare(calibrated, window, correction=correction) for window in windows]
    assert [report.drift for report in reports].count(True) <= 1
    assert all(report.effective_rows < 40 for report in reports)


@pytest.mark.parametrize("classes", [2, 12])
def test_a_top_class_that_stays_is_no_drift_by_formulas(classes):
    """Neither is the shares of many classes, each of which is off by as much."""
    rng = np.random.default_rng(31)

    def of(n, stay, seed, like=None):
        profiler = Profiler(seed=seed, like=like, rows=2000)
        profiler.update(outputs=answers(rng, n, stay, classes))
        return in_time(profiler.profile())

    baseline = of(4000, 0.0, 1)
    p_values = []
    for seed in range(40):
        (group,) = compare(baseline, of(300, 0.85, 50 + seed, baseline), correction="holm").groups
        p_values += [stream.raw_p_value for stream in group.streams if stream.stream == "outputs/top_class"]
    assert len(p_values) == 40
    assert np.mean(np.array(p_values) < 0.05) <= 0.175


def test_of_independent_rows_nothing_is_said(calibrated):
    report = compare(
        calibrated, in_time(layer_of(np.random.default_rng(19).normal(size=(200, 4)), 20, like=calibrated))
    )
    assert math.isnan(report.effective_rows)
    assert not any("independent one" in note for note in report.notes)


def test_segments_count_as_little():
    rng = np.random.default_rng(20)

    def segmented(seed, outputs):
        profiler = Profiler(seed=seed, segment_by="label")
        profiler.update(outputs=outputs, labels=np.arange(len(outputs)) % 2)
        return profiler.profile()

    baseline = segmented(1, rng.normal(size=(1000, 3)))
    window = segmented(2, autoregressive(rng, 400, 3, 0.95))
    inflation = visible(window)
    plain, fewer = compare_segments(baseline, window), compare_segments(baseline, window, inflation)
    compared = 0
    for one, other in zip(plain.segments, fewer.segments, strict=True):
        for group, wider in zip(one.groups, other.groups, strict=True):
            for stream, of_fewer in zip(group.streams, wider.streams, strict=True):
                if stream.stream in inflation.streams and stream.raw_p_value < 0.5:
                    assert of_fewer.raw_p_value > stream.raw_p_value
                    compared += 1
    assert compared
    assert compare(baseline, window).drift
    assert not compare(baseline, in_time(window)).drift
