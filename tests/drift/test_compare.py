"""The verdict: what is decided, over what, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lensai_integrations import Profiler
from lensai_integrations.drift.compare import compare
from lensai_integrations.drift.result import DriftReport
from lensai_integrations.errors import DefinitionError, InputError
from lensai_integrations.profiles.profile import Baseline, Profile


def images(rng, n, dark=1.0):
    colours = rng.normal(140, 30, (n, 1, 1, 3))
    return np.clip((colours + rng.normal(0, 25, (n, 12, 12, 3))) * dark, 0, 255).astype(np.uint8)


def outputs(rng, n, shift=0.0):
    logits = 3 * rng.normal(size=(n, 5)).astype(np.float32)
    logits[:, 2] += shift
    return logits


def profile_of(rng, n, dark=1.0, shift=0.0, **settings):
    profiler = Profiler(**settings)
    logits = outputs(rng, n, shift)
    rows = np.maximum(logits @ np.eye(5, 48, dtype=np.float32) + rng.normal(size=(n, 48)), 0)
    profiler.update(inputs=images(rng, n, dark), outputs=logits, embeddings={"pool": rows}, labels=logits.argmax(1))
    return profiler.profile()


@pytest.fixture(scope="module")
def baseline():
    rng = np.random.default_rng(1)
    reference = profile_of(rng, 1500, source="validation")
    return Baseline(reference, profile_of(rng, 800, dark=0.5, source="training", like=reference))


def test_clean(baseline, rng):
    report = compare(baseline, profile_of(rng, 200, like=baseline, seed=1))
    assert isinstance(report, DriftReport)
    assert not report.drift
    assert report.moved == ()
    assert [group.name for group in report.groups if group.drift] == []
    assert {group.name for group in report.groups} == {"inputs", "outputs", "embeddings/pool", "labels"}
    assert report.families == 6  # a family of streams for each of four groups, and two of vectors
    assert (report.n_baseline, report.n_window) == (1500, 200)
    assert (report.against, report.source) == ("validation", "production")
    assert report.notes == ()


def test_darker(baseline, rng):
    report = compare(baseline, profile_of(rng, 60, dark=0.5, like=baseline, seed=1))
    moved = {stream.stream for stream in report.moved}
    assert report.drift
    assert {"inputs/brightness", "inputs/contrast", "inputs/mean/0"} <= moved
    assert moved.isdisjoint({"inputs/height", "inputs/aspect_ratio"})
    assert all(stream.startswith("inputs/") for stream in moved)
    assert report.groups[0].name == "inputs"
    brightness = next(stream for stream in report.moved if stream.stream == "inputs/brightness")
    assert brightness.words.startswith("fell: median 1")


def test_other_classes(baseline, rng):
    report = compare(baseline, profile_of(rng, 200, shift=3, like=baseline, seed=1))
    moved = {stream.stream for stream in report.moved}
    assert {"outputs/softmax/2", "outputs/top_class", "labels"} <= moved
    assert not any(stream.startswith("inputs/") for stream in moved)
    vectors = {group.name: group.vectors for group in report.groups}
    assert vectors["outputs"].drift
    assert vectors["embeddings/pool"].drift
    assert vectors["inputs"] is None
    assert report.moved[0].effect == max(stream.effect for stream in report.moved)


def test_against_training(baseline, rng):
    window = profile_of(rng, 200, dark=0.5, like=baseline, seed=1)
    assert compare(baseline, window).drift
    report = compare(baseline, window, against="training")
    assert report.against == "training"
    assert not report.drift


def test_a_profile_is_a_baseline_too(baseline, rng):
    window = profile_of(rng, 100, like=baseline, seed=1)
    assert compare(baseline.reference, window).to_json() == compare(baseline, window).to_json()


def test_the_same_profiles_give_the_same_report_and_are_not_changed(baseline, rng):
    window = profile_of(rng, 100, dark=0.8, like=baseline, seed=1)
    before = [[g.bank.sorted_view() for g in p.groups.values() if g.bank] for p in (baseline.reference, window)]
    first, second = compare(baseline, window), compare(baseline, window)
    assert first.to_json() == second.to_json()
    assert first.to_text() == second.to_text()
    after = [[g.bank.sorted_view() for g in p.groups.values() if g.bank] for p in (baseline.reference, window)]
    np.testing.assert_equal(before, after)


def test_a_loaded_baseline_gives_the_same_report(baseline, rng, tmp_path):
    window = profile_of(rng, 100, dark=0.8, like=baseline, seed=1)
    loaded = Baseline.load(baseline.save(tmp_path / "baseline")), Profile.load(window.save(tmp_path / "window"))
    assert compare(*loaded).to_json() == compare(baseline, window).to_json()


@pytest.mark.parametrize("n", [1, 2, 5, 10])
def test_windows_of_a_few_rows(baseline, rng, n):
    clean = compare(baseline, profile_of(rng, n, like=baseline, seed=1))
    assert not clean.drift
    assert f"a window of {n} rows" in clean.notes[0]
    dark = compare(baseline, profile_of(rng, n, dark=0.05, like=baseline, seed=1))
    assert dark.drift == (n >= 5)  # fewer than five rows prove nothing
    assert clean.to_text()
    assert clean.to_json()


# -- how it is decided


def test_p_values_are_corrected_over_streams_and_families(build, rng):
    a, b = rng.normal(size=(300, 4)), rng.normal(0.3, 1, (60, 4))
    one = compare(build({"x": a[:, :1]}), build({"x": b[:, :1]})).groups[0].streams[0]
    assert one.p_value == one.raw_p_value
    two = compare(build({"x": a[:, :1], "y": a[:, 1:2]}), build({"x": b[:, :1], "y": b[:, 1:2]}))
    assert two.families == 2
    for group in two.groups:
        assert group.streams[0].p_value == pytest.approx(min(1.0, 2 * group.streams[0].raw_p_value))
    four = compare(build({"x": a}), build({"x": b})).groups[0]
    smallest = min(four.streams, key=lambda stream: stream.raw_p_value)
    assert smallest.p_value == pytest.approx(min(1.0, 4 * smallest.raw_p_value))


def test_the_false_alarm_rate_decides(build, rng):
    pair = build({"x": rng.normal(size=(500, 1))}), build({"x": rng.normal(0.25, 1, (60, 1))})
    p = compare(*pair).groups[0].streams[0].p_value
    assert 1e-6 < p < 0.1
    assert compare(*pair, false_alarm_rate=p * 1.01).drift
    assert not compare(*pair, false_alarm_rate=p * 0.99).drift


def test_certain_but_tiny_differences_are_no_drift(build, rng):
    pair = [build({"x": rng.normal(mean, 1, (50_000, 3))}, vectors=("x",)) for mean in (0, 0.1)]
    report = compare(*pair, min_effect=0.1)
    assert not report.drift
    assert all(stream.p_value < 1e-6 for stream in report.groups[0].streams)
    assert report.groups[0].vectors.p_value < 1e-6
    sharp = compare(*pair, min_effect=0.02)
    assert len(sharp.moved) == 3
    assert sharp.groups[0].vectors.drift


def test_a_difference_the_vectors_alone_show(build, rng):
    both = rng.normal(size=(2000, 1))
    before = np.concatenate([both, both + 0.3 * rng.normal(size=both.shape)], axis=1)
    after = np.stack([rng.permutation(column) for column in before.T], axis=1)[:300]
    baseline = build({"outputs": before}, vectors=("outputs",))
    report = compare(baseline, build({"outputs": after}, vectors=("outputs",), like=baseline))
    assert report.moved == ()
    assert report.drift
    assert report.groups[0].vectors.drift


def test_pixels_alone_never_decide(build, rng):
    a, b = np.zeros((50, 1, 4, 4), np.uint8), np.full((50, 1, 4, 4), 255, np.uint8)
    rows = rng.normal(size=(50, 2))
    report = compare(build({"inputs": rows}, pixels=a), build({"inputs": rows}, pixels=b))
    assert not report.drift
    pixels = report.groups[0].streams[-1]
    assert (pixels.kind, pixels.effect) == ("pixels", 1.0)
    assert math.isnan(pixels.p_value)


def test_rows_that_turn_into_nan_are_drift(build, rng):
    rows = rng.normal(size=(400, 3))
    broken = rows[:100].copy()
    broken[::3, 1] = np.nan
    report = compare(build({"inputs": rows}), build({"inputs": broken}))
    assert [stream.stream for stream in report.moved] == ["inputs/invalid"]
    assert compare(build({"inputs": rows}), build({"inputs": np.full((20, 3), np.nan)})).drift


@pytest.mark.parametrize("shift", [0, 1])
def test_streams_that_never_vary(build, shift):
    report = compare(build({"x": np.full((100, 2), 3.0)}), build({"x": np.full((50, 2), 3.0 + shift)}))
    assert report.drift == bool(shift)
    assert {stream.effect for stream in report.groups[0].streams} == {float(shift)}


def test_worst_first(build, rng):
    a = rng.normal(size=(500, 6))
    b = a[:200] + np.array([0.4, 2, 0, 1, 0, 0.7])
    report = compare(build({"x": a, "y": a[:, :2]}), build({"x": b, "y": a[:200, :2]}))
    effects = [stream.effect for stream in report.groups[0].streams]
    assert effects == sorted(effects, reverse=True)
    assert [stream.stream for stream in report.moved][:3] == ["x/1", "x/3", "x/5"]
    assert [group.name for group in report.groups] == ["x", "y"]


# -- what is not compared


def test_groups_of_one_side_are_listed(build, rng):
    rows = rng.normal(size=(100, 2))
    report = compare(build({"a": rows, "b": rows}), build({"b": rows, "c": rows, "d": rows}))
    assert [group.name for group in report.groups] == ["b"]
    assert report.notes == ("only in the baseline, not compared: a", "only in the window, not compared: c, d")
    assert report.families == 1


def test_groups_with_nothing_in_common_are_listed(build, rng):
    rows = rng.normal(size=(100, 4))
    report = compare(build({"a": rows, "b": rows}), build({"a": rows[:, :2], "b": rows}))
    assert [group.name for group in report.groups] == ["b"]
    assert report.notes == ("not compared: a (4 streams in the baseline and 2 in the window: not the same layer)",)


def test_warnings_of_both_sides_are_passed_on(build, rng):
    rows = rng.normal(size=(100, 1))
    report = compare(build({"a": rows}, warnings=("no validation data",)), build({"a": rows}, warnings=("short",)))
    assert report.notes == ("baseline: no validation data", "window: short")


def test_no_common_group(build, rng):
    rows = rng.normal(size=(10, 1))
    with pytest.raises(InputError, match=r"nothing to compare: .*\['a'\].*\['b', 'c'\]"):
        compare(build({"a": rows}), build({"b": rows, "c": rows}))


def test_no_common_stream_in_any_group(build, rng):
    with pytest.raises(InputError, match=r"nothing to compare.*not the same layer"):
        compare(build({"a": rng.normal(size=(10, 1))}), build({"a": rng.normal(size=(10, 2))}))


def test_pixels_alone_are_nothing_to_decide_on(build):
    grey = build(pixels=np.zeros((5, 1, 4, 4), np.uint8), keep=0)
    with pytest.raises(InputError, match="nothing to compare"):
        compare(grey, grey)


def test_definitions_differ(rng):
    one, two = (Profiler(convention=convention) for convention in ("lensai", "lensai-edge"))
    for profiler in (one, two):
        profiler.update(inputs=images(rng, 20))
    with pytest.raises(DefinitionError, match=r"'lensai/.*'lensai-edge/"):
        compare(one.profile(), two.profile())


@pytest.mark.parametrize("empty", ["baseline", "window"])
def test_no_rows(build, rng, empty):
    some, none = build({"a": rng.normal(size=(10, 2))}), build({"a": np.zeros((0, 2))}, keep=0)
    pair = (none, some) if empty == "baseline" else (some, none)
    with pytest.raises(InputError, match=f"the {empty} has seen no rows"):
        compare(*pair)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"false_alarm_rate": 0}, "false_alarm_rate=0"),
        ({"false_alarm_rate": 1.5}, "false_alarm_rate=1.5"),
        ({"false_alarm_rate": math.nan}, "false_alarm_rate=nan"),
        ({"min_effect": -0.1}, "min_effect=-0.1"),
        ({"min_effect": 2}, "min_effect=2"),
        ({"against": "test"}, "against='test'"),
        ({"against": "training"}, "holds no training profile"),
    ],
)
def test_arguments_out_of_range(build, rng, arguments, message):
    profile = build({"a": rng.normal(size=(10, 2))})
    with pytest.raises(InputError, match=message):
        compare(profile, profile, **arguments)
    if "against" in arguments:
        with pytest.raises(InputError, match=message):
            compare(Baseline(profile), profile, **arguments)


def test_things_that_are_no_profiles(build, rng):
    profile = build({"a": rng.normal(size=(10, 2))})
    with pytest.raises(InputError, match="window is a Baseline"):
        compare(profile, Baseline(profile))
    with pytest.raises(InputError, match="baseline is a str"):
        compare("runs:/1", profile)
