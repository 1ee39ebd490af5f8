"""Statistics of single streams against scipy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import ks_2samp, power_divergence

from lensai_integrations.drift.features import _TAIL, ClassShares, Distributions
from lensai_integrations.errors import FormatError
from lensai_integrations.profiles.groups import Group
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.categories import Categories

ONE = np.float32(1)
ANY_ROWS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 60), st.integers(1, 4)),
    elements=st.one_of(
        st.floats(-(2.0**50), 2.0**50, width=32), st.integers(-2, 2).map(float), st.sampled_from([1e30, -1e30, 0.5])
    ),
)


def compared(block, before, after):
    return dict(zip(block.statistics, block.compare(block.mean(before), block.mean(after), ONE), strict=True))


def columns(rng, n):
    """A stream of every kind: continuous, of few values, of one value, skewed with outliers."""
    return np.stack(
        [rng.normal(size=n), rng.integers(0, 3, n), np.full(n, 0.1), rng.exponential(size=n) ** 4], axis=1
    ).astype(np.float32)


# -- distributions


def test_ks_is_scipys_where_all_values_lie_at_edges(rng):
    rows = rng.normal(size=(500, 3)).astype(np.float32)
    block = Distributions.of(rows)
    before = np.stack([rng.choice(edges[1:], 300) for edges in block.edges], axis=1)
    after = np.stack([rng.choice(edges[8:], 70) for edges in block.edges], axis=1)
    expected = [ks_2samp(a, b).statistic for a, b in zip(before.T, after.T, strict=True)]
    np.testing.assert_allclose(compared(block, before, after)["ks"], expected, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(ANY_ROWS, st.integers(0, 2**31))
def test_ks_is_never_above_scipys_and_mean_is_the_mean_of_features(rows, seed):
    rng = np.random.default_rng(seed)
    block = Distributions.of(rows)
    assert (np.diff(block.edges, axis=1) >= 0).all()
    after = np.stack([rng.choice(np.append(column, column[0] / 2), 9) for column in rows.T], axis=1)
    np.testing.assert_allclose(block.mean(after), block.features(after).mean(axis=0), atol=1e-6)
    exact = [ks_2samp(a, b).statistic for a, b in zip(rows.T, after.T, strict=True)]
    assert (compared(block, rows, after)["ks"] <= np.array(exact) + 1e-6).all()
    assert (compared(block, rows, rows)["anderson_darling"] == 0).all()


def test_a_stream_of_few_values_is_compared_exactly(rng):
    before = rng.integers(0, 4, (400, 1)).astype(np.float32)
    after = rng.integers(1, 5, (60, 1)).astype(np.float32)
    block = Distributions.of(before)
    exact = ks_2samp(before[:, 0], after[:, 0]).statistic
    assert compared(block, before, after)["ks"][0] == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(("value", "expected"), [(0.1, 0.0), (0.05, 1.0), (0.2, 1.0), (1e30, 1.0), (-1e30, 1.0)])
def test_a_constant_stream(value, expected):
    rows = np.full((200, 1), 0.1, np.float32)
    found = compared(Distributions.of(rows), rows, np.full((3, 1), value, np.float32))
    assert found["ks"][0] == expected
    assert np.isfinite(found["anderson_darling"]).all()


def test_areas_against_a_plain_loop(rng):
    rows, after = columns(rng, 400), columns(rng, 50) + np.float32(0.3)
    block = Distributions.of(rows)
    found = compared(block, rows, after)
    for place, edges in enumerate(block.edges):
        f = [float(np.mean(rows[:, place] <= edge)) for edge in edges]
        g = [float(np.mean(after[:, place] <= edge)) for edge in edges]
        area = tails = 0.0
        for i, (one, two) in enumerate(zip(f, g, strict=True)):
            low, high = f[i - 1] if i else 0.0, f[i + 1] if i + 1 < len(f) else 1.0
            area += abs(one - two) * (high - low) / 2
            tails += (one - two) ** 2 * (high - low) / 2 / ((one + _TAIL) * (1 - one + _TAIL))
        assert found["wasserstein"][place] == pytest.approx(area, rel=1e-4, abs=1e-6)
        assert found["anderson_darling"][place] == pytest.approx(tails**0.5, rel=1e-4, abs=1e-5)


def test_scale_multiplies_and_leading_axes_are_kept(rng):
    rows = columns(rng, 100)
    block = Distributions.of(rows)
    windows = np.stack([block.mean(columns(rng, 20) + k) for k in range(6)]).astype(np.float32).reshape(2, 3, -1)
    scale = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    together = block.compare(block.mean(rows), windows, scale)
    assert together.shape == (3, 2, 3, 4)
    one = block.compare(block.mean(rows), windows[1, 2], ONE)
    np.testing.assert_allclose(together[:, 1, 2], 6 * one, rtol=1e-6)


def test_parts_together_are_the_whole(rng):
    rows = rng.normal(size=(100, 150)).astype(np.float32)
    block = Distributions.of(rows)
    parts = list(block.parts())
    assert [part.streams for part, _ in parts] == [64, 64, 22]
    features = np.concatenate([part.features(rows[:, place]) for part, place in parts], axis=1)
    np.testing.assert_array_equal(features, block.features(rows))
    after = rows[:30] + np.float32(0.5)
    whole = block.compare(block.mean(rows), block.mean(after), ONE)
    each = [p.compare(p.mean(rows[:, place]), p.mean(after[:, place]), ONE) for p, place in parts]
    np.testing.assert_allclose(np.concatenate(each, axis=-1), whole, rtol=1e-6)


def test_a_single_row_on_either_side():
    row = np.array([[3.0, -1.0]], np.float32)
    block = Distributions.of(row)
    assert (compared(block, row, row)["ks"] == 0).all()
    assert (compared(block, row, row + 1)["ks"] == 1).all()


def test_distributions_are_known_from_a_bank_that_keeps_all(rng):
    rows, after = columns(rng, 300), columns(rng, 150)
    bank = KLLBank(4)
    bank.update(after)
    block = Distributions.of(rows)
    mean, n = block.known(Group("g", tuple("abcd"), sketches={"bank": bank}))
    assert n == 150
    np.testing.assert_allclose(mean, block.mean(after), atol=1e-6)
    assert block.known(Group("g")) is None


@pytest.mark.parametrize(
    "harm",
    [
        {"edges": np.zeros((2, 5), np.float32)},
        {"edges": np.full((2, 27), np.nan, np.float32)},
        {"edges": np.full((2, 27), np.inf, np.float32)},
        {"edges": np.tile(np.arange(27, 0, -1, dtype=np.float32), (2, 1))},
        {"edges": np.zeros((0, 27), np.float32), "shares": np.zeros((0, 27), np.float32)},
        {"shares": np.full((2, 27), 2, np.float32)},
        {"shares": np.full((2, 27), np.nan, np.float32)},
        {"shares": np.zeros((2, 27))},
    ],
)
def test_damaged_distributions_are_refused(rng, harm):
    state = Distributions.of(rng.normal(size=(50, 2)).astype(np.float32)).state()
    with pytest.raises(FormatError):
        Distributions.from_state(state | harm)


# -- classes


def of_classes(*numbers):
    return np.array(numbers, np.float32)[:, None]


def test_classes_against_scipy(rng):
    before, after = (of_classes(*rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])) for n in (5000, 80))
    block = ClassShares.of(before)
    [apart] = (float(each[0]) for each in compared(block, before, after).values())
    counts = np.bincount(after[:, 0].astype(int), minlength=4)
    shares = np.bincount(before[:, 0].astype(int)) / len(before)
    wanted = power_divergence(counts, 80 * shares, lambda_="freeman-tukey").statistic
    assert 80 * apart**3 == pytest.approx(wanted, rel=1e-3)


def test_a_single_row_of_a_rare_class_decides_nothing(rng):
    """Chi-square calls it 25, for the class is expected in one window of fifty."""
    before = of_classes(*[0] * 2499, 1)
    [apart] = compared(ClassShares.of(before), before, of_classes(*[0] * 49, 1)).values()
    assert 50 * float(apart[0]) ** 3 < 4


def test_classes_never_seen_are_one_more():
    before = of_classes(*[0] * 50, *[1] * 50)
    block = ClassShares.of(before)
    found = compared(block, before, of_classes(0, 1, 7, 9))
    assert found["freeman_tukey"] > compared(block, before, of_classes(0, 0, 1, 1))["freeman_tukey"]
    assert block.shares.sum() == pytest.approx(100 / 101)  # one row of others is expected


def test_as_many_rows_of_others_are_expected_as_there_are_single_ones():
    block = ClassShares.of(of_classes(0, 0, 0, 0, 1, 2, 3, 4))
    assert 1 - block.shares.sum() == pytest.approx(4 / 12)


def test_classes_are_known_from_a_sketch_that_kept_all():
    block, sketch = ClassShares.of(of_classes(0, 1, 2)), Categories()
    sketch.update([0, 0, 2, 5])
    mean, n = block.known(Group("outputs", sketches={"categories/top_class": sketch}))
    assert (mean.tolist(), n) == ([0.5, 0.0, 0.25], 4)
    np.testing.assert_array_equal(mean, block.mean(of_classes(0, 0, 2, 5)))
    assert block.known(Group("outputs")) is None


@pytest.mark.parametrize(
    "harm",
    [
        {"classes": np.array([1, 0], np.float32)},
        {"classes": np.array([0, np.inf], np.float32)},
        {"classes": np.array([0, np.nan], np.float32)},
        {"classes": np.zeros(0, np.float32), "shares": np.zeros(0, np.float32)},
        {"shares": np.array([0, 0.5], np.float32)},
        {"shares": np.array([0.5], np.float32)},
    ],
)
def test_damaged_classes_are_refused(harm):
    with pytest.raises(FormatError):
        ClassShares.from_state(ClassShares.of(of_classes(0, 1)).state() | harm)


def test_states_come_back(rng):
    for block in (Distributions.of(columns(rng, 30)), ClassShares.of(of_classes(3, 1, 1))):
        back = type(block).from_state(block.state())
        for name, array in block.state().items():
            np.testing.assert_array_equal(back.state()[name], array)
