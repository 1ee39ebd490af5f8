"""Rows that resemble those before them: how much they do, and what a verdict makes of it."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from dependent import autoregressive, layer_of
from hypothesis import given, settings
from hypothesis import strategies as st
from made_profiles import make_profile
from scipy.stats import norm

from lensai_integrations import Profile, Profiler, calibrate, compare, profile_dataset
from lensai_integrations.drift.calibration import calibration_of
from lensai_integrations.drift.compare import compare_segments
from lensai_integrations.drift.dependence import (
    Inflation,
    correlation,
    distance_of_p,
    inflation_of,
    p_of_distance,
    visible,
)
from lensai_integrations.drift.max_t import corrected_statistics
from lensai_integrations.drift.result import GroupDrift, StreamDrift

POOL = "embeddings/pool"


@pytest.fixture(scope="module")
def plain():
    return layer_of(np.random.default_rng(1).normal(size=(2000, 4)), 1, source="validation")


@pytest.fixture(scope="module")
def calibrated(plain):
    return calibrate(plain, draws=200)


# -- correlations


@given(st.integers(2, 30), st.integers(1, 4), st.integers(0, 2**32 - 1), st.sampled_from([1e-30, 1.0, 1e30]))
@settings(max_examples=60, deadline=None)
def test_the_correlation_is_one_less_half_of_von_neumanns_ratio(n, columns, seed, unit):
    rows = np.random.default_rng(seed).normal(size=(n, columns))
    expected = []
    for column in rows.T:
        successive = sum((after - before) ** 2 for before, after in pairwise(column)) / (n - 1)
        variance = sum((value - sum(column) / n) ** 2 for value in column) / n
        expected.append(1 - successive / variance / 2)
    found = correlation((rows * unit).astype(np.float32), np.ones(n, bool), np.arange(n - 1), np.arange(1, n))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_the_correlation_is_of_those_rows_that_are_usable_and_follow_one_another():
    rows = np.array([[1.0], [5.0], [np.nan], [2.0], [7.0]], np.float32)
    usable = np.isfinite(rows[:, 0])
    found = correlation(rows, usable, np.array([0, 3]), np.array([1, 4]))
    expected = 1 - (4**2 + 5**2) / 2 / 2 / np.var([1, 5, 2, 7])
    np.testing.assert_allclose(found, [expected])


@pytest.mark.parametrize("r", [0.3, 0.6, 0.9])
def test_the_inflation_is_how_much_more_means_of_a_series_vary(r):
    """Against the means of many series themselves, and the formula of Box and Jenkins."""
    rng, m = np.random.default_rng(2), 2000
    series = autoregressive(rng, m, 400, r)
    of_means = m * float(np.mean(series.mean(axis=0) ** 2))
    found = inflation_of(correlation(series, np.ones(m, bool), np.arange(m - 1), np.arange(1, m)))
    assert of_means == pytest.approx((1 + r) / (1 - r), rel=0.2)
    assert float(np.mean(found)) == pytest.approx((1 + r) / (1 - r), rel=0.1)
    assert float(np.mean(found)) == pytest.approx(of_means, rel=0.2)


def test_each_stream_has_at_least_what_all_have_in_the_mean():
    found = inflation_of(np.array([-0.5, 0.5, 0.9]))
    np.testing.assert_allclose(found, [(1 + 0.3) / (1 - 0.3), 3, 19])
    assert inflation_of(np.array([-0.5, -0.1])).tolist() == [1, 1]
    assert inflation_of(np.array([0.2]), least=0.5).tolist() == [3]
    still, moving = inflation_of(np.array([np.nan, 0.5]))
    assert still > 1e5
    assert moving == 3
    assert (inflation_of(np.array([np.nan, np.nan])) > 1e5).all()


# -- what can be seen in a window


@pytest.mark.parametrize("r", [0.5, 0.8])
def test_what_is_visible_of_a_series_is_its_inflation(r):
    window = layer_of(autoregressive(np.random.default_rng(3), 2000, 6, r), 5)
    found = visible(window)
    expected = (1 + r) / (1 - r)
    assert set(found.streams) == {POOL, *(f"{POOL}/{number}" for number in range(6))}
    assert found.streams[POOL] == pytest.approx(expected, rel=0.25)
    assert found.effective_rows(2000) == pytest.approx(2000 / expected, rel=0.25)
    assert (found.blocks[POOL, "distributions"] > 1).all()
    assert POOL in found.known
    assert "correlation" in found.known


def test_it_is_visible_in_a_sample_of_many_rows():
    """2,000 of 20,000 rows are kept, and 200 of them came directly after another."""
    window = layer_of(autoregressive(np.random.default_rng(4), 20_000, 3, 0.9), 6)
    assert visible(window).streams[POOL] == pytest.approx(19, rel=0.4)


def test_independent_rows_are_hardly_ever_taken_for_a_series():
    """1 in 740 is what a normal distribution has beyond three standard errors on one side."""
    rng, seen = np.random.default_rng(5), 0
    for seed in range(300):
        rows = rng.normal(size=(int(rng.choice([30, 100, 300])), int(rng.choice([1, 3]))))
        rows = np.exp(rows) if seed % 2 else rows
        seen += visible(make_profile({POOL: rows}, seed=seed)) is not None
    assert seen <= 4


@pytest.mark.parametrize("shift", [3, 1000])
def test_a_shift_of_all_rows_does_not_look_like_dependence(shift, calibrated):
    rows = np.random.default_rng(6).normal(size=(300, 4)) + shift
    window = layer_of(rows, 7)
    assert visible(window, calibration_of(calibrated)) is None
    report = compare(calibrated, window)
    assert report.drift
    assert math.isnan(report.effective_rows)


def test_rows_that_are_unlike_those_before_them_are_not_dependent():
    assert visible(layer_of(autoregressive(np.random.default_rng(7), 1000, 3, -0.6), 8)) is None


@pytest.mark.parametrize("rows", [1, 2, 9, 10])
def test_few_rows_show_nothing(rows):
    assert visible(layer_of(np.linspace(0, 1, rows)[:, None], 9)) is None


def test_without_a_sample_of_rows_nothing_is_visible():
    assert visible(layer_of(autoregressive(np.random.default_rng(8), 500, 3, 0.9), 9, rows=0)) is None


def test_labels_are_not_looked_at():
    profiler, rng = Profiler(seed=0), np.random.default_rng(9)
    profiler.update(outputs=rng.normal(size=(400, 3)), labels=np.sort(rng.integers(0, 3, 400)))
    window = profiler.profile()
    assert any("labels" in name for name in window.rows.data)
    assert visible(window) is None


def test_a_data_set_that_was_profiled_as_it_is_stored_may_be_sorted(tmp_path):
    rng = np.random.default_rng(10)
    bright = np.sort(rng.integers(20, 230, 240))
    images = np.clip(bright[:, None, None, None] + rng.integers(-20, 20, (240, 8, 8, 3)), 0, 255).astype(np.uint8)
    stored = profile_dataset([(image, 0) for image in images], seed=1)
    assert stored.info["order"] == "as stored"
    loaded = Profile.load(stored.save(tmp_path / "p"))
    baseline = profile_dataset([(image, 0) for image in rng.permutation(images)], seed=2)
    merged = stored.merge(profile_dataset([(image, 0) for image in images], seed=3))
    for profile in (stored, loaded, merged):
        assert len(profile.rows.successive()[0]) > 100
        assert visible(profile) is None
        assert math.isnan(compare(baseline, profile).effective_rows)
    del loaded.info["order"]
    assert visible(loaded).effective_rows(240) < 24  # which only what is said of the order tells apart


def test_a_data_set_stays_as_it_is_stored_when_other_rows_are_put_to_it():
    rng = np.random.default_rng(10)
    bright = np.sort(rng.integers(20, 230, 240))
    images = np.clip(bright[:, None, None, None] + rng.integers(-20, 20, (240, 8, 8, 3)), 0, 255).astype(np.uint8)
    stored = profile_dataset([(image, 0) for image in images], seed=1)
    profiler = Profiler(like=stored, seed=2)
    profiler.update(inputs=rng.permutation(images))
    assert visible(stored.merge(profiler.profile())) is None
    assert visible(profiler.profile().merge(stored)) is None


def test_constant_columns_are_as_those_that_change_most_slowly():
    rng = np.random.default_rng(11)
    series = autoregressive(rng, 600, 3, 0.7)
    series[:, 1] = 5
    assert visible(layer_of(series, 10)).blocks[POOL, "distributions"][1] == 600
    independent = rng.normal(size=(600, 3))
    independent[:, 1] = 5
    assert visible(layer_of(independent, 11)) is None
    assert visible(layer_of(np.full((600, 3), 5.0), 12)) is None


def test_rows_that_are_not_finite_are_in_no_pair():
    rng = np.random.default_rng(12)
    series = autoregressive(rng, 2000, 3, 0.8)
    series[rng.random(2000) < 0.3, 1] = np.nan
    series[rng.random(2000) < 0.1, 2] = np.inf
    assert visible(layer_of(series, 13)).streams[POOL] == pytest.approx(9, rel=0.25)
    series[:] = np.nan
    assert visible(layer_of(series, 14)) is None


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
    assert visible(profiler.profile()) is None


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


@given(st.floats(1, 1e6), st.integers(1, 10**6), st.integers(1, 10**6))
@settings(deadline=None)
def test_the_ratio_is_that_of_standard_deviations_of_a_difference_of_means(inflation, m, n):
    ratio = float(Inflation.ratio(inflation, m, n))
    assert ratio**2 * (inflation / m + 1 / n) == pytest.approx(1 / m + 1 / n)
    assert Inflation.ratio(1.0, m, n) == pytest.approx(1)


@given(st.floats(1e-250, 1))
def test_p_values_are_distances_of_a_normal_distribution(p_value):
    distance = distance_of_p(p_value)
    assert distance == pytest.approx(norm.isf(p_value / 2), rel=1e-9, abs=1e-9)
    assert p_of_distance(distance) == pytest.approx(p_value, rel=1e-6)


def test_p_values_at_their_ends():
    assert 30 < distance_of_p(0) < 50
    assert (distance_of_p(1), p_of_distance(0), p_of_distance(-1)) == (0, 1, 1)


def test_p_values_by_formulas_are_those_of_fewer_rows():
    """One that is 3 standard deviations out of 100 rows is 1.5 out where they count as 25, from a huge baseline."""
    p_value = float(2 * norm.sf(3))
    streams = tuple(StreamDrift(f"g/{name}", "numbers", "", False, 0.2, p_value, p_value) for name in "ab")
    streams += (StreamDrift("g/c", "pixels", "", False, 0.2, math.nan, math.nan),)
    group = GroupDrift("g", 10**9, 100, 0, 0, streams)
    widened = Inflation(streams={"g/a": 4.0, "g/c": 4.0}).widened(group)
    expected = 2 * norm.sf(1.5)
    assert widened.streams[0].raw_p_value == pytest.approx(expected, rel=1e-5)
    assert widened.streams[1] == group.streams[1]
    assert math.isnan(widened.streams[2].raw_p_value)
    assert Inflation().widened(group).streams[:2] == group.streams[:2]


@pytest.mark.parametrize("columns", [1, 4, 20])
def test_the_p_value_of_rows_as_wholes_is_that_of_fewer_rows(columns):
    """Means that are off four times as much, and count as a sixteenth of the rows: p-values are as of independent ones.

    A window of m rows around a mean of its own has an inflation of 1 + m times that mean's variance, whatever m.
    """
    rng, of_series, independent = np.random.default_rng(30), [], []
    baseline = make_profile({POOL: rng.normal(size=(20_000, columns))}, vectors=(POOL,), keep=500)
    inflation, m = Inflation(streams={POOL: 16.0}), 160
    for _ in range(60):
        around = 0.3062 * rng.normal(size=columns)  # sqrt(15 / 160)
        for found, centre in ((of_series, around), (independent, 0)):
            window = make_profile(
                {POOL: rng.normal(size=(m, columns)) + centre}, vectors=(POOL,), like=baseline, keep=9
            )
            (group,) = compare(baseline, window, correction="holm").groups
            group = inflation.widened(group) if found is of_series else group
            found.append(group.vectors.test.p_value)
    assert np.mean(np.array(independent) < 0.05) < 0.17
    assert np.mean(np.array(of_series) < 0.05) < 0.17


def test_effective_rows_are_those_of_the_group_that_has_fewest():
    inflation = Inflation(
        {("a", "distributions"): np.array([2.0, 4.0]), ("a", "kernel"): np.array([50.0])}, {"b": 10.0}
    )
    assert inflation.effective_rows(100) == pytest.approx(10)
    assert Inflation({("a", "distributions"): np.array([2.0, 4.0])}).effective_rows(100) == pytest.approx(37.5)
    assert Inflation({("a", "distributions"): np.array([500.0])}).effective_rows(100) == pytest.approx(1)
    assert Inflation().effective_rows(100) == 100


def test_an_inflation_of_one_changes_nothing(calibrated):
    calibration = calibration_of(calibrated)
    window = layer_of(np.random.default_rng(16).normal(size=(100, 4)), 16, like=calibrated)
    ones = Inflation(
        {
            (part.rows, part.block.kind): np.ones(4 if part.block.kind == "distributions" else part.block.width)
            for part in calibration.parts
        }
    )
    plain, inflated = (corrected_statistics(calibration, window, None, each) for each in (None, ones))
    for one, other in zip(plain, inflated, strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "calibrated"])
def test_a_dependent_window_is_widened_and_a_real_shift_still_shows(kind, plain, calibrated, monkeypatch):
    baseline = {"plain": plain, "calibrated": calibrated}[kind]
    rng = np.random.default_rng(17)
    windows = [layer_of(autoregressive(rng, 400, 4, 0.95), 100 + seed, like=plain) for seed in range(15)]
    reports = [compare(baseline, window) for window in windows]
    assert [report.drift for report in reports].count(True) <= 1
    for report in reports:
        assert 2 <= report.effective_rows <= 30  # 400 / 39 of an endless series
        (said,) = (note for note in report.notes if "successive rows resemble each other" in note)
        assert said.startswith(f"400 rows count as {report.effective_rows:,.0f} independent ones: ")
        assert "`learn` from clean windows" in said
        assert "independent ones" in str(report)
    shifted = layer_of(autoregressive(rng, 400, 4, 0.95) + 4, 200, like=plain)
    assert compare(baseline, shifted).drift
    monkeypatch.setattr("lensai_integrations.drift.compare.visible", lambda *_: None)
    assert [compare(baseline, window).drift for window in windows].count(True) >= 12  # what it would be without


@pytest.mark.parametrize("correction", ["holm", "benjamini-hochberg"])
def test_other_corrections_are_of_widened_p_values_too(correction, calibrated):
    rng = np.random.default_rng(18)
    windows = [layer_of(autoregressive(rng, 400, 4, 0.95), 300 + seed, like=calibrated) for seed in range(10)]
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
        return profiler.profile()

    baseline = of(4000, 0.0, 1)
    p_values = []
    for seed in range(40):
        (group,) = compare(baseline, of(300, 0.85, 50 + seed, baseline), correction="holm").groups
        p_values += [stream.raw_p_value for stream in group.streams if stream.stream == "outputs/top_class"]
    assert len(p_values) == 40
    assert np.mean(np.array(p_values) < 0.05) <= 0.175


def test_of_independent_rows_nothing_is_said(calibrated):
    report = compare(calibrated, layer_of(np.random.default_rng(19).normal(size=(200, 4)), 20, like=calibrated))
    assert math.isnan(report.effective_rows)
    assert not any("independent one" in note for note in report.notes)


def test_segments_are_widened_as_well():
    rng = np.random.default_rng(20)

    def segmented(seed, outputs):
        profiler = Profiler(seed=seed, segment_by="label")
        profiler.update(outputs=outputs, labels=np.arange(len(outputs)) % 2)
        return profiler.profile()

    baseline = segmented(1, rng.normal(size=(1000, 3)))
    window = segmented(2, autoregressive(rng, 400, 3, 0.95))
    inflation = visible(window)
    plain, widened = compare_segments(baseline, window), compare_segments(baseline, window, inflation)
    compared = 0
    for one, other in zip(plain.segments, widened.segments, strict=True):
        for group, wider in zip(one.groups, other.groups, strict=True):
            for stream, of_fewer in zip(group.streams, wider.streams, strict=True):
                if stream.stream in inflation.streams and stream.raw_p_value < 0.5:
                    assert of_fewer.raw_p_value > stream.raw_p_value
                    compared += 1
    assert compared
    assert not compare(baseline, window).drift
