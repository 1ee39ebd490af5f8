"""Average thresholded confidence against a direct computation, and how often its interval holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from calibrations import calibrated_baseline, window
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations import Profile, Profiler, calibrate, compare
from lensai_integrations.drift.accuracy import (
    Confidence,
    _threshold,
    _total_variation,
    confidences_of,
    estimate_accuracy,
)
from lensai_integrations.drift.labelled import wilson


def profile_of(rng, n, easy=2.5, labels=True, rows=4000):
    """Logits of four classes; the larger `easy`, the surer and the more often right."""
    truth = rng.integers(0, 4, n)
    logits = (rng.normal(size=(n, 4)) + easy * np.eye(4)[truth]).astype(np.float32)
    profiler = Profiler(seed=int(rng.integers(2**31)), rows=rows)
    profiler.update(outputs=logits, **({"labels": truth} if labels else {}))
    return profiler.profile(), float(np.mean(logits.argmax(axis=1) == truth)), logits


def confidence_of(profile):
    return confidences_of(profile).get("outputs")


def unsure(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return (1 - p.max(axis=1)) * 4 / 3


def test_threshold_and_estimate_by_hand(rng):
    profile, accuracy, logits = profile_of(rng, 800)
    found = confidence_of(profile)
    assert (found.rows, found.accuracy) == (800, pytest.approx(accuracy))
    assert np.mean(unsure(logits) <= found.threshold * (1 + 1e-5)) == pytest.approx(accuracy)

    seen, true, logits = profile_of(rng, 300, 1.0, labels=False)
    estimate = estimate_accuracy(found, seen)
    assert estimate.baseline == pytest.approx(accuracy)
    assert estimate.window == pytest.approx(np.mean(unsure(logits) <= found.threshold * (1 + 1e-5)), abs=1e-6)
    assert estimate.low < estimate.window < estimate.high
    assert estimate.window < accuracy - 0.2
    assert abs(estimate.window - true) < 0.15


@pytest.mark.slow
def test_the_interval_holds(rng):
    """On clean windows: the accuracy of the model, known from very many rows, is in 95% of the intervals."""
    _, truth, _ = profile_of(rng, 200_000, rows=1)
    inside = 0
    for _ in range(60):
        found = confidence_of(profile_of(rng, 300)[0])
        for _ in range(5):
            estimate = estimate_accuracy(found, profile_of(rng, 100, labels=False)[0])
            inside += estimate.low <= truth <= estimate.high
    assert inside / 300 > 0.91


def test_a_model_equally_sure_of_many_rows():
    """Of 100 rows 80 are equally sure, 50 right: the 80 count so much that 50 are right, not 80."""
    sure = np.array([0.0] * 80 + [0.5] * 20, np.float32)
    right = np.arange(100) % 2 == 0
    found = _threshold(sure, right)
    assert (found.threshold, found.accuracy, found.rows) == (0, 0.5, 100)
    assert found.tied == pytest.approx(50 / 80)


def test_a_saturated_model_is_not_thought_better_than_it_was(rng):
    truth = rng.integers(0, 4, 2000)
    answers = np.where(rng.random(2000) < 0.7, truth, (truth + 1) % 4)
    logits = 200 * np.eye(4, dtype=np.float32)[answers]  # in float32 the softmax is 1
    profiler = Profiler(seed=1)
    profiler.update(outputs=logits, labels=truth)
    profile = profiler.profile()
    assert estimate_accuracy(confidence_of(profile), profile).window == pytest.approx(0.7, abs=0.03)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=60))
def test_on_its_own_rows_the_estimate_is_the_accuracy(rows):
    sure, right = np.array([r[0] for r in rows], np.float32), np.array([r[1] for r in rows])
    found = _threshold(sure, right)
    estimate = np.mean(sure < found.threshold) + found.tied * np.mean(sure == found.threshold)
    assert estimate == pytest.approx(found.accuracy) == pytest.approx(right.mean())
    assert 0 <= found.tied <= 1
    assert 0 <= found.wrong <= 1


def test_wilsons_interval():
    low, high = wilson(0.4, 50)
    assert (low, high) == pytest.approx((0.2761, 0.5382), abs=1e-3)
    assert wilson(0.0, 10)[0] == pytest.approx(0)
    assert wilson(1.0, 10)[1] == pytest.approx(1)


def test_without_labels_classes_or_rows_nothing_is_known(rng):
    assert confidence_of(Profile()) is None
    assert confidence_of(profile_of(rng, 200, labels=False)[0]) is None
    assert confidence_of(profile_of(rng, 49)[0]) is None
    assert confidence_of(profile_of(rng, 200, rows=0)[0]) is None
    assert estimate_accuracy(Confidence(0.1, 0.9, 100), Profile()) is None


def test_rows_without_an_answer_do_not_count(rng):
    truth = rng.integers(0, 4, 400)
    logits = (3 * np.eye(4)[truth]).astype(np.float32)
    logits[::4] = np.nan
    profiler = Profiler(seed=1)
    profiler.update(outputs=logits, labels=truth)
    found = confidence_of(profiler.profile())
    assert (found.rows, found.accuracy) == (300, 1.0)


def test_a_report_says_it(rng):
    baseline = calibrated_baseline(0, draws=100)
    report = compare(baseline, window(rng, 200, baseline, change="unsure"))
    assert report.accuracy.window < report.accuracy.baseline - 0.15
    assert report.to_dict()["accuracy"]["window"] == report.accuracy.window
    assert "without labels" in report.to_text(200)


@pytest.mark.parametrize("name", ["outputs", "labels"])
def test_columns_that_a_file_leaves_open_are_as_none_told(rng, name):
    profile, *_ = profile_of(rng, 200)
    profile.groups[name].info["columns"] = None
    assert confidence_of(profile) is not None
    assert compare(profile, profile).tested
    assert profile.merge(profile).n == 400


def bootstrapped(rng, sure, right, seen, draws=2000):
    """Middle 95% of the estimate of some rows by thresholds of baselines drawn with replacement."""
    estimates = []
    for _ in range(draws):
        chosen = rng.integers(0, len(sure), len(sure))
        found = _threshold(sure[chosen], right[chosen])
        estimates.append(np.mean(seen < found.threshold) + found.tied * np.mean(seen == found.threshold))
    return np.quantile(estimates, [0.025, 0.975])


@pytest.mark.parametrize("power", [0.6, 1.0, 2.0])
def test_what_the_baselines_rows_settle_is_a_bootstraps_interval(rng, power):
    """Of windows that are surer, and less sure: where more of their rows lie at the threshold, it matters more."""
    sure = rng.random(500)
    right = rng.random(500) > 0.1 + 0.6 * sure
    seen = rng.random(4000) ** power
    found = _threshold(sure, right)
    ends = [np.mean(seen < at) + tied * np.mean(seen == at) for at, tied in (found.low, found.high)]
    assert ends == pytest.approx(bootstrapped(rng, sure, right, seen).tolist(), abs=0.02)


def sided(rng, n, classes, labels=None, sure=3.0):
    """Answers of these classes, right in half of the rows, and how sure the model is of them."""
    answers = rng.choice(classes, n)
    truth = np.where(rng.random(n) < 0.5, answers, (answers + 1) % 4) if labels is None else labels
    logits = rng.normal(size=(n, 4)) * 0.2 + sure * rng.random((n, 1)) * np.eye(4)[answers]
    return logits.astype(np.float32), truth


def report_of(rng, classes, n=300, labels=True):
    reference, window = Profiler(seed=1), Profiler(seed=2)
    logits, truth = sided(rng, 1000, [0, 1, 2, 3])
    reference.update(outputs=logits, labels=truth)
    logits, _ = sided(rng, n, classes)
    window.update(outputs=logits, **({"labels": rng.integers(0, 4, n)} if labels else {}))
    return compare(calibrate(reference.profile(), draws=100), window.profile())


def test_answers_of_other_classes_lower_an_interval_and_the_ceiling(rng):
    """A model that is as sure as ever and says one class: its confidences see nothing, its classes do."""
    alike = report_of(rng, [0, 1, 2, 3], labels=False).accuracy
    other = report_of(rng, [2], labels=False)
    assert alike.moved < 0.05
    assert alike.high - alike.low < 0.25
    assert other.accuracy.moved == pytest.approx(0.65, abs=0.08)
    assert other.accuracy.ceiling == pytest.approx(0.35, abs=0.08)
    assert other.accuracy.low < 0.25 < other.accuracy.ceiling < other.accuracy.window
    assert "at most 3" in other.to_text(300)
    assert "without labels" in other.to_text(300)


def test_labels_that_contradict_an_estimate_say_so(rng):
    report = report_of(rng, [2])
    found = report.accuracy
    assert found.by_labels
    assert found.window == pytest.approx(0.25, abs=0.1)
    assert found.mistaken == pytest.approx(found.estimated.window - found.window)
    assert found.mistaken > 0.1
    assert found.estimated.low <= found.window  # and its interval holds
    assert "points too high. Trust the labels." in report.to_text(300)
    told = report.to_dict()["accuracy"]
    assert told["mistaken"] == found.mistaken
    assert told["estimated"]["window"] == found.estimated.window


def test_labels_that_agree_say_so(rng):
    profile, _, _ = profile_of(rng, 2000)
    report = compare(calibrate(profile, draws=100), profile_of(rng, 400)[0])
    assert report.accuracy.mistaken == 0
    assert "the labels agree" in report.to_text(300)


@pytest.mark.parametrize(("classes", "n"), [(2, 50), (10, 50), (1000, 200)])
def test_clean_answers_hardly_move_and_collapsed_ones_do(rng, classes, n):
    shares = rng.dirichlet(np.ones(classes))
    before, after = (dict(zip(map(str, range(classes)), rng.multinomial(m, shares), strict=True)) for m in (2000, n))
    assert _total_variation(before, after) < 0.1
    assert _total_variation(before, {"0": n}) > 0.8 * (1 - shares[0])
    assert _total_variation(before, {}) == 0


def test_calibrations_of_earlier_releases_have_intervals_too(rng):
    profile, _, _ = profile_of(rng, 800)
    found = confidence_of(profile)
    earlier = replace(found, low=None, high=None)
    seen = profile_of(rng, 300, labels=False)[0]
    now, then = (estimate_accuracy(each, seen, "outputs", profile) for each in (found, earlier))
    assert (then.low, then.high) == pytest.approx((now.low, now.high), abs=0.02)
