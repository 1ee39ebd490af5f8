"""Equal up to rounding is equal: whatever the column, the precision and the library, rounding alone makes no drift."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lensai_integrations import Profiler, calibrate, compare
from lensai_integrations.drift.features import Distributions, Kernel, shares_at_or_below
from lensai_integrations.drift.rounding import Rounding, are_shared, near, rounded_mmd, typical_sizes
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import from_bytes, to_bytes
from lensai_integrations.sketches.kernel_mean import KernelMean

ROWS, WINDOW = 600, 300
#: Bits of a number that count.
BITS = {"float32": 24, "float16": 11, "bfloat16": 8}


def columns(rng, n):
    """A column of each kind that rounding could make drift of; the last two are as smooth as columns usually are."""
    normal = rng.normal(size=(n, 9))
    return np.stack(
        [
            np.full(n, 0.6142857),  # a pruned channel
            np.zeros(n),
            rng.choice([0.1, 0.7, 0.71], size=n, p=[0.5, 0.3, 0.2]),  # tied
            np.maximum(normal[:, 0] - 0.5, 0),  # a ReLU: seven of ten are 0
            np.where(normal[:, 1] > -0.5, 1.0, 1 - 1e-3 * np.abs(normal[:, 2])),  # saturated
            np.minimum(np.maximum(normal[:, 3], 0), 1.0),  # at both ends
            np.round(normal[:, 4] * 4) / 4,  # quantised
            rng.standard_cauchy(n).clip(-1e3, 1e3),
            np.where(normal[:, 5] > 1, rng.standard_cauchy(n).clip(-1e3, 1e3), 2.0),
            100 + normal[:, 6],
            normal[:, 7],
        ],
        axis=1,
    )


def rounded(rows, bits):
    """The nearest numbers of so many bits."""
    mantissa, exponent = np.frexp(rows)
    return np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits)


def moved(rng, rows, bits, how, units):
    """The same after as much rounding as another library makes: all one way, or each its own."""
    unit = np.abs(rows) * 2.0 ** (1 - bits)
    step = {"up": 1.0, "down": -1.0, "to and fro": rng.uniform(-1, 1, rows.shape)}[how]
    each = rng.choice([-1.0, 1.0], size=rows.shape[1]) if how == "up" else 1.0
    return rounded(rows + unit * step * units * each, bits)


def profile(rows, precision, like=None):
    profiler = Profiler(source="validation", seed=1) if like is None else Profiler(like=like, seed=2)
    profiler.update(embeddings={"pool": rows.astype(np.float16 if precision == "float16" else np.float32)})
    seen = profiler.profile()
    group = seen.groups["embeddings/pool"]
    if precision == "bfloat16":  # numpy has none
        seen.groups["embeddings/pool"] = replace(group, info={**group.info, "precision": precision})
    return seen


@settings(
    deadline=None, max_examples=40, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck)
)
@given(
    precision=st.sampled_from(list(BITS)),
    of_baseline=st.sampled_from(["same", "float32"]),
    how=st.sampled_from(["up", "down", "to and fro"]),
    scale=st.sampled_from([1e-3, 0.3, 1.0, 7.0, 40.0]),
    seed=st.integers(0, 10_000),
)
def test_rounding_makes_no_drift(precision, of_baseline, how, scale, seed):
    rng = np.random.default_rng(seed)
    baseline_bits = BITS[precision if of_baseline == "same" else "float32"]
    rows = columns(rng, ROWS) * scale
    reference = profile(rounded(rows, baseline_bits), precision if of_baseline == "same" else "float32")
    units = 8 if precision == "float32" else 1
    seen = moved(rng, rounded(rows[:WINDOW], BITS[precision]), BITS[precision], how, units)
    window = profile(seen, precision, reference)
    for baseline in (calibrate(reference, draws=100), reference):
        report = compare(baseline, window)
        assert not report.drift, report.to_text()
        assert not compare(baseline, window, correction="benjamini-hochberg").drift
        streams = {stream.stream.rsplit("/", 1)[1]: stream for stream in report.groups[0].streams}
        assert streams["0"].effect == streams["1"].effect == 0.0
        assert streams["0"].wasserstein == 0.0
        assert streams["0"].psi == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("precision", list(BITS))
@pytest.mark.parametrize("column", range(11))
def test_what_changed_by_more_is_still_found(precision, column):
    """Every column by itself: by half of its own spread, or the share of its values at one of them."""
    rng = np.random.default_rng(column)
    rows, fresh = rounded(columns(rng, 1000), BITS[precision]), columns(rng, 1000)
    at_once = {2: (0.7, 0.1), 3: (0.0, 0.8), 4: (1.0, 0.9), 5: (1.0, 0.3), 8: (2.0, 9.0)}
    if column in at_once:  # most of those at one value are at another
        value, other = at_once[column]
        those = fresh[:, column] == value
        fresh[:, column] = np.where(those & (rng.uniform(size=1000) < 0.9), other, fresh[:, column])
    else:
        low, high = np.quantile(fresh[:, column], (0.25, 0.75))
        fresh[:, column] += max((high - low) * 0.4, 0.06 * abs(low), 0.01)
    reference = profile(rows, precision)
    window = profile(rounded(fresh, BITS[precision]), precision, reference)
    for baseline in (calibrate(reference, draws=100), reference):
        assert f"embeddings/pool/{column}" in {stream.stream for stream in compare(baseline, window).moved}


def test_a_constant_that_comes_out_another_way_is_the_same_in_any_distance():
    reference = profile(np.full((200, 2), 0.3, np.float32), "float32")
    window = profile(np.full((50, 2), np.nextafter(np.float32(0.3), 1)), "float32", reference)
    for stream in compare(reference, window).groups[0].streams:
        assert stream.effect == stream.wasserstein == stream.energy == stream.hellinger == 0.0
        assert stream.raw_p_value == 1.0
    other = profile(np.full((50, 2), 0.31, np.float32), "float32", reference)
    for stream in compare(reference, other).groups[0].streams:
        assert stream.effect == 1.0
        assert stream.wasserstein == np.inf


def test_a_baseline_of_two_libraries_has_no_two_values():
    one, two = np.float32(0.3), np.nextafter(np.float32(0.3), np.float32(1))
    reference = profile(np.repeat([one, two], 300)[:, None] * np.ones((1, 3), np.float32), "float32")
    window = profile(np.full((100, 3), np.nextafter(two, np.float32(1))), "float32", reference)
    for baseline in (calibrate(reference, draws=100), reference):
        report = compare(baseline, window)
        assert not report.drift
        assert {stream.effect for stream in report.groups[0].streams} == {0.0}


def test_a_baseline_that_was_compacted_is_told_from_no_rounding():
    """Of more rows than the sketches keep ranks come from weights."""
    rng = np.random.default_rng(0)
    reference = profile(columns(rng, 20_000), "float32")
    window = profile(moved(rng, rounded(columns(rng, 9000), 24), 24, "up", 8), "float32", reference)
    report = compare(reference, window)
    assert not report.drift
    assert max(stream.effect for stream in report.groups[0].streams) < 0.05


def test_earlier_baselines_are_held_against_rounding_as_well():
    """Their edges are where the edges of this release are, so a stored calibration is enough."""
    rng = np.random.default_rng(0)
    rows = columns(rng, ROWS)
    stored = calibrate(profile(rows, "float32"), draws=100)
    again = from_bytes(to_bytes(stored))
    assert not compare(again, profile(moved(rng, rounded(rows[:100], 24), 24, "up", 8), "float32", again)).drift


def test_the_coarser_precision_counts():
    half, brain, full = (Group("outputs", info={"precision": name}) for name in ("float16", "bfloat16", ""))
    assert Rounding.of() == Rounding.of(full) == Rounding.of(None, Group("labels"))
    assert Rounding.of(full, half) == Rounding.of(half)
    assert Rounding.of(half, brain) == Rounding.of(brain)
    assert Rounding.of(full).relative < Rounding.of(half).relative < Rounding.of(brain).relative


def test_precision_is_noted_where_it_is_half():
    rows = np.random.default_rng(0).normal(size=(20, 3))
    for dtype, noted in ((np.float16, "float16"), (np.float32, None), (np.float64, None)):
        profiler = Profiler()
        profiler.update(outputs=rows.astype(dtype), embeddings={"map": np.ones((20, 2, 4, 4), dtype)})
        groups = profiler.profile().groups
        assert {groups[name].info.get("precision") for name in ("outputs", "embeddings/map")} == {noted}


def test_what_was_merged_is_as_coarse_as_its_coarsest_part():
    rows = np.random.default_rng(0).normal(size=(20, 3))
    brain, half, full = (
        Group("outputs", info=info) for info in ({"precision": "bfloat16"}, {"precision": "float16"}, {})
    )
    assert full.merge(half).info["precision"] == half.merge(full).info["precision"] == "float16"
    assert half.merge(brain).info["precision"] == "bfloat16"
    assert "precision" not in full.merge(full).info
    one, two = Profiler(), Profiler()
    one.update(outputs=rows.astype(np.float16))
    two.update(outputs=rows)
    assert one.profile().merge(two.profile()).groups["outputs"].info["precision"] == "float16"


def test_half_precision_on_one_side_leaves_no_answer_out():
    """That is for measures of pixels, which rounding moves."""
    rng = np.random.default_rng(0)
    reference = profile(rng.normal(size=(400, 4)), "float32")
    report = compare(calibrate(reference, draws=100), profile(rng.normal(size=(200, 4)), "float16", reference))
    assert not any("precision" in note for note in report.groups[0].notes)
    assert {name for name, _ in report.groups[0].vectors.statistics} == {"mmd", "mahalanobis"}


def test_values_near_the_targets_are_these_and_others_stay():
    values, target = np.array([[1.0, 2.0, 3.0]]), np.array([[1.01, 2.5, 2.99]])
    assert near(values, target, np.full((1, 3), 0.02)).tolist() == [[1.01, 2.0, 2.99]]


def test_typical_sizes_of_a_layer_know_what_cancels():
    assert typical_sizes([-1e-9, -4.0], [1e-9, 2.0], of_layer=True)[0] == pytest.approx(2.0 / 16, rel=1e-6)
    assert typical_sizes([-1e-9, -4.0], [1e-9, 2.0], of_layer=False)[0] == 1e-9
    assert typical_sizes([], [], of_layer=True).shape == (0,)


def test_values_are_shared_whatever_their_neighbours():
    assert are_shared(np.array([[0.0, 0.0, 1.0]]), np.ones(1), of_layer=False).tolist() == [[True, False]]


def test_edges_without_rounding_are_the_plain_features():
    """A smooth column has nothing to be tolerant of."""
    rng = np.random.default_rng(0)
    rows, window = rng.normal(size=(500, 3)).astype(np.float32), rng.normal(size=(80, 3)).astype(np.float32)
    block = Distributions.of(rows)
    mean = block.mean(rows)
    near_mean = block.near(mean, lambda points: shares_at_or_below(window, points), Rounding.of(), of_layer=True)
    assert near_mean == pytest.approx(block.mean(window), abs=1 / 80 + 1e-6)
    same = block.near(mean, lambda points: shares_at_or_below(rows, points), Rounding.of(), of_layer=True)
    assert same == pytest.approx(mean)


def test_a_share_at_one_value_is_counted_in_full():
    """Zeros that became fewer, and zeros that became more: neither is smoothed away."""
    rows = np.concatenate([np.zeros(50), np.linspace(1, 2, 50)]).astype(np.float32)[:, None]
    block = Distributions.of(rows)
    for zeros in (20, 80):
        window = np.concatenate([np.zeros(zeros), np.linspace(1, 2, 100 - zeros)]).astype(np.float32)[:, None]
        noisy = window + np.float32(5e-7) * (window == 0)
        for seen in (window, noisy):
            shares = partial(shares_at_or_below, seen)
            mean = block.near(block.mean(rows), shares, Rounding.of(), of_layer=False)
            plain = block.compare(block.mean(rows), block.mean(window), np.float32(1))
            assert block.compare(block.mean(rows), mean, np.float32(1)) == pytest.approx(plain, rel=0.02)


def test_the_kernel_knows_how_far_rounding_reaches():
    rows = np.zeros((50, 4))
    means = []
    for shift in (0.0, 0.01):
        mean = KernelMean(4, exponents=(0, 1))
        mean.update(rows + shift)
        means.append(mean)
    length = 0.01 * 2
    assert means[0].mmd(means[1]) <= rounded_mmd(length, means[0].bandwidths) * 1.2
    block = Kernel(4, 256, means[0].seed, (0, 1))
    reference, window = (mean.mean.astype(np.float32).ravel() for mean in means)
    assert block.near(reference, window, 0.0) is window
    assert block.near(reference, window, 2 * length) == pytest.approx(reference)
    half = block.near(reference, window, length / 2)
    assert np.linalg.norm(half - reference) == pytest.approx(np.linalg.norm(window - reference) / 2, rel=0.15)
