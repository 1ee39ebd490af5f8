"""How much rows as vectors changed, as a share of them, and that `min_effect` binds their verdict."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from lensai_integrations import Profiler, calibrate, compare
from lensai_integrations.drift.calibration import calibration_of
from lensai_integrations.drift.compare import beyond_chance, effect_of_rows, share_of_shift
from lensai_integrations.drift.features import Principal
from lensai_integrations.drift.joint import changed_share
from lensai_integrations.drift.kernel import least_share
from lensai_integrations.drift.max_t import corrected_statistics
from lensai_integrations.drift.result import StreamDrift
from lensai_integrations.sketches.kernel_mean import KernelMean

WIDTH = 8


def profile(rows, like=None):
    profiler = Profiler(source="validation", seed=0) if like is None else Profiler(like=like, seed=1)
    for start in range(0, len(rows), 10_000):
        profiler.update(embeddings={"pool": rows[start : start + 10_000]})
    return profiler.profile()


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(2000, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def reference(rows):
    return profile(rows)


@pytest.fixture(scope="module")
def baseline(reference):
    return calibrate(reference, draws=200)


@pytest.fixture(scope="module")
def large():
    """Of so many rows that any trifle is certain."""
    reference = profile(np.random.default_rng(5).normal(size=(50_000, WIDTH)).astype(np.float32))
    return {"calibrated": calibrate(reference, draws=200), "by formulas": reference}


def correlated(rng, n, width, r):
    rows = rng.normal(size=(n, width))
    rows[:, 1] = r * rows[:, 0] + (1 - r**2) ** 0.5 * rows[:, 1]
    return rows.astype(np.float32)


def test_a_shift_is_a_share_as_the_distance_of_two_normal_distributions():
    for d in (0.02, 0.25, 1.0, 3.0):
        assert share_of_shift(d**2) == pytest.approx(norm.cdf(d / 2) - norm.cdf(-d / 2))
    assert share_of_shift(-1.0) == 0.0


def test_the_share_behind_an_mmd_is_never_overstated():
    """A tenth of the rows replaced: by rows far away the bound is reached, by near ones it stays below."""
    rng = np.random.default_rng(0)
    before = rng.normal(size=(4000, 3))
    shares = []
    for away in (50.0, 1.0):
        mean, window = KernelMean(3), KernelMean(3)
        mean.update(before)
        window = mean.empty()
        window.update(np.concatenate([before[:3600], rng.normal(away, 0.01, (400, 3))]))
        squared = float(np.sum((mean.mean - window.mean) ** 2)) / 3
        shares.append(least_share(squared, float(np.sum(mean.mean**2)) / 3))
    assert shares[0] == pytest.approx(0.1, abs=0.005)
    assert shares[1] < shares[0]
    assert least_share(-1e-9, 0.5) == 0.0
    assert least_share(9.0, 0.5) == 1.0


def test_the_effect_is_the_largest_of_what_shows():
    streams = [StreamDrift(f"a/{i}", kind, "", False, effect, 0.5, 0.5) for i, (kind, effect) in enumerate(
        [("numbers", 0.1), ("numbers", math.nan), ("pixels", 0.9), ("invalid", 0.8), ("categories", 0.7)])]  # fmt: skip
    assert effect_of_rows(streams, None) == 0.1
    assert effect_of_rows([], None) == 0.0


def test_chance_is_taken_off_the_distance_of_means(baseline, reference):
    """Of clean windows hardly one is beyond chance; a shift comes out as it is, or a little less."""
    rng, calibration = np.random.default_rng(1), calibration_of(baseline)

    def beyond(window):
        blocks = corrected_statistics(calibration, profile(window.astype(np.float32), reference), reference)
        return next(beyond_chance(block) for block in blocks if block.part.block.kind == Principal.kind)

    clean = [beyond(rng.normal(size=(200, WIDTH))) for _ in range(40)]
    assert np.mean(np.array(clean) > 0) <= 0.1
    shifted = [beyond(rng.normal(0.3, 1.0, size=(500, WIDTH))) for _ in range(30)]
    assert 0.6 * WIDTH * 0.3**2 < np.mean(shifted) < 1.1 * WIDTH * 0.3**2


@pytest.mark.parametrize("seed", range(3))
def test_trifles_are_no_drift_however_certain(large, seed):
    rng = np.random.default_rng(seed)
    one = rng.normal(size=(300_000, WIDTH)).astype(np.float32)
    one[:, 0] += 0.06
    all_of_them = rng.normal(0.025, 1.0, size=(50_000, WIDTH)).astype(np.float32)
    for window in (one, all_of_them):
        for baseline in large.values():
            seen = profile(window, baseline)
            report = compare(baseline, seen)
            assert not report.drift
            assert report.p_value < 0.01
            assert report.groups[0].vectors.effect < 0.05
            assert compare(baseline, seen, false_alarm_rate=0.05, min_effect=0.0).drift


@pytest.mark.parametrize("seed", range(3))
def test_trifles_are_no_drift_from_a_baseline_of_2000(baseline, reference, seed):
    rng = np.random.default_rng(seed)
    one = rng.normal(size=(300_000, WIDTH)).astype(np.float32)
    one[:, 0] += 0.03
    for window in (one, rng.normal(0.02, 1.0, size=(5000, WIDTH)).astype(np.float32)):
        assert not compare(baseline, profile(window, reference)).drift


@pytest.mark.parametrize(("width", "r", "n"), [(2, 0.4, 1000), (8, 0.6, 1000), (20, 0.9, 1000), (20, 0.6, 5000)])
def test_a_joint_change_of_no_stream_is_drift(width, r, n):
    """A correlation of two streams that turned round: what is small as an MMD is large as a share of rows."""
    rng = np.random.default_rng(0)
    reference = profile(correlated(rng, 2000, width, r))
    window = profile(correlated(rng, n, width, -r), reference)
    for baseline in (calibrate(reference, draws=200), reference):
        report = compare(baseline, window)
        assert not report.moved
        assert report.groups[0].vectors.drift
        truth = total_variation_of_turned(r)
        assert 0.05 <= report.groups[0].vectors.effect <= truth + 0.05


def total_variation_of_turned(r):
    """Of two normal distributions of correlation r and -r, by many draws of one of them."""
    x = correlated(np.random.default_rng(1), 200_000, 2, r)
    ratio = np.exp(-2 * r * x[:, 0] * x[:, 1] / (1 - r**2))  # of the densities
    return float(np.mean(np.maximum(1 - ratio, 0)))


def test_the_closer_look_sees_nothing_where_nothing_changed():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        before, after = rng.normal(size=(600, 6)).astype(np.float32), rng.normal(size=(400, 6)).astype(np.float32)
        kernel = KernelMean(6)
        kernel.update(before)
        found.append(changed_share(before, after, kernel, Principal.of(before)))
    assert np.mean(found) < 0.02  # of the two halves' error, 0.032
    assert np.mean(np.array(found) == 0) > 0.5
    few = rng.normal(size=(10, 6)).astype(np.float32)
    assert changed_share(before, few, kernel) == changed_share(few, before, kernel) == 0.0
    assert changed_share(before, after) == 0.0


def test_the_closer_look_passes_over_rows_that_are_not_finite():
    rng = np.random.default_rng(0)
    before, after = correlated(rng, 1000, 4, 0.8), correlated(rng, 1000, 4, -0.8)
    axes = Principal.of(before)
    clean = changed_share(before, after, axes=axes)
    after[:50, 2], before[:50, 0] = np.nan, np.inf
    assert clean > 0.15
    assert changed_share(before, after, axes=axes) == pytest.approx(clean, abs=0.05)


def test_rows_as_vectors_say_their_effect(baseline, reference):
    window = profile(np.random.default_rng(3).normal(0.5, 1, size=(200, WIDTH)).astype(np.float32), reference)
    report = compare(baseline, window)
    vectors = report.groups[0].vectors
    assert vectors.effect == pytest.approx(share_of_shift(WIDTH * 0.25), abs=0.1)
    told = report.to_dict()["groups"][0]["vectors"]
    assert told["effect"] == vectors.effect
    assert told["mmd_effect"] == vectors.test.effect
    assert f"effect {vectors.effect:.2f}" in report.to_text()
    unknown = replace(report.groups[0], vectors=replace(vectors, effect=math.nan))
    assert "effect nan" not in replace(report, groups=(unknown,)).to_text()
