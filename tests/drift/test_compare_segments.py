"""Segments compared: what moved in one and hardly in the whole, what is new or gone, and false alarms all together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lensai_integrations.drift.compare import compare
from lensai_integrations.drift.result import FEW, GONE, NEW, REMAINDER, SegmentDrift
from lensai_integrations.profiles.names import OTHER_SEGMENT
from lensai_integrations.profiles.profile import Profile

ROWS = {"a": 400, "b": 300, "c": 100}


@pytest.fixture
def segmented(build, rng):
    """`segmented({"a": 300}, shifts={"a": 1.0})`: three columns of normal rows, the first shifted in some segments."""

    def make(rows, shifts=None, by="site", classes=None, seed=0):
        parts, labels = {}, {}
        for name, n in rows.items():
            values = rng.normal(size=(n, 3))
            values[:, 0] += (shifts or {}).get(name, 0.0)
            parts[name], labels[name] = values, (classes or {}).get(name, [name] * n)
        every = [label for name in rows for label in labels[name]]
        whole = build({"inputs": np.concatenate(list(parts.values()))}, categories={"labels/": every}, seed=seed)
        whole.info |= {"segment_by": by, "max_segments": 20}
        whole.segments = {
            name: build({"inputs": values}, categories={"labels/": labels[name]}, keep=0, seed=seed + 1 + number)
            for number, (name, values) in enumerate(parts.items())
        }
        return whole

    return make


def verdicts(report):
    return {segment.name: segment.verdict for segment in report.segments}


def test_a_segment_that_moved_is_found_where_the_whole_hides_it(segmented):
    rows = dict.fromkeys("abcdefghij", 500) | {"rare": 60}
    report = compare(segmented(rows), segmented(rows, {"rare": 2.0}, seed=50))
    assert report.moved == ()
    assert report.drift
    assert verdicts(report) == {"rare": "drift"} | dict.fromkeys("abcdefghij", "no drift")
    worst = report.segments[0]
    assert (worst.name, worst.n_baseline, worst.n_window) == ("rare", 60, 60)
    assert [stream.stream for stream in worst.moved] == ["inputs/0"]
    assert report.to_text().startswith("DRIFT: 0 of 4 streams moved, and 1 of 11 segments\n")


def test_what_is_not_compared_says_why(segmented):
    rows = {"a": 200, "gone": 50, "small": 19, OTHER_SEGMENT: 100}
    seen = {"a": 200, "small": 200, "new": 40, OTHER_SEGMENT: 300}
    report = compare(segmented(rows), segmented(seen, {OTHER_SEGMENT: 5.0, "new": 5.0}, seed=9), min_effect=1.0)
    assert verdicts(report) == {"a": "no drift", "small": FEW, "new": NEW, "gone": GONE, OTHER_SEGMENT: REMAINDER}
    assert [segment.name for segment in report.segments][-1] == OTHER_SEGMENT
    assert report.segment_families == 2  # inputs and labels of a
    assert not any(segment.drift for segment in report.segments)
    assert any("new may be among the rows of 'other' in the baseline and those" in note for note in report.notes)


def test_no_doubt_without_a_remainder(segmented):
    report = compare(segmented({"a": 50, "b": 50}), segmented({"a": 50}, seed=9))
    assert verdicts(report) == {"a": "no drift", "b": GONE}
    assert not any("other" in note for note in report.notes)


def test_half_of_alpha_is_the_segments(segmented):
    baseline, window = segmented(ROWS), segmented(ROWS, {"c": 0.3}, seed=9)
    report = compare(baseline, window)
    bare = compare(Profile(baseline.groups, baseline.rows), Profile(window.groups, window.rows))
    assert (bare.segments, bare.segment_families, bare.families) == ((), 0, report.families)
    for group, other in zip(report.groups, bare.groups, strict=True):
        for stream, same in zip(group.streams, other.streams, strict=True):
            assert stream.p_value == pytest.approx(min(1.0, 2 * same.p_value), rel=1e-12)
    assert report.segment_families == 6
    for segment in report.segments:
        for group in segment.groups:
            smallest = min(group.streams, key=lambda stream: stream.raw_p_value)
            holm = len(group.streams) * smallest.raw_p_value
            assert smallest.p_value == pytest.approx(min(1.0, 2 * 6 * holm), rel=1e-12)


def test_labels_are_not_tested_within_segments_by_label(segmented):
    report = compare(segmented(ROWS, by="label"), segmented(ROWS, by="label", seed=9))
    assert {group.name for segment in report.segments for group in segment.groups} == {"inputs"}
    moved = segmented(ROWS, classes={"a": ["x"] * 200 + ["y"] * 200}, seed=9)
    by_site = compare(segmented(ROWS), moved)
    assert "labels" in [stream.stream for stream in by_site.segments[0].moved]


@pytest.mark.parametrize(("ours", "theirs"), [("site", None), (None, "label"), ("site", "label")])
def test_other_ways_of_segmenting_are_noted(segmented, ours, theirs):
    sides = []
    for by, seed in ((ours, 0), (theirs, 9)):
        profile = segmented({"a": 50}, by=by, seed=seed)
        if by is None:
            profile.segments, profile.info = {}, {}
        sides.append(profile)
    report = compare(*sides)
    assert report.segments == ()
    assert any("segments were not compared" in note for note in report.notes)


def test_json_has_every_segment(segmented):
    report = compare(segmented(ROWS), segmented(ROWS, {"b": 1.0}, seed=9))
    found = json.loads(report.to_json())
    assert found == report.to_dict()
    assert [segment["name"] for segment in found["segments"]] == [segment.name for segment in report.segments]
    assert found["segments"][0] == {
        **{"name": "b", "title": "b", "verdict": "drift", "drift": True, "n_baseline": 300, "n_window": 300},
        **{"tested": 4, "moved": 1, "streams": found["segments"][0]["streams"]},
    }
    assert found["segments"][0]["streams"][0]["stream"] == "inputs/0"
    assert (found["segment_by"], found["segment_families"]) == ("site", 6)


@pytest.mark.parametrize("width", [60, 100])
def test_text_keeps_to_its_width(segmented, width):
    long = {"a name of many words " * 8: 60, "multi\nline\tname": 60, "b": 400}
    report = compare(segmented(long), segmented(long, dict.fromkeys(long, 2.0), seed=9))
    text = report.to_text(width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    start = lines.index("segments by site: 3 of 3 segments moved")
    assert lines[start + 1].split() == ["segment", "baseline", "window"]
    assert any(line.startswith("* multi line name") for line in lines[start:])
    assert "half of it for" in text.replace("\n", " ")


def test_a_segment_without_groups_has_a_verdict():
    assert SegmentDrift("a", 3, 0, reason=GONE).verdict == "gone"
    assert SegmentDrift("a", 3, 0, reason=GONE).effect == -1


def test_false_alarms_are_those_of_the_whole_report(segmented):
    """At alpha 0.2 and no smallest effect; 60 windows of 6 segments would alarm 12 times if the test were exact."""
    rows = dict.fromkeys("abcdef", 120)
    alarms = sum(
        compare(
            segmented(rows, seed=100 * i), segmented(rows, seed=100 * i + 50), false_alarm_rate=0.2, min_effect=0.0
        ).drift
        for i in range(60)
    )
    assert alarms <= 21  # above this once in 400 times at 20%
