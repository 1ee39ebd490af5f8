"""From evidence to decisions, by hand-made evidence."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from lensai_integrations.drift.calibration import Part
from lensai_integrations.drift.compare import (
    CorrectedBlock,
    DriftLimits,
    by_calibration,
    by_false_discoveries,
    by_formulas,
    count_families,
    holm_of,
)
from lensai_integrations.drift.kernel import KernelTest
from lensai_integrations.drift.result import GroupDrift, StreamDrift, VectorDrift

LIMITS = DriftLimits(0.05, 0.1)


def stream(name, raw, effect=0.5, kind="numbers"):
    return StreamDrift(name, kind, "", False, effect, math.nan, raw)


def group(name, *raw, vectors=None, effect=0.5):
    streams = tuple(stream(f"{name}/{i}", p, effect) for i, p in enumerate(raw))
    test = (
        None
        if vectors is None
        else VectorDrift(False, math.nan, KernelTest(0.1, 0.5, vectors, "bound", 100, 50, (1.0,)))
    )
    return GroupDrift(name, 100, 50, 0, 0, streams, test)


def judged(name, kind, statistics, p):
    """Evidence of a block: p-values `[statistics, streams]`."""
    block = SimpleNamespace(kind=kind, statistics=statistics)
    return CorrectedBlock(Part(name, name, block, None, 1, None), None, np.log(np.array(p, float)), np.zeros(1), 50)


def window(**streams):
    return SimpleNamespace(groups={name: SimpleNamespace(streams=each) for name, each in streams.items()})


def p_values(group):
    return {stream.stream: stream.p_value for stream in group.streams}


def test_limits():
    assert LIMITS.drift(0.049, 0.1)
    assert not LIMITS.drift(0.05, 1.0)
    assert not LIMITS.drift(0.0, 0.09)
    assert not LIMITS.drift(math.nan, 1.0)


def test_families_and_holm():
    groups = [group("a", 0.01, 0.02, vectors=0.001), group("b", 0.5), GroupDrift("c", 1, 1, 0, 0)]
    assert count_families(groups) == 3
    assert holm_of(groups[0], 3) == pytest.approx({"a/0": 0.06, "a/1": 0.06, "": 0.003})
    assert holm_of(groups[1], 3) == {"b/0": 1.0}
    first, *_ = by_formulas(groups, 3, LIMITS)
    assert first.vectors.drift
    assert not first.moved
    halved, *_ = by_formulas(groups, 3, DriftLimits(0.05, 0.1, shares=2))
    assert halved.vectors.p_value == pytest.approx(0.006)


def test_pixels_and_streams_without_a_test_are_left_as_they_are():
    given = GroupDrift("a", 1, 1, 0, 0, (stream("a/0", 1e-9), stream("a/pixel", math.nan, 1.0, "pixels")))
    [found] = by_formulas([given], 1, LIMITS)
    assert [s.stream for s in found.moved] == ["a/0"]
    assert math.isnan(p_values(found)["a/pixel"])


def test_false_discoveries_are_counted_over_all_groups_and_vectors():
    groups = [group("a", 0.001, 0.2), group("b", 0.02, vectors=0.03)]
    adjusted = {"a/0": 0.001 * 4, "b/0": 0.02 * 2, "": 0.03 * 4 / 3, "a/1": 0.2}  # each times 4 over its rank
    a, b = by_false_discoveries(groups, LIMITS)
    assert p_values(a) | p_values(b) == pytest.approx({name: p for name, p in adjusted.items() if name})
    assert b.vectors.p_value == pytest.approx(adjusted[""])
    assert [s.stream for g in (a, b) for s in g.moved] == ["a/0", "b/0"]
    doubled = by_false_discoveries(groups, DriftLimits(0.05, 0.1, shares=2))[0]
    assert p_values(doubled)["a/0"] == pytest.approx(2 * adjusted["a/0"])
    assert by_false_discoveries([], LIMITS) == []


def test_a_calibrated_stream_has_the_p_value_of_its_best_statistic():
    evidence = [judged("a", "distributions", ("ks", "wasserstein"), [[0.5, 0.01], [0.04, 0.3]])]
    [found], families = by_calibration([group("a", 1e-9, 0.9)], evidence, window(a=("0", "1")), LIMITS)
    assert families == 0
    assert p_values(found) == pytest.approx({"a/0": 0.04, "a/1": 0.01})
    assert {s.stream: s.statistic for s in found.streams} == {"a/0": "wasserstein", "a/1": "ks"}
    assert len(found.moved) == 2


def test_small_effects_are_no_drift_however_certain():
    evidence = [judged("a", "distributions", ("ks",), [[1e-9]])]
    [found], _ = by_calibration([group("a", 0.5, effect=0.09)], evidence, window(a=("0",)), LIMITS)
    assert not found.drift


def test_rows_as_vectors_say_every_statistic_worst_first():
    evidence = [
        judged("a", "distributions", ("ks",), [[0.5]]),
        judged("a", "kernel", ("mmd",), [[0.2]]),
        judged("a", "principal", ("mean", "spread"), [[0.9], [0.01]]),
    ]
    [found], _ = by_calibration([group("a", 0.5, vectors=0.5)], evidence, window(a=("0",)), LIMITS)
    assert [name for name, _ in found.vectors.statistics] == ["spread", "mmd", "mean"]
    assert found.vectors.drift
    assert found.vectors.test.p_value == 0.5
    [bare], _ = by_calibration([group("a", 0.5)], evidence, window(a=("0",)), LIMITS)
    assert bare.vectors.test is None
    assert bare.vectors.drift
    [small], _ = by_calibration([group("a", 0.5, effect=0.09)], evidence, window(a=("0",)), LIMITS)
    assert small.vectors.effect == 0.09
    assert small.vectors.p_value == found.vectors.p_value
    assert not small.drift


def test_what_is_not_calibrated_takes_its_share_of_the_rate():
    """Streams and rows of one group known, labels not: two families of three have the calibrated two thirds."""
    evidence = [judged("a", "distributions", ("ks",), [[0.02]]), judged("a", "kernel", ("mmd",), [[0.04]])]
    groups = [group("a", 0.5), group("labels", 0.01)]
    found, families = by_calibration(groups, evidence, window(a=("0",), labels=()), LIMITS)
    assert families == 1
    assert p_values(found[0])["a/0"] == pytest.approx(0.02 * 3 / 2)
    assert found[0].vectors.p_value == pytest.approx(0.04 * 3 / 2)
    assert p_values(found[1])["labels/0"] == pytest.approx(0.01 * 3)
    assert not found[0].vectors.drift
    assert found[1].drift
    halved, _ = by_calibration(groups, evidence, window(a=("0",), labels=()), DriftLimits(0.05, 0.1, shares=2))
    assert p_values(halved[0])["a/0"] == pytest.approx(0.02 * 3)
    assert p_values(halved[1])["labels/0"] == pytest.approx(0.01 * 6)


def test_classes_are_a_stream_of_their_own():
    evidence = [judged("outputs", "class_shares", ("freeman_tukey",), [[0.03]])]
    given = GroupDrift("outputs", 1, 1, 0, 0, (stream("outputs/top_class", 0.9, kind="categories"),))
    [found], families = by_calibration([given], evidence, window(outputs=()), LIMITS)
    assert (families, p_values(found)) == (0, {"outputs/top_class": pytest.approx(0.03)})
    assert found.streams[0].statistic == "freeman_tukey"


def test_p_values_stay_within_0_and_1():
    evidence = [judged("a", "distributions", ("ks",), [[1.0, 1e-300]])]
    [found, _], _ = by_calibration(
        [group("a", 0.5, 0.5), group("b", 0.9)], evidence, window(a=("0", "1"), b=()), LIMITS
    )
    assert all(0 <= p <= 1 for p in p_values(found).values())
