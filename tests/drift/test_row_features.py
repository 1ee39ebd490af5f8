"""Statistics of whole rows against independent references."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist, jensenshannon

from lensai_integrations.drift.covariances import bures
from lensai_integrations.drift.row_features import COMPONENTS, Clusters, Kernel, Principal
from lensai_integrations.drift.slice_features import SLICES, Slices
from lensai_integrations.drift.stream_features import Distributions
from lensai_integrations.errors import LensAIError
from lensai_integrations.group import Group
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
        Clusters.of(rows),
        Slices.of(rows),
    ]


def compared(block, before, after):
    values = block.compare(block.mean(before), block.mean(after), ONE)[:, 0]
    return dict(zip(block.statistics, values.tolist(), strict=True))


@pytest.mark.parametrize("number", range(4))
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


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("extreme", [1e6, 1e15, 1e30, 3e38])
def test_extreme_rows_give_numbers(rng, number, extreme):
    rows = mixed(rng, 100)
    block, after = blocks(rows)[number], rows[:20].copy()
    after[3, 2], after[4] = extreme, -extreme
    with np.errstate(all="ignore"):
        assert np.isfinite(block.features(after)).all()
        assert np.isfinite(block.compare(block.mean(rows), block.mean(after), ONE)).all()


@pytest.mark.parametrize("number", range(4))
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


# -- Frechet


def frechet(a, b):
    """As in the definition, by scipy's matrix square root."""
    one, two = (np.cov(x.T, bias=True) for x in (a, b))
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(one + two - 2 * sqrtm(one @ two).real))


def test_frechet_and_distances_of_means_are_the_definitions(rng):
    rows, after = rng.normal(size=(400, 5)) * [1, 2, 3, 4, 5], rng.normal(size=(300, 5)) * 2 + 0.5
    rows, after = rows.astype(np.float32), after.astype(np.float32)
    found = compared(Principal.of(rows), rows, after)
    spread = np.trace(np.cov(rows.T))
    gap = after.mean(0) - rows.mean(0)
    assert found["centroid"] ** 3 == pytest.approx(gap @ gap / spread, rel=1e-3)
    assert found["mahalanobis"] ** 3 == pytest.approx(gap @ np.linalg.inv(np.cov(rows.T)) @ gap, rel=1e-3)
    assert found["frechet"] ** 3 == pytest.approx(frechet(rows, after) / spread, rel=1e-2)


def test_bures_against_sqrtm(rng):
    for _ in range(5):
        a, b = (x @ x.T for x in rng.normal(size=(2, 6, 6)))
        root = sqrtm(a)
        expected = np.trace(a + b - 2 * sqrtm(root @ b @ root)).real
        assert bures(a, b) == pytest.approx(expected, rel=1e-6)
        assert bures(a, a) == pytest.approx(0, abs=1e-6 * np.trace(a))


def test_principal_components_are_known_from_moments(rng):
    rows, after = mixed(rng, 300), mixed(rng, 80, shift=0.3)
    block, moments = Principal.of(rows), Moments(6)
    moments.update(after)
    mean, n = block.known(Group("g", sketches={"moments": moments}))
    assert n == 80
    np.testing.assert_allclose(mean, block.mean(after), rtol=1e-3, atol=1e-3)
    assert block.known(Group("g")) is None


def test_of_wide_rows_a_few_components_are_kept(rng):
    wide, narrow = Principal.of(rng.normal(size=(100, 50)).astype(np.float32)), Principal.of(mixed(rng, 100))
    assert len(wide.sizes) == COMPONENTS
    assert len(narrow.sizes) == 5  # the sixth column is constant
    assert wide.weights[1] < narrow.weights[1] == 1


@pytest.mark.parametrize("name", ["centre", "axes", "sizes"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_damaged_components_are_refused(rng, name, value):
    state = Principal.of(mixed(rng, 50)).state()
    state[name] = np.full_like(state[name], value)
    with pytest.raises(LensAIError):
        Principal.from_state(state)


# -- clusters


def test_clusters_are_the_nearest_centroids_and_their_distance_scipys(rng):
    rows = np.concatenate([rng.normal(size=(100, 3)) + 8 * np.eye(3)[i % 3] * (i + 1) for i in range(5)])
    rows, after = rows.astype(np.float32), rows[150:330].astype(np.float32)
    block = Clusters.of(rows)
    assert len(block.centroids) == 5
    shares = [np.bincount(cdist(x, block.centroids).argmin(axis=1), minlength=5) / len(x) for x in (rows, after)]
    np.testing.assert_allclose(block.mean(after), shares[1], atol=1e-6)
    expected = jensenshannon(*shares, base=2)
    assert compared(block, rows, after)["k_means"] ** 1.5 == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("values", [1, 2, 3])
def test_rows_of_fewer_values_than_clusters(values):
    rows = np.tile(np.arange(values, dtype=np.float32), 30)[:, None]
    block = Clusters.of(rows)
    assert len(block.centroids) == values
    np.testing.assert_allclose(block.mean(rows), 1 / values, atol=1e-6)


def test_damaged_centroids_are_refused():
    for bad in (np.full((2, 3), np.nan, np.float32), np.zeros((0, 3), np.float32), np.zeros(3, np.float32)):
        with pytest.raises(LensAIError):
            Clusters.from_state({"centroids": bad})


# -- sliced Wasserstein


def test_sliced_wasserstein_is_the_mean_over_projections(rng):
    rows, after = mixed(rng, 200), mixed(rng, 50, shift=0.7)
    block = Slices.of(rows)
    each = []
    for place in range(SLICES):
        one, two = rows @ block.directions[:, [place]], after @ block.directions[:, [place]]
        along = Distributions(block.along.edges[[place]], block.along.shares[[place]])
        each.append(along.compare(along.mean(one), along.mean(two), ONE)[1, 0])
    assert compared(block, rows, after)["sliced_wasserstein"] == pytest.approx(np.mean(each), rel=1e-3)


def test_directions_weigh_columns_alike_and_leave_constant_ones_out(rng):
    block = Slices.of(mixed(rng, 500))
    assert (block.directions[-1] == 0).all()  # 0.1 in float32 has, by rounding, a standard deviation
    spread = mixed(rng, 500).std(axis=0)[:-1, None] * block.directions[:-1]
    np.testing.assert_allclose(np.abs(spread).mean(axis=1), np.abs(spread).mean(), rtol=0.5)


def test_damaged_directions_are_refused(rng):
    state = Slices.of(mixed(rng, 50)).state()
    state["directions"] = np.full_like(state["directions"], np.inf)
    with pytest.raises(LensAIError):
        Slices.from_state(state)
