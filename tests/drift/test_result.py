"""The report as data: frozen, sorted, and JSON without a NaN in it."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, fields, is_dataclass

import numpy as np
import pytest

from lensai_integrations.drift.compare import compare
from lensai_integrations.drift.kernel import KernelTest
from lensai_integrations.drift.result import LISTED, WORST, DriftReport, GroupDrift, StreamDrift, VectorDrift, badness


def stream(name="a/x", kind="numbers", drift=False, effect=0.1, p=0.5, **others):
    return StreamDrift(name, kind, "test/x@1", drift, effect, p, p, **others)


def report_of(*groups, notes=()):
    return DriftReport(0.01, 0.1, 3, "validation", "production", 2000, 200, groups, notes)


def vectors(drift):
    return VectorDrift(drift, 0.003, KernelTest(0.2, 0.3, 0.001, "gamma", 2000, 200, (1.0, 2.0)))


def group(name="a", streams=(), **others):
    return GroupDrift(name, 2000, 200, 0, 0, tuple(streams), **others)


def test_nothing_can_be_changed():
    for made in (stream(), group(), report_of(), vectors(True)):
        assert is_dataclass(made)
        with pytest.raises(FrozenInstanceError):
            setattr(made, fields(made)[0].name, None)


@pytest.mark.parametrize(
    ("streams", "joint", "expected"),
    [
        ([stream()], None, False),
        ([stream(), stream(drift=True)], None, True),
        ([stream()], vectors(False), False),
        ([stream()], vectors(True), True),
        ([], None, False),
    ],
)
def test_a_group_drifts_with_a_stream_or_with_its_vectors(streams, joint, expected):
    made = group(streams=streams, vectors=joint)
    assert made.drift is expected
    assert report_of(group("b"), made).drift is expected


def test_counts_leave_pixels_out():
    made = group(streams=[stream(), stream(drift=True), stream("a/pixel/0", "pixels", p=math.nan)])
    assert (made.tested, len(made.moved)) == (2, 1)
    assert report_of(made, made).tested == 4


def test_moved_of_all_groups_worst_first():
    one = group("a", [stream("a/1", drift=True, effect=0.3), stream("a/2", drift=True, effect=0.2), stream("a/3")])
    two = group("b", [stream("b/1", drift=True, effect=0.9), stream("b/2", drift=True, effect=0.25)])
    assert [s.stream for s in report_of(one, two).moved] == ["b/1", "a/1", "b/2", "a/2"]


def test_sorting_by_badness():
    wanted = [
        stream("e", drift=True, effect=0.9),
        stream("d", drift=True, effect=0.2, p=1e-9),
        stream("a", drift=True, effect=0.2, p=1e-3),
        stream("c", effect=0.5),
        stream("b", effect=0.4),
        stream("f", effect=0.4),
        stream("pixel", "pixels", effect=1.0),
    ]
    assert sorted([wanted[i] for i in (3, 6, 0, 5, 2, 4, 1)], key=badness) == wanted


def test_a_long_group_is_summed_up():
    streams = [stream(f"a/{i}", effect=1 - i / 100) for i in range(LISTED + 1)]
    assert group(streams=streams).summed_up
    assert group(streams=streams).listed == tuple(streams[:WORST])
    assert not group(streams=streams[:-1]).summed_up
    assert group(streams=streams[:-1]).listed == tuple(streams[:-1])


# -- JSON


def test_json_is_strict_and_complete():
    made = group(
        streams=[stream(wasserstein=math.inf), stream("a/pixel/0", "pixels", p=math.nan)],
        vectors=vectors(True),
        notes=("something",),
    )
    text = report_of(made, notes=("else",)).to_json()
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert (read["drift"], read["false_alarm_rate"], read["n_baseline"], read["n_window"]) == (True, 0.01, 2000, 200)
    assert (read["against"], read["source"], read["notes"]) == ("validation", "production", ["else"])
    (entry,) = read["groups"]
    assert (entry["name"], entry["tested"], entry["moved"], entry["notes"]) == ("a", 1, 0, ["something"])
    assert entry["streams"][0]["wasserstein"] is None
    assert entry["streams"][1]["p_value"] is None
    assert entry["vectors"]["p_value"] == 0.003
    assert entry["vectors"]["raw_p_value"] == 0.001
    assert entry["vectors"]["bandwidths"] == [1.0, 2.0]


def test_json_of_a_long_group_has_its_worst_streams_only():
    made = group(streams=[stream(f"a/{i}") for i in range(512)])
    entry = report_of(made).to_dict()["groups"][0]
    assert entry["tested"] == 512
    assert len(entry["streams"]) == WORST
    assert len(report_of(made).to_json()) < 6000


def test_a_real_report_through_json(build, rng):
    a, b = rng.normal(size=(300, 3)), rng.normal(0.5, 1, (100, 3))
    pixels = rng.integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    profiles = [
        build({"inputs": rows}, pixels=pixels, categories={"labels": ["é", "b"] * 50}, vectors=("inputs",))
        for rows in (a, b)
    ]
    report = compare(*profiles)
    assert json.loads(report.to_json()) == report.to_dict()
    assert json.loads(report.to_json(indent=None)) == report.to_dict()
    assert "é" in report.to_json()


def test_words_come_from_the_numbers():
    assert stream(baseline=(1.0, 5.0, 9.0), window=(11.0, 15.0, 19.0)).words.startswith("rose: median")
    assert stream(kind="categories", shares=(("cat", 0.1, 0.5),)).words == "cat rose from 10% to 50% of rows"
