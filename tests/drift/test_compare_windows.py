"""Windows held against clean ones: which rows and sketches are used, interpolation, widening."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from calibrations import WIDTH, batch, calibrated_baseline, window

from lensai_integrations import Profile, Profiler
from lensai_integrations.drift import max_t
from lensai_integrations.drift.calibration import calibration_of
from lensai_integrations.drift.max_t import complete_rows, corrected_statistics


@pytest.fixture(scope="module")
def baseline():
    return calibrated_baseline(0)


@pytest.fixture(scope="module")
def calibration(baseline):
    return calibration_of(baseline)


def by_kind(judged):
    return {(each.part.group, each.part.block.kind): each for each in judged}


def without_rows(profile):
    return replace(profile, rows=None)


def test_everything_is_judged_where_all_rows_are_kept(baseline, calibration, rng):
    judged = corrected_statistics(calibration, window(rng, 80, baseline))
    assert len(judged) == len(calibration.parts)
    for each in judged:
        assert each.m == 80
        assert each.values.shape == each.log_p.shape == (len(each.part.block.statistics), each.part.block.streams)
        assert each.alone.shape == (len(each.part.block.statistics),)
        assert (each.log_p <= 0).all()


def test_sketches_say_the_same_where_they_are_exact(baseline, calibration, rng):
    seen = window(rng, 80, baseline)
    full, known = (
        by_kind(corrected_statistics(calibration, seen)),
        by_kind(corrected_statistics(calibration, without_rows(seen))),
    )
    kinds = {kind for _, kind in known}
    assert kinds == {"distributions", "class_shares", "kernel"}  # no sketch has the mean of what is cut off
    for key, each in known.items():
        np.testing.assert_allclose(each.values, full[key].values, rtol=2e-3, atol=2e-3)


def test_a_window_that_outgrew_its_sample_is_judged_by_sketches(baseline, calibration, rng):
    seen = window(rng, 500, baseline, rows=100)
    assert complete_rows(seen) == {}
    assert complete_rows(Profile()) == {}
    assert set(complete_rows(window(rng, 50, baseline))) >= {"outputs", "embeddings/pool"}
    sizes = {each.part.block.kind: each.m for each in corrected_statistics(calibration, seen)}
    assert sizes == {"distributions": 500, "kernel": 500, "class_shares": 500, "bounded_components": 100}


def test_the_error_of_ranks_makes_distributions_alone_less_certain(baseline, calibration, rng):
    seen = without_rows(window(rng, 4000, baseline))
    before = by_kind(corrected_statistics(calibration, seen))
    exact = {
        key: each.part.block.compare(
            each.part.mean,
            each.part.block.known(seen.groups[key[0]])[0],
            np.float32((1 / 4000 + 1 / each.part.n) ** -0.5),
        )
        for key, each in before.items()
    }
    for key, each in before.items():
        ratio = np.median(each.values / exact[key])
        assert ratio < 0.999 if key[1] == "distributions" else ratio == pytest.approx(1, abs=1e-4)


def test_a_kernel_mean_at_other_bandwidths_is_computed_from_rows(calibration, rng):
    made = batch(rng, 1)
    profiler = Profiler(seed=2)
    profiler.update(embeddings={"pool": made["embeddings"]["pool"]})
    seen = profiler.profile()
    kernel = next(p.block for p in calibration.parts if (p.group, p.block.kind) == ("embeddings/pool", "kernel"))
    assert kernel.known(seen.groups["embeddings/pool"]) is None
    assert ("embeddings/pool", "kernel") in by_kind(corrected_statistics(calibration, seen))


def test_rows_that_are_not_finite_are_left_out(baseline, calibration, rng):
    seen = window(rng, 100, baseline, change="nan", share=0.3)
    judged = by_kind(corrected_statistics(calibration, seen))
    assert judged["outputs", "distributions"].m == 100
    assert judged["embeddings/pool", "distributions"].m == seen.groups["embeddings/pool"].n < 90
    gone = by_kind(corrected_statistics(calibration, window(rng, 20, baseline, change="nan")))
    assert {group for group, _ in gone} == {"outputs"}


def test_rows_without_an_answer_are_of_no_class(baseline, calibration, rng):
    made = batch(rng, 100)
    made["outputs"][:30] = np.nan
    profiler = Profiler(like=baseline, seed=1)
    profiler.update(outputs=made["outputs"])
    classes = by_kind(corrected_statistics(calibration, profiler.profile()))["outputs", "class_shares"]
    assert classes.m == 70


def test_groups_that_are_missing_or_of_other_streams_are_left_out(baseline, calibration, rng):
    profiler = Profiler(seed=1)
    profiler.update(embeddings={"pool": rng.normal(size=(50, WIDTH + 1)), "other": rng.normal(size=(50, 3))})
    assert corrected_statistics(calibration, profiler.profile(), baseline.reference) == []


def test_between_two_sizes_logarithms_are_interpolated(baseline, calibration, rng, monkeypatch):
    asked = []

    def spy(parts, values, counts, size):
        asked.append(size)
        return [(np.full((1, 1), -1.0 - size), np.array([-1.0 - size])) for _ in parts]

    monkeypatch.setattr(max_t, "_adjusted", spy)
    monkeypatch.setattr(max_t, "widened", lambda logs, rows: logs)
    sizes = calibration.sizes  # 5, 10, 25, 50, 100, 200
    found = {}
    for m in (1, 5, 7, 50, 5000):
        asked.clear()
        found[m] = (
            corrected_statistics(calibration, window(rng, m, baseline, rows=5000))[0].log_p.item(),
            tuple(asked),
        )
    between = np.log(7 / 5) / np.log(2)
    assert found[1] == found[5] == (-1.0, (0,))
    assert found[7] == (pytest.approx(-1 - between), (0, 1))
    assert found[50] == (pytest.approx(-4), (3,))
    assert found[5000] == (pytest.approx(-len(sizes)), (len(sizes) - 1,))


def test_widening_makes_nothing_more_certain():
    logs = np.linspace(-50, 0, 20)
    few, many = max_t.widened(logs, 200), max_t.widened(logs, 10_000)
    assert (logs <= many).all()
    assert (many <= few).all()
    assert (few <= 0).all()
    assert (np.diff(few) >= 0).all()


def test_adjusted_p_values_are_those_of_the_smallest_over_the_same_draws(calibration, rng):
    """By a plain loop over statistics and draws, counting up to the tail."""
    parts = list(calibration.parts)
    values = [part.null.centre[2] + 2 * part.null.spread[2] for part in parts]
    smallest = []
    for draw in range(calibration.draws):
        each = []
        for part in parts:
            logs = part.null.log_p(part.null.largest[2], 2)[:, draw]
            each += [log - np.log(weight) for log, weight in zip(logs, part.block.weights, strict=True)]
        smallest.append(min(each))
    smallest = np.array(smallest)
    for part, value, (logs, alone) in zip(
        parts, values, max_t._adjusted(parts, values, [100] * len(parts), 2), strict=True
    ):
        own = part.null.log_p(part.null.standard(value, 2) * max_t.shrinkage(100, part.n), 2)
        np.testing.assert_allclose(alone, own.min(axis=1))
        for row, weight, found in zip(own, part.block.weights, logs, strict=True):
            p = (np.sum(smallest[:, None] <= row - np.log(weight), axis=0) + 1) / (calibration.draws + 1)
            within = p > 0.06
            np.testing.assert_allclose(np.exp(found)[within], p[within], rtol=1e-6)
