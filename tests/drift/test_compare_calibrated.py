"""Calibrated comparison from end to end: false alarms, shifts that must be found, and every odd window."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from calibrations import CLASSES, WIDTH, batch, calibrated_baseline, window
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from lensai_integrations import Baseline, Profiler, calibrate, compare
from lensai_integrations.drift import evidence, kernel
from lensai_integrations.report import drift_html


@pytest.fixture(scope="module")
def baseline():
    return calibrated_baseline(0)


def alarms_of(sizes, references, rate=0.2, **settings):
    """How many of the clean windows are called drift; a few references, for one that is odd would be odd every time."""
    alarms = 0
    for seed in range(references):
        baseline, rng = calibrated_baseline(100 + seed, **settings), np.random.default_rng(1000 + seed)
        for n in sizes:
            seen = window(rng, n, baseline, **settings)
            alarms += compare(baseline, seen, false_alarm_rate=rate, min_effect=0).drift
    return alarms


@pytest.mark.slow
def test_false_alarms_stay_within_the_rate():
    alarms = alarms_of([1, 3, 7, 20, 50, 120, 300] * 5, references=5)
    assert alarms <= binom.isf(0.005, 175, 0.2)  # 49
    assert alarms >= 0.05 * 175  # careful, but not deaf: a quarter of the rate


def test_rows_without_an_answer_on_both_sides_are_no_drift():
    alarms = alarms_of([100] * 15, references=3, change="no answer", share=0.1)
    assert alarms <= binom.isf(0.005, 45, 0.2)


def test_classes_the_baselines_rows_never_showed_are_no_drift():
    """Of 300 classes a baseline of 500 rows has seen four fifths."""
    alarms = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)

        def answers(n, like=None, rng=rng):
            profiler = Profiler(like=like, seed=int(rng.integers(2**31)))
            profiler.update(outputs=8 * np.eye(300, dtype=np.float32)[rng.integers(0, 300, n)])
            return profiler.profile()

        baseline = calibrate(answers(500), draws=100)
        for _ in range(4):
            found = compare(baseline, answers(150, baseline), false_alarm_rate=0.05)
            alarms += any(stream.stream == "outputs/top_class" for stream in found.moved)
    assert alarms <= binom.isf(0.002, 12, 0.05)


@pytest.mark.parametrize(
    ("change", "group"), [("stream", "embeddings/pool"), ("classes", "outputs"), ("unsure", "outputs")]
)
def test_shifts_are_found_and_named(baseline, rng, change, group):
    for _ in range(3):
        report = compare(baseline, window(rng, 200, baseline, change=change))
        assert (report.correction, report.clean_windows) == ("max-t", 200)
        assert report.drift
        assert report.groups[0].name == group
        assert report.p_value < 0.01
        if change == "stream":
            assert [stream.stream for stream in report.moved] == ["embeddings/pool/5"]
            assert report.harm == "benign"
        else:
            assert report.harm == "harmful"
    if change == "classes":
        assert any(stream.stream == "outputs/top_class" for stream in report.moved)


def test_a_change_of_correlation_alone_is_found_by_rows_as_vectors(baseline, rng):
    report = compare(baseline, window(rng, 400, baseline, change="correlation"))
    pool = next(group for group in report.groups if group.name == "embeddings/pool")
    assert pool.vectors.drift
    assert pool.moved == ()
    assert report.harm == "benign"
    assert "as a whole" in report.to_text()


@pytest.mark.parametrize("n", [1, 3, 7, 1500, 5000])
def test_windows_of_any_size(baseline, rng, n):
    clean = compare(baseline, window(rng, n, baseline))
    assert not clean.drift
    moved = window(rng, n, baseline, change="stream")
    assert compare(baseline, moved).drift or n < 7
    bare = compare(baseline, replace(moved, rows=None))
    assert bare.correction == "max-t"
    assert bare.drift or n < 7


def test_rows_that_turn_into_nan(baseline, rng):
    report = compare(baseline, window(rng, 100, baseline, change="nan", share=0.4))
    assert [stream.stream for stream in report.moved] == ["embeddings/pool/invalid"]
    gone = compare(baseline, window(rng, 100, baseline, change="nan"))
    assert gone.drift
    assert all(np.isfinite(stream.p_value) for stream in gone.moved)


def test_extreme_values_are_drift_and_no_crash(baseline, rng):
    made = batch(rng, 60)
    made["embeddings"]["pool"][:20, 2] = 3e38
    profiler = Profiler(like=baseline, seed=1)
    profiler.update(outputs=made["outputs"], embeddings=made["embeddings"])
    report = compare(baseline, profiler.profile())
    assert "embeddings/pool/2" in {stream.stream for stream in report.moved}


def test_groups_that_one_side_lacks(baseline, rng):
    made = batch(rng, 100, change="stream")
    profiler = Profiler(like=baseline, seed=1)
    profiler.update(embeddings={**made["embeddings"]})
    report = compare(baseline, profiler.profile())
    assert report.correction == "max-t"
    assert [stream.stream for stream in report.moved] == ["embeddings/pool/5"]
    assert report.harm == ""
    assert report.accuracy is None


def test_a_layer_of_another_width_is_judged_by_nothing_and_the_rest_goes_on(baseline, rng):
    profiler = Profiler(seed=1)
    profiler.update(outputs=batch(rng, 100)["outputs"], embeddings={"pool": rng.normal(size=(100, WIDTH + 1))})
    report = compare(baseline, profiler.profile())
    assert report.correction == "max-t"
    assert not report.drift
    assert "not the same layer" in " ".join([*report.notes, *(n for g in report.groups for n in g.notes)])


def test_labels_are_judged_by_formulas_and_share_the_rate(baseline, rng):
    profiler = Profiler(like=baseline, seed=1)
    made = batch(rng, 100)
    made["labels"] = np.zeros(100, int)
    profiler.update(**made)
    report = compare(baseline, profiler.profile())
    assert report.families == 1
    assert "labels" in {stream.stream for stream in report.moved}
    assert "1 of its families of tests by formulas" in report.to_text(200)


@pytest.fixture(scope="module")
def windows(baseline):
    return [window(np.random.default_rng(s), 60, baseline, change="stream", share=s / 12) for s in range(6)]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 5), st.floats(1e-6, 0.999), st.floats(1e-6, 0.999))
def test_a_larger_rate_never_finds_less(baseline, windows, which, one, two):
    seen = windows[which]
    low, high = (compare(baseline, seen, false_alarm_rate=rate) for rate in sorted((one, two)))
    assert {s.stream for s in low.moved} <= {s.stream for s in high.moved}
    assert low.drift <= high.drift
    assert low.p_value == high.p_value


@pytest.mark.parametrize("correction", ["holm", "benjamini-hochberg"])
def test_other_corrections(baseline, rng, correction):
    report = compare(baseline, window(rng, 200, baseline, change="stream"), correction=correction)
    assert (report.correction, report.clean_windows) == (correction, 0)
    assert "embeddings/pool/5" in {stream.stream for stream in report.moved}
    assert not compare(baseline, window(rng, 200, baseline), correction=correction).drift
    uncalibrated = compare(baseline.reference, window(rng, 200, baseline), correction=correction)
    assert uncalibrated.correction == correction


def test_without_calibration_and_against_training_formulas_decide(baseline, rng):
    seen = window(rng, 100, baseline, change="stream")
    bare = compare(Baseline(baseline.reference), seen)
    assert (bare.correction, bare.clean_windows, bare.accuracy) == ("holm", 0, None)
    training = window(rng, 400, baseline, source="training", change="stream")
    both = replace(baseline, training=training)
    report = compare(both, seen, against="training")
    assert (report.correction, report.drift) == ("holm", False)
    assert compare(both, seen).drift


@pytest.mark.parametrize("change", ["", "stream"])
def test_no_p_value_is_found_by_a_formula_where_clean_windows_tell(baseline, rng, monkeypatch, change):
    """All is of the calibration but the labels: one category, by the only formula that is asked."""

    def fails(*_: object, **__: object) -> float:
        raise AssertionError("a formula was asked")

    asked = []
    formula = evidence.category_p_value
    monkeypatch.setattr(evidence, "category_p_value", lambda *a, **k: asked.append(len(a[0])) or formula(*a, **k))
    for name in ("ks_p_value", "labels_p_value"):
        monkeypatch.setattr(evidence, name, fails)
    for name in ("bound_p_value", "weighted_chi_square_p_value", "_null_moments"):
        monkeypatch.setattr(kernel, name, fails)
    seen = Profiler(like=baseline, seed=1)
    seen.update(**batch(rng, 100, change=change))
    report = compare(baseline, seen.profile())
    assert (report.drift, report.correction, asked) == (bool(change), "max-t", [CLASSES])
    streams = [stream for group in report.groups for stream in group.streams]
    assert {s.stream for s in streams if not np.isnan(s.raw_p_value)} == {"labels"}
    assert all(0 <= stream.p_value <= 1 for stream in streams)
    assert {group.vectors.test.method for group in report.groups if group.vectors} == {"calibration"}
    with pytest.raises(AssertionError, match="a formula was asked"):
        compare(baseline, seen.profile(), correction="holm")


def test_segments_take_half_of_the_rate(rng):
    def segmented(n, like=None):
        profiler = Profiler(seed=int(rng.integers(2**31)), segment_by="site", like=like)
        made = batch(rng, n)
        profiler.update(outputs=made["outputs"], segments=[f"s{i % 2}" for i in range(n)])
        return profiler.profile()

    baseline = calibrate(segmented(400), draws=100)
    seen = segmented(200)
    report = compare(baseline, seen)
    whole = compare(baseline, replace(seen, segments={}, info={"source": "production"}))
    assert report.segment_families > 0
    p, q = ({s.stream: s.p_value for g in r.groups for s in g.streams} for r in (report, whole))
    assert all(p[name] == pytest.approx(min(2 * q[name], 1)) for name in q)
    assert "half of it for segments" in report.to_text(200)


def test_reports_as_text_json_and_page(baseline, rng):
    moved = window(rng, 150, baseline, change="stream")
    report = compare(baseline, moved)
    found = json.loads(report.to_json())
    assert (found["correction"], found["clean_windows"], found["harm"]) == ("max-t", 200, "benign")
    assert found["p_value"] == report.p_value
    assert set(found["accuracy"]) == {"baseline", "window", "low", "high", "by_labels", "moved", "ceiling"}
    vectors = found["groups"][0]["vectors"]
    assert set(vectors["statistics"]) == {"mmd", "mahalanobis"}
    assert found["groups"][0]["streams"][0]["statistic"] in ("ks", "wasserstein", "anderson_darling")
    text = report.to_text(80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()
    assert "Benign so far" in text
    assert "200 clean windows" in text
    page = drift_html(report, baseline, moved)
    assert "clean windows drawn from the baseline" in page
    assert "Benign so far" in page


def test_vectors_without_an_mmd_are_shown_too(baseline, rng):
    """Of a group whose kernel means cannot be compared, what is calibrated still tells."""
    report = compare(baseline, window(rng, 150, baseline, change="stream"))
    groups = tuple(
        replace(group, vectors=group.vectors and replace(group.vectors, test=None)) for group in report.groups
    )
    bare = replace(report, groups=groups)
    assert json.loads(bare.to_json())["groups"][0]["vectors"]["raw_p_value"] is None
    assert "Mahalanobis distance of means" in bare.to_text()
    assert "Mahalanobis distance of means" in drift_html(bare, baseline, window(rng, 50, baseline))


def test_notes_of_the_calibration_are_passed_on(rng):
    baseline = calibrated_baseline(5, 150, draws=100)
    assert any("calibrated on 150 rows only" in note for note in compare(baseline, window(rng, 50, baseline)).notes)
    assert CLASSES == 4
