"""Many windows at once: which are reported, in which order, and what a p-value is evidence of."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from profiles import make_baseline, make_profile

from lensai_integrations import compare
from lensai_integrations.drift.fleet import FleetReport, FleetWindow, compare_many, e_text
from lensai_integrations.drift.result import DriftReport, GroupDrift, StreamDrift, VectorDrift, p_value_of_report
from lensai_integrations.drift.significance import log_e_value
from lensai_integrations.errors import DefinitionError, InputError


@pytest.fixture(scope="module")
def baseline():
    return make_baseline(800)


@pytest.fixture(scope="module")
def windows():
    clean = {f"cam {i}": make_profile(120, seed=100 + i) for i in range(12)}
    return clean | {"dark": make_profile(120, seed=99, brightness=0.5)}


@pytest.fixture(scope="module")
def fleet(baseline, windows):
    return compare_many(baseline, windows)


def test_the_one_that_moved_is_reported_and_comes_first(fleet, baseline, windows):
    assert fleet.drift
    assert fleet.drifting == ("dark",)
    assert fleet.windows[0].name == "dark"
    evidence = [window.log_e for window in fleet.windows]
    assert evidence == sorted(evidence, reverse=True)
    assert sorted(window.name for window in fleet.windows) == sorted(windows)
    assert fleet.windows[0].report.to_json() == compare(baseline, windows["dark"]).to_json()


def test_a_window_that_would_be_drift_alone_may_be_too_little_evidence_among_many(fleet):
    """At a p-value of 0.4%, e is 8: enough of one window at a share of 20%, and not of a thousand."""
    report = fleet.windows[-1].report
    assert log_e_value(math.log(0.004)) == pytest.approx(math.log(8.0), abs=0.1)
    group = report.groups[0]
    moved = replace(group.streams[0], effect=0.2, p_value=0.004, drift=True)
    quiet = [replace(stream, p_value=1.0) for stream in group.streams[1:]]
    found = replace(report, groups=(replace(group, streams=(moved, *quiet), vectors=None),))
    assert found.drift
    assert p_value_of_report(found) == 0.004


def test_text_says_what_is_promised_and_is_no_wider_than_asked(fleet):
    for width in (60, 100):
        text = fleet.to_text(width)
        assert max(map(len, text.splitlines())) <= width
        assert "1 of 13 windows drift" in " ".join(text.split())
        assert "of those reported at most 5% are false on average" in " ".join(text.split())
    assert text.index("* dark") < text.index("Not reported") < text.index("  cam ")
    assert "... and 2 more with less evidence" in text


def test_json_has_every_window(fleet):
    told = json.loads(fleet.to_json())
    assert (told["drift"], told["drifting"], told["false_share"]) == (True, ["dark"], 0.05)
    assert [window["name"] for window in told["windows"]] == [window.name for window in fleet.windows]
    assert told["windows"][0]["report"]["drift"]


def test_nothing_is_said_to_drift_of_clean_windows(baseline, windows):
    clean = compare_many(baseline, {name: window for name, window in windows.items() if name != "dark"})
    assert not clean.drift
    assert clean.to_text().startswith("NO DRIFT: None of 12 windows drifts; of those reported")


def test_windows_that_drift_alone_are_counted_beside_those_reported(fleet):
    unsure = replace(fleet.windows[0], drift=False)
    text = FleetReport(0.05, (unsure, *fleet.windows[1:])).to_text()
    assert "1 more would be called drift alone, at 1% each" in text


def _report(*streams, vectors=None, **settings):
    group = GroupDrift("inputs", 100, 100, 0, 0, tuple(streams), vectors)
    return DriftReport(0.01, 0.05, 1, "validation", "production", 100, 100, (group,), **settings)


def _stream(p, effect, drift=False):
    return StreamDrift("inputs/noise", "numbers", "d@1", drift, effect, p, p)


@pytest.mark.parametrize(
    ("report", "p"),
    [
        (_report(_stream(0.2, 0.1), _stream(1e-9, 0.01)), 0.2),
        (_report(_stream(1e-9, 0.01)), 1.0),
        (_report(_stream(math.nan, 0.9)), 1.0),
        (_report(_stream(0.0, 0.9, True)), 0.0),
        (_report(_stream(0.3, 0.1), vectors=VectorDrift(True, 1e-6, None, effect=0.2)), 1e-6),
        (_report(_stream(0.3, 0.1), vectors=VectorDrift(False, 1e-6, None, effect=0.01)), 0.3),
        (_report(_stream(0.3, 0.1), vectors=VectorDrift(False, 0.1, None, effect=0.2)), 0.1),
    ],
)
def test_certain_and_too_small_is_no_evidence(report, p):
    assert p_value_of_report(report) == p


def test_numbers_in_words():
    assert [e_text(math.log(e)) for e in (0.2, 1.5, 99.7, 2e5)] == ["below 1", "1.5", "100", "1e5"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"windows": {}}, "windows=dict holds no window"),
        ({"windows": []}, "windows=list holds no window"),
        ({"false_share": 0.0}, r"false_share=0.0 .* e\.g\. 0\.05"),
        ({"false_share": 1.0}, "false_share=1.0"),
        ({"windows": {"cam 7": 3}}, "window 'cam 7': window is a int"),
        ({"min_effect": 2.0}, "min_effect=2.0"),
    ],
)
def test_wrong_arguments_name_themselves(baseline, windows, wrong, message):
    with pytest.raises(InputError, match=message):
        compare_many(**{"baseline": baseline, "windows": windows, **wrong})


def test_a_window_that_was_measured_otherwise_is_named(baseline, windows):
    changed = make_profile(50, seed=1)
    changed.groups["inputs"].definitions = dict.fromkeys(changed.groups["inputs"].definitions, "another@1")
    with pytest.raises(DefinitionError, match="window 'odd': "):
        compare_many(baseline, windows | {"odd": changed})


def test_reported_windows_are_frozen(fleet):
    assert isinstance(fleet.windows[0], FleetWindow)
    with pytest.raises(AttributeError):
        fleet.windows[0].drift = False
    assert np.isfinite([window.log_e for window in fleet.windows]).all()
