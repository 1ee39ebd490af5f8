"""Statistics of whole rows against independent references."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lensai_integrations.drift.features import COMPONENTS, FARTHEST, Kernel, Principal
from lensai_integrations.errors import LensAIError
from lensai_integrations.profiles.groups import Group
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.moments import Moments

ONE = np.float32(1)


def mixed(rng, n, d=6, shift=0.0):
    """Correlated columns of different scales, one of them constant."""
    turn = np.random.default_rng(5).normal(size=(d, d))
    rows = (rng.normal(size=(n, d)) @ turn) * 10.0 ** np.linspace(-1, 1, d) + shift
    rows[:, -1] = 0.1
    return rows.astype(np.float32)


def blocks(rows):
    kernel = KernelMean(rows.shape[1])
    kernel.update(rows)
    return [
        Kernel(rows.shape[1], kernel.frequencies, kernel.seed, kernel.exponents),
        Principal.of(rows),
    ]


def compared(block, before, after):
    values = block.compare(block.mean(before), block.mean(after), ONE)[:, 0]
    return dict(zip(block.statistics, values.tolist(), strict=True))


@pytest.mark.parametrize("number", range(2))
def test_what_all_blocks_have_in_common(rng, number):
    rows, after = mixed(rng, 200), mixed(rng, 40, shift=1.0)
    block = blocks(rows)[number]
    features = block.features(after)
    assert features.dtype == np.float32
    assert features.shape == (40, block.width)
    assert (block.columns, block.streams) == (6, 1)
    assert len(block.weights) == len(block.statistics)
    np.testing.assert_allclose(block.mean(after), features.mean(axis=0, dtype=np.float64), rtol=1e-4, atol=1e-4)
    [(part, columns)] = block.parts()
    np.testing.assert_array_equal(part.features(after[:, columns]), features)

    same = block.compare(block.mean(rows), block.mean(rows), ONE)
    assert same.shape == (len(block.statistics), 1)
    np.testing.assert_allclose(same, 0, atol=0.03)  # cube roots of rounding errors
    stacked = np.stack([block.mean(after), block.mean(rows[:40])])[None]
    together = block.compare(block.mean(rows), stacked, np.ones((1, 2), np.float32))
    assert together.shape == (len(block.statistics), 1, 2, 1)
    one = block.compare(block.mean(rows), block.mean(after), ONE)
    np.testing.assert_allclose(together[:, 0, 0], one, rtol=1e-4, atol=1e-5)

    back = type(block).from_state(block.state())
    np.testing.assert_array_equal(back.features(after), features)


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("extreme", [1e6, 1e15, 1e30, 3e38])
def test_extreme_rows_give_numbers(rng, number, extreme):
    rows = mixed(rng, 100)
    block, after = blocks(rows)[number], rows[:20].copy()
    after[3, 2], after[4] = extreme, -extreme
    with np.errstate(all="ignore"):
        assert np.isfinite(block.features(after)).all()
        assert np.isfinite(block.compare(block.mean(rows), block.mean(after), ONE)).all()


@pytest.mark.parametrize("number", range(2))
def test_one_row_is_a_window(rng, number):
    rows = mixed(rng, 100)
    block = blocks(rows)[number]
    assert np.isfinite(block.compare(block.mean(rows), block.mean(rows[:1]), ONE)).all()


# -- MMD


def test_mmd_is_the_kernel_means(rng):
    rows, after = mixed(rng, 300), mixed(rng, 60, shift=0.5)
    one = KernelMean(6)
    one.update(rows)
    two = KernelMean(6, exponents=one.exponents)
    two.update(after)
    found = compared(blocks(rows)[0], rows, after)["mmd"]
    assert found**1.5 == pytest.approx(one.mmd(two), rel=1e-4)


def test_mmd_is_the_exact_one_of_gaussian_kernels_but_for_the_frequencies(rng):
    rows, after = rng.normal(size=(200, 5)), rng.normal(size=(150, 5)) + 0.8
    block = Kernel(5, 4096, 3, (0, 1, 2))
    exact = 0.0
    for exponent in block.exponents:
        k = [
            np.exp(-cdist(a, b, "sqeuclidean") / (2 * 4.0**exponent)).mean()
            for a, b in ((rows, rows), (after, after), (rows, after))
        ]
        exact += (k[0] + k[1] - 2 * k[2]) / 3
    found = compared(block, rows.astype(np.float32), after.astype(np.float32))["mmd"]
    assert found**3 == pytest.approx(exact, rel=0.05)


def test_the_kernel_is_known_from_the_sketch(rng):
    rows, after = mixed(rng, 200), mixed(rng, 50)
    block = blocks(rows)[0]
    sketch = KernelMean(6, exponents=block.exponents)
    sketch.update(after)
    mean, n = block.known(Group("g", sketches={"kernel_mean": sketch}))
    assert n == 50
    np.testing.assert_allclose(mean, block.mean(after), atol=1e-5)
    other = KernelMean(6, exponents=[e + 9 for e in block.exponents])
    other.update(after)
    assert block.known(Group("g", sketches={"kernel_mean": other})) is None
    assert block.known(Group("g")) is None


@pytest.mark.parametrize("numbers", [[], [3, 64], [3, 64, 1, 5, 9], [0, 64, 1, 0], [3, 64, 1, 10**6], [3, -1, 1, 0]])
def test_damaged_kernels_are_refused(numbers):
    with pytest.raises(LensAIError):
        Kernel.from_state({"kernel": np.array(numbers, np.int64)})


# -- principal components


def test_the_distance_of_means_is_mahalanobis(rng):
    rows, after = rng.uniform(-1, 1, (400, 5)) * [1, 2, 3, 4, 5], rng.uniform(-0.5, 0.5, (300, 5)) + 0.2
    rows, after = rows.astype(np.float32), after.astype(np.float32)
    found = compared(Principal.of(rows), rows, after)  # hardly anything is cut off
    gap = after.mean(0) - rows.mean(0)
    assert found["mahalanobis"] ** 3 == pytest.approx(gap @ np.linalg.inv(np.cov(rows.T)) @ gap, rel=1e-2)


def test_components_do_not_depend_on_units(rng):
    rows, after = (rng.normal(size=(n, 5)) @ rng.normal(size=(5, 5)) for n in (400, 30))
    units = np.array([1e-6, 1, 1e3, 1e6, -1])
    one, other = (
        compared(Principal.of(each[0]), *each)["mahalanobis"]
        for each in ([a.astype(np.float32) for a in (rows * unit, after * unit)] for unit in (1, units))
    )
    assert one == pytest.approx(other, rel=1e-3)


def test_one_row_far_away_moves_a_mean_by_no_more_than_three_deviations(rng):
    rows = rng.normal(size=(400, 5)).astype(np.float32)
    after, block = rows[:100].copy(), Principal.of(rows)
    after[0] = 1e12
    moved = np.abs(block.mean(after) - block.mean(rows[:100])) * 100
    assert moved.max() <= 2 * FARTHEST


@pytest.mark.parametrize("value", [0.1, 1e6, 1e-8])
def test_what_only_rounding_moves_is_no_direction(rng, value):
    """As means that libraries add up in different orders."""
    rounded = value * (1 + np.finfo(np.float32).eps * rng.integers(-2, 3, (300, 4)))
    assert Principal.of(rounded.astype(np.float32)) is None
    column = rng.normal(size=(300, 1))
    together = np.concatenate([rounded, column, column * 3 * (1 + 1e-7 * rng.normal(size=(300, 1)))], axis=1)
    assert Principal.of(together.astype(np.float32)).width == 1


def test_no_sketch_knows_the_mean_of_what_is_cut_off(rng):
    rows, moments = mixed(rng, 300), Moments(6)
    moments.update(rows)
    assert Principal.of(rows).known(Group("g", sketches={"moments": moments})) is None


def test_of_wide_rows_a_few_components_are_kept(rng):
    wide, narrow = Principal.of(rng.normal(size=(100, 50)).astype(np.float32)), Principal.of(mixed(rng, 100))
    assert wide.width == COMPONENTS
    assert narrow.width == 5  # the sixth column is constant
    assert wide.weights[0] < narrow.weights[0] == 1


@pytest.mark.parametrize("name", ["centre", "axes"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_damaged_components_are_refused(rng, name, value):
    state = Principal.of(mixed(rng, 50)).state()
    state[name] = np.full_like(state[name], value)
    with pytest.raises(LensAIError):
        Principal.from_state(state)
