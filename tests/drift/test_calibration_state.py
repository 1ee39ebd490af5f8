"""Calibrations travel byte for byte, and what is damaged or foreign is refused in one way."""

from __future__ import annotations

import json

import numpy as np
import pytest
from calibrations import calibrated_baseline, window
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations import Baseline, Profiler, calibrate, compare
from lensai_integrations.drift.calibrate import calibration_of
from lensai_integrations.drift.calibration_state import from_state, to_state
from lensai_integrations.errors import FormatError
from lensai_integrations.profile import from_bytes, to_bytes

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


@pytest.mark.parametrize("value", [1e30, 3e38, 1e-40])
def test_spreads_whose_squares_are_no_float32_are_compared_all_the_same(baseline, rng, value):
    """They are only shares of each other."""
    sizes = {name: np.array(array) for name, array in STATE.items() if name.endswith("/sizes")}
    assert sizes
    for array in sizes.values():
        array[1] = value
    damaged = Baseline(baseline.reference, calibration=STATE | sizes)
    assert compare(damaged, window(rng, 50)).clean_windows == 100


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-30, 1.0])
def test_rows_of_any_unit_are_calibrated_and_compared(scale):
    def profile(seed, shift=0):
        profiler = Profiler(seed=seed)
        rows = np.random.default_rng(seed).normal(size=(200, 4)) + shift
        profiler.update(embeddings={"fc": (rows * scale).astype(np.float32)})
        return profiler.profile()

    baseline = calibrate(profile(1), draws=100)
    assert compare(from_bytes(to_bytes(baseline)), profile(3, shift=3)).drift


def test_moments_beyond_float32_are_far_away_and_no_error(baseline, rng):
    seen = window(rng, 50)
    seen.rows = None
    moments = seen.groups["embeddings/pool"].moments
    state = moments.state()
    state["mean"][::2], state["mean"][1::2] = 1e308, -1e308
    seen.groups["embeddings/pool"].sketches["moments"] = type(moments).from_state(state)
    assert compare(baseline, seen).drift


def test_a_comparison_that_linear_algebra_cannot_do_names_the_group(baseline, rng, monkeypatch):
    def fails(*_):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr("lensai_integrations.drift.row_features.bures", fails)
    with pytest.raises(FormatError, match=r"group '\w+(/\w+)?' cannot be compared: .*did not converge"):
        compare(baseline, window(rng, 50))


def test_a_small_file_cannot_make_a_comparison_take_gigabytes_or_hours():
    """16,384 frequencies took 2.3 GB and 17 s for 2,000 rows, and each block could be there 4,000 times."""
    kinds = [part["kind"] for part in ABOUT["parts"]]
    kernel, clusters, slices = map(kinds.index, ("kernel", "clusters", "slices"))
    many = np.zeros((2**17, STATE[f"{clusters}/centroids"].shape[1]), np.float32)
    for damaged, why in (
        (told(parts=[*ABOUT["parts"], ABOUT["parts"][0]]), "two blocks of a kind"),
        (STATE | {f"{clusters}/centroids": many}, "131072 centroids"),
        (STATE | {f"{kernel}/kernel": np.array([4, 2**14, 1, 0], np.int64)}, "frequencies"),
        (_with_directions(slices, 300), "too many directions"),
    ):
        with pytest.raises(FormatError, match=why):
            from_state(damaged)


def _with_directions(number, count):
    return STATE | {
        f"{number}/{name}": np.take(STATE[f"{number}/{name}"], np.zeros(count, int), axis=axis)
        for name, axis in (("directions", 1), ("edges", 0), ("shares", 0))
    }
