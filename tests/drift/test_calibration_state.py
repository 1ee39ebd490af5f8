"""Calibrations travel byte for byte, and what is damaged or foreign is refused in one way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from calibrations import calibrated_baseline, window
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations import Baseline, Profiler, calibrate, compare
from lensai_integrations.drift.calibration import calibration_of, from_state, to_state
from lensai_integrations.errors import FormatError
from lensai_integrations.profiles.profile import from_bytes, load, to_bytes

GOLDEN = Path(__file__).parents[1] / "golden"
STATE = calibrated_baseline(0, 200, draws=100).calibration
ABOUT = json.loads(STATE["about"].tobytes())


@pytest.fixture(scope="module")
def baseline():
    return calibrated_baseline(0, 200, draws=100)


def same(one, two):
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and np.array_equal(one[name], two[name]) for name in one
    )


def told(**changes):
    return STATE | {"about": np.frombuffer(json.dumps(ABOUT | changes).encode(), np.uint8)}


def test_it_comes_back_from_bytes_and_folders(baseline, tmp_path):
    assert same(to_state(from_state(STATE)), STATE)
    blob = to_bytes(baseline)
    assert same(from_bytes(blob).calibration, STATE)
    assert same(Baseline.load(baseline.save(tmp_path / "baseline")).calibration, STATE)
    assert from_bytes(to_bytes(Baseline(baseline.reference))).calibration is None


@pytest.mark.parametrize(
    "about",
    [
        {"sizes": []},
        {"sizes": [5, 5]},
        {"sizes": [10, 5]},
        {"sizes": [0, 5, 10, 25, 50, 100]},
        {"sizes": [5, 10, 25, 50, 10**30]},
        {"sizes": "many"},
        {"sizes": [float("inf")]},
        {"rows": 0},
        {"rows": float("inf")},
        {"rows": float("nan")},
        {"rows": 10**400},
        {"draws": 0},
        {"draws": 99},
        {"draws": 2**40},
        {"draws": None},
        {"parts": []},
        {"parts": {}},
        {"parts": [3]},
        {"parts": ABOUT["parts"] * 5000},
        {"parts": [ABOUT["parts"][0] | {"kind": "oracle"}]},
        {"parts": [ABOUT["parts"][0] | {"kind": ["kernel"]}]},
        {"parts": [ABOUT["parts"][0] | {"kind": "kernel"}]},
        {"parts": [ABOUT["parts"][0] | {"n": 0}]},
        {"parts": [ABOUT["parts"][0] | {"n": 10**300}]},
        {"parts": [ABOUT["parts"][0] | {"n": float("inf")}]},
        {"parts": [{"kind": "distributions"}]},
        {"parts": [ABOUT["parts"][0] | {"rows": "outputs/top_class"}]},
        {"parts": [ABOUT["parts"][0] | {"rows": "labels"}]},
        {"parts": [ABOUT["parts"][0] | {"group": 3}]},
        {"notes": 3},
        {"confidence": 3},
        {"confidence": {}},
        {"confidence": ABOUT["confidence"] | {"rows": 0}},
        {"confidence": ABOUT["confidence"] | {"rows": float("inf")}},
        {"confidence": ABOUT["confidence"] | {"accuracy": 1.5}},
        {"confidence": ABOUT["confidence"] | {"threshold": float("nan")}},
        {"confidence": ABOUT["confidence"] | {"tied": "all"}},
        {"confidence": ABOUT["confidence"] | {"wrong": -1}},
        {"confidence": ABOUT["confidence"] | {"low": [0.1]}},
        {"confidence": ABOUT["confidence"] | {"high": [0.1, 2]}},
    ],
)
def test_what_cannot_be_is_refused(about):
    with pytest.raises(FormatError):
        from_state(told(**about))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"sizes": [5]}'])
def test_what_is_not_this_json_is_refused(text):
    with pytest.raises(FormatError):
        from_state(STATE | {"about": np.frombuffer(text, np.uint8)})


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(STATE)), st.data())
def test_any_array_damaged_is_refused(baseline, name, data):
    array = STATE[name]
    harm = data.draw(st.sampled_from(["gone", "shorter", "flat", "float64", "nan", "inf", "list", "none"]))
    changed = dict(STATE)
    if harm == "gone":
        del changed[name]
    else:
        changed[name] = {
            "shorter": lambda: array[:-1],
            "flat": lambda: array.ravel()[None, None, None],
            "float64": lambda: array.astype(np.float64),
            "nan": lambda: np.full(array.shape, np.nan, np.float32),
            "inf": lambda: np.full(array.shape, -np.inf, np.float32),
            "list": array.tolist,
            "none": lambda: None,
        }[harm]()
    with pytest.raises(FormatError):
        calibration_of(Baseline(baseline.reference, calibration=changed))


def test_a_threshold_of_earlier_releases_has_no_ends():
    earlier = {name: value for name, value in ABOUT["confidence"].items() if name not in ("low", "high")}
    found = from_state(told(confidence=earlier)).confidences["outputs"]
    assert (found.low, found.high) == (None, None)
    assert from_state(STATE).confidences["outputs"].low < from_state(STATE).confidences["outputs"].high


def test_no_confidence_and_no_notes_are_fine():
    found = from_state(told(confidence=None, notes=["a"]))
    assert (found.confidences, found.notes) == ({}, ("a",))


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_spreads_that_are_none_are_refused(value):
    with pytest.raises(FormatError):
        from_state(STATE | {"0/null/spread": np.full_like(STATE["0/null/spread"], value)})


def test_means_that_no_features_have_are_refused():
    for number in range(len(ABOUT["parts"])):
        name = f"{number}/mean"
        with pytest.raises(FormatError):
            from_state(STATE | {name: np.full_like(STATE[name], 1e30)})


def test_comparing_with_a_damaged_one_says_what_to_do(baseline, rng, tmp_path):
    harmed = Baseline(baseline.reference, calibration=told(draws=0))
    loaded = Baseline.load(harmed.save(tmp_path / "b"))
    with pytest.raises(FormatError, match="lensai calibrate"):
        compare(loaded, window(rng, 50, loaded))
    assert compare(loaded, window(rng, 50, loaded), correction="holm").correction == "holm"


@pytest.mark.parametrize("name", ["unused", "0/unused", "99/mean", "0/null/unused"])
def test_an_array_that_nothing_refers_to_is_refused(name):
    with pytest.raises(FormatError, match=f"nothing refers to the arrays .*{name}"):
        from_state(STATE | {name: np.zeros(1)})


@pytest.mark.parametrize("scale", [1e-44, 1e-37, 1e-30, 1.0])
def test_rows_of_any_unit_are_calibrated_and_compared(scale):
    def profile(seed, shift=0):
        profiler = Profiler(seed=seed)
        rows = np.random.default_rng(seed).normal(size=(200, 4)) + shift
        profiler.update(embeddings={"fc": (rows * scale).astype(np.float32)})
        return profiler.profile()

    baseline = calibrate(profile(1), draws=100)
    drift = compare(from_bytes(to_bytes(baseline)), profile(3, shift=3)).drift
    assert drift == (scale > 1e-38)  # what is no normal number of float32 is 0 on many devices


def test_a_small_file_cannot_make_a_comparison_take_gigabytes_or_hours():
    """16,384 frequencies took 2.3 GB and 17 s for 2,000 rows, and each block could be there 4,000 times."""
    kernel = [part["kind"] for part in ABOUT["parts"]].index("kernel")
    for damaged, why in (
        (told(parts=[*ABOUT["parts"], ABOUT["parts"][0]]), "two blocks of a kind"),
        (STATE | {f"{kernel}/kernel": np.array([4, 2**14, 1, 0], np.int64)}, "frequencies"),
    ):
        with pytest.raises(FormatError, match=why):
            from_state(damaged)


# -- what earlier releases have written: covariances, clusters and slices, which decide nothing any more


def earlier() -> Baseline:
    return load(GOLDEN / "baseline-2")


def earlier_kinds() -> list[str]:
    return [part["kind"] for part in json.loads(earlier().calibration["about"].tobytes())["parts"]]


def test_an_earlier_calibration_is_what_calibrating_the_same_baseline_gives_now_but_for_what_is_given_up():
    assert {"principal", "clusters", "slices", "classes"} <= set(earlier_kinds())
    read, now = calibration_of(earlier()), calibration_of(calibrate(earlier(), draws=100))
    assert read.sizes == now.sizes
    kept = [part for part in now.parts if part.block.kind in ("distributions", "kernel")]
    assert [(p.group, p.block.kind, p.n) for p in read.parts] == [(p.group, p.block.kind, p.n) for p in kept]
    for one, two in zip(read.parts, kept, strict=True):
        np.testing.assert_allclose(one.mean, two.mean, atol=1e-5)
        for name in ("centre", "spread", "largest"):
            np.testing.assert_allclose(getattr(one.null, name), getattr(two.null, name), rtol=1e-3, atol=1e-3)
    assert same(to_state(from_state(to_state(read))), to_state(read))


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_a_window_is_judged_by_an_earlier_calibration_and_its_top_class_by_a_formula(rng, shift):
    old = earlier()
    layer = rng.normal(size=(40, len(old.reference.groups["embeddings/pool"].streams)))
    profiler = Profiler(like=old, seed=1)
    profiler.update(outputs=(1 + shift) * rng.normal(size=(40, 4)), embeddings={"pool": layer + shift})
    one, two = (compare(each, profiler.profile()) for each in (old, calibrate(old, draws=100)))
    assert (one.drift, one.families, two.families, one.clean_windows) == (two.drift, 1, 0, 100)
    windows = {s.stream: s.windows for group in one.groups for s in group.streams}
    assert windows["outputs/top_class"] == 0
    assert all(windows[name] == 100 for name in windows if "softmax" in name or "pool" in name)


def test_where_all_blocks_are_given_up_formulas_decide(rng):
    old = earlier()
    state = old.calibration
    about = json.loads(state["about"].tobytes())
    at = earlier_kinds().index("slices")
    about["parts"] = [about["parts"][at]]
    kept = {f"0/{name.partition('/')[2]}": each for name, each in state.items() if name.startswith(f"{at}/")}
    state = kept | {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    profiler = Profiler(like=old, seed=1)
    profiler.update(outputs=rng.normal(size=(40, 4)))
    report = compare(replace(old, calibration=state), profiler.profile())
    assert (report.correction, report.p_value) == ("holm", compare(old.reference, profiler.profile()).p_value)
