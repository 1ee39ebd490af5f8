"""Distances of whole banks, held against scipy where the bank still has every row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.stats import ecdf, energy_distance, ks_2samp, wasserstein_distance

from lensai_integrations.drift import distances as d
from lensai_integrations.drift.distances import hellinger, jensen_shannon
from lensai_integrations.errors import InputError
from lensai_integrations.sketches.bank import KLLBank

ALL = ("ks", "wasserstein", "psi", "jensen_shannon", "hellinger", "energy")


def exact(rows):
    """The view of rows `[n, D]`: themselves, sorted."""
    values = np.sort(np.asarray(rows).T, axis=1)
    return values, np.ones(values.shape, np.int64)


def banked(rows, seed=0):
    bank = KLLBank(rows.shape[1], seed=seed)
    bank.update(rows.astype(np.float32))
    return bank.sorted_view()


def ks_statistic(x, y):
    """By scipy's distribution functions; `ks_2samp` itself warns for some samples of a few rows."""
    both = np.concatenate([x, y])
    return np.abs(ecdf(x).cdf.evaluate(both) - ecdf(y).cdf.evaluate(both)).max()


def samples(rng, n, m, streams=7):
    """Different in every stream: shifted, wider, tied, constant, all the same."""
    a, b = rng.normal(size=(n, streams)), rng.normal(size=(m, streams))
    b[:, 0] += 1
    b[:, 1] *= 3
    a[:, 2], b[:, 2] = rng.integers(0, 4, n), rng.integers(1, 6, m)
    a[:, 3] = b[:, 3] = 5.0
    a[:, 4], b[:, 4] = 5.0, 7.0
    a[:, 5] = 5.0
    return a.astype(np.float32), b.astype(np.float32)


@pytest.mark.parametrize(("n", "m"), [(150, 120), (1, 1), (1, 50), (50, 1), (2, 3)])
def test_ks_and_wasserstein_are_scipys(rng, n, m):
    a, b = samples(rng, n, m)
    found = d.pool(banked(a), banked(b))
    np.testing.assert_allclose(
        d.kolmogorov_smirnov(found),
        [ks_statistic(x, y) for x, y in zip(a.T, b.T, strict=True)],
        atol=1e-12,
    )
    np.testing.assert_allclose(
        d.wasserstein(found),
        [wasserstein_distance(x.astype(float), y.astype(float)) for x, y in zip(a.T, b.T, strict=True)],
        rtol=1e-9,
        atol=1e-12,
    )


def test_ks_is_that_of_scipys_test(rng):
    a, b = samples(rng, 150, 120)
    expected = [ks_2samp(x, y).statistic for x, y in zip(a.T, b.T, strict=True)]
    np.testing.assert_allclose(d.distances(banked(a), banked(b)).ks, expected, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.int8, st.tuples(st.integers(1, 20), st.just(3)), elements=st.integers(-3, 3)),
    arrays(np.int8, st.tuples(st.integers(1, 20), st.just(3)), elements=st.integers(-3, 3)),
)
def test_ties_of_any_kind(a, b):
    found = d.distances(exact(a.astype(np.float32)), exact(b.astype(np.float32)))
    pairs = list(zip(a.T.astype(float), b.T.astype(float), strict=True))
    np.testing.assert_allclose(found.ks, [ks_statistic(x, y) for x, y in pairs], atol=1e-12)
    moved = np.array([wasserstein_distance(x, y) for x, y in pairs])
    spread = a.astype(float).std(axis=0)
    expected = np.where(spread > 0, moved / np.where(spread > 0, spread, 1), np.where(moved > 0, np.inf, 0.0))
    np.testing.assert_allclose(found.wasserstein, expected, atol=1e-9)
    same = np.array([np.array_equal(np.sort(x), np.sort(y)) for x, y in pairs])
    for name in ALL:
        values = getattr(found, name)
        assert (values >= 0).all()
        assert (values[same] == 0).all(), name


def test_weights_count_as_rows(rng):
    rows, weights = rng.normal(size=(60, 2)), rng.integers(1, 5, 60)
    order = np.argsort(rows, axis=0).T
    weighted = (np.take_along_axis(rows.T, order, axis=1), weights[order])
    repeated = exact(np.repeat(rows, weights, axis=0))
    other = exact(rng.normal(0.3, 1.2, (90, 2)))
    for name in ALL:
        a, b = getattr(d.distances(weighted, other), name), getattr(d.distances(repeated, other), name)
        np.testing.assert_allclose(a, b, rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(d.standard_deviation(weighted), np.repeat(rows, weights, axis=0).std(axis=0), rtol=1e-12)


def frouros_samples():
    """Frouros's own test: N(1,1) against N(5,2), 100 of each, numpy's seed 31 set anew for either."""
    return [np.random.RandomState(31).normal(mean, sd, (100, 1)) for mean, sd in ((1, 1), (5, 2))]


def test_published_wasserstein_and_energy():
    p, q = frouros_samples()
    pooled = d.pool(exact(p), exact(q))
    assert d.wasserstein(pooled)[0] == pytest.approx(3.85346006, abs=1e-8)
    assert d.energy(pooled)[0] == pytest.approx(2.11059526, abs=5e-4)


def test_published_hellinger():
    """In Frouros's ten bins of equal width from the least to the largest value of both."""
    samples = frouros_samples()
    edges = np.linspace(np.min(samples), np.max(samples), 11)
    p, q = (np.histogram(rows, edges)[0] / 100 for rows in samples)
    assert hellinger(p, q) == pytest.approx(0.74509099, abs=1e-8)


def test_published_jensen_shannon():
    """In nats, from nine shares at ten edges, read off each side's own histogram of numpy's "auto" bins."""
    samples = frouros_samples()
    edges = np.linspace(np.min(samples), np.max(samples), 10)
    p, q = (np.diff(histogram_cdf(rows, edges)) for rows in samples)
    assert jensen_shannon(p, q) * np.sqrt(np.log(2)) == pytest.approx(0.670, abs=5e-4)


def histogram_cdf(rows, points):
    counts, edges = np.histogram(rows, bins="auto")
    return np.interp(points, edges, np.concatenate([[0], np.cumsum(counts)]) / len(rows))


@pytest.mark.parametrize(("n", "m"), [(150, 120), (1, 1), (1, 50), (50, 1), (2, 3)])
def test_energy_is_scipys(rng, n, m):
    a, b = samples(rng, n, m)
    expected = [energy_distance(x.astype(float), y.astype(float)) for x, y in zip(a.T, b.T, strict=True)]
    np.testing.assert_allclose(d.energy(d.pool(banked(a), banked(b))), expected, rtol=1e-7, atol=1e-7)
    spread = a.astype(float).std(axis=0)
    for i in np.flatnonzero(spread > 1e-6):
        scaled = energy_distance(a[:, i] / spread[i], b[:, i] / spread[i])
        assert d.distances(exact(a), exact(b)).energy[i] == pytest.approx(scaled, rel=1e-5)


def test_a_reference_gives_what_its_view_gives(rng):
    a, b = (banked(rng.normal(size=(n, 70))) for n in (1500, 900))
    known = d.reference(a, bins=7)
    one, two = d.distances(a, b, bins=7), d.distances(known, b)
    for name in ALL:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


def test_more_rows_than_32_bits_count(rng):
    """Sums are exact either way: every weight times 2**20 changes nothing."""
    a, b = (banked(rng.normal(size=(n, 3))) for n in (1500, 900))
    heavy = [(values, weights << 20) for values, weights in (a, b)]
    for one, two in ((heavy[0], heavy[1]), (heavy[0], b), (a, (b[0], b[1].astype(float)))):
        np.testing.assert_allclose(d.pool(one, two).difference, d.pool(a, b).difference, rtol=1e-12, atol=1e-15)


def test_wasserstein_is_in_standard_deviations_of_the_baseline(rng):
    rows = rng.normal(10, 4, (200, 1))
    found = d.distances(exact(rows), exact(rows + 2))
    assert found.wasserstein[0] == pytest.approx(2 / rows.std(), rel=1e-9)


@pytest.mark.parametrize(
    ("baseline", "window", "expected"), [(5.0, 5.0, 0.0), (5.0, 7.0, np.inf), (16777216.0, 16777218.0, np.inf)]
)
def test_streams_that_never_vary(baseline, window, expected):
    found = d.distances(exact(np.full((40, 1), baseline)), exact(np.full((30, 1), window)))
    changed = float(baseline != window)
    assert found.wasserstein[0] == found.energy[0] == expected
    assert found.ks[0] == found.jensen_shannon[0] == found.hellinger[0] == changed
    assert (found.psi[0] > 3) == bool(changed)
    assert np.isfinite(found.psi[0])


def test_a_large_constant_has_no_deviation():
    weights = np.array([[3, 1, 7]])
    assert d.standard_deviation((np.full((1, 3), 0.1, np.float32) * 1e7, weights))[0] == 0


@pytest.mark.parametrize("empty", ["baseline", "window", "both"])
def test_a_side_without_rows_gives_no_distance(rng, empty):
    none = (np.zeros((3, 0), np.float32), np.zeros((3, 0), np.int64))
    some = exact(rng.normal(size=(20, 3)))
    sides = {"baseline": (none, some), "window": (some, none), "both": (none, none)}[empty]
    found = d.distances(*sides)
    for name in ALL:
        assert np.isnan(getattr(found, name)).all(), name
    assert np.isnan(d.quantiles(none, (0.1, 0.5))).all()
    assert np.isnan(d.standard_deviation(none)).all()


def test_empty_banks_have_such_views():
    found = d.distances(KLLBank(2, seed=0).sorted_view(), banked(np.ones((4, 2))))
    assert np.isnan(found.ks).all()


@pytest.mark.parametrize("streams", [1, 63, 64, 65, 200])
def test_blocks_of_streams_do_not_show(rng, streams):
    a, b = rng.normal(size=(50, streams)), rng.normal(0.5, 1, (40, streams))
    found = d.distances(exact(a), exact(b))
    assert found.ks.shape == (streams,)
    for stream in {0, streams // 2, streams - 1}:
        assert found.ks[stream] == pytest.approx(ks_statistic(a[:, stream], b[:, stream]), abs=1e-12)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ((np.ones((2, 3)), np.ones((2, 3))), (np.ones((3, 3)), np.ones((3, 3)))),
        ((np.ones((2, 3)), np.ones((2, 4))), (np.ones((2, 3)), np.ones((2, 3)))),
        ((np.ones(3), np.ones(3)), (np.ones((2, 3)), np.ones((2, 3)))),
    ],
)
def test_shapes_that_do_not_belong_together(one, two):
    with pytest.raises(InputError, match=r"\[D, m\]"):
        d.distances(one, two)


def test_lossy_banks_are_within_their_stated_error(rng):
    a, b = rng.normal(size=(20000, 40)), rng.normal(0.2, 1.1, (15000, 40))
    bank = KLLBank(40, seed=3)
    found = d.distances(banked(a, 1), banked(b, 2))
    exact_ks = np.array([ks_statistic(x, y) for x, y in zip(a.T, b.T, strict=True)])
    assert np.abs(found.ks - exact_ks).max() < 2 * bank.rank_error
    exact_area = [wasserstein_distance(x, y) / x.std() for x, y in zip(a.T, b.T, strict=True)]
    np.testing.assert_allclose(found.wasserstein, exact_area, atol=0.03)


# -- bins


def test_bins_hold_equal_shares_of_continuous_data(rng):
    view = exact(rng.normal(size=(200, 3)))
    p, q, used = d.bin_shares(view, exact(rng.normal(size=(50, 3))), bins=10)
    assert used.sum(axis=1).tolist() == [10, 10, 10]
    np.testing.assert_allclose(p[used], 0.1)
    np.testing.assert_allclose(q.sum(axis=1), 1)
    assert (p[~used] == 0).all()
    assert (q[~used] == 0).all()


def test_bins_are_those_of_numpys_quantiles(rng):
    a, b = rng.normal(size=(1000, 1)), rng.normal(0.4, 1, (300, 1))
    _, q, used = d.bin_shares(exact(a), exact(b), bins=5)
    edges = np.quantile(a[:, 0], [0.2, 0.4, 0.6, 0.8], method="inverted_cdf")
    # open below and closed above, like numpy's histogram of the negated values
    expected = np.bincount(np.searchsorted(edges, b[:, 0], side="left"), minlength=5) / 300
    np.testing.assert_allclose(q[used], expected)


def test_a_value_that_fills_bins_has_one_of_its_own():
    half_zeros = np.concatenate([np.zeros(50), np.linspace(1, 2, 50)])[:, None]
    p, _, used = d.bin_shares(exact(half_zeros), exact(half_zeros), bins=10)
    assert p.max() == 0.5
    np.testing.assert_allclose(p[used].sum(), 1)
    assert (p[used] > 0).sum() == 6  # the zeros, and five bins of ten rows


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.int8, st.tuples(st.integers(1, 40), st.just(2)), elements=st.integers(-4, 4)),
    arrays(np.int8, st.tuples(st.integers(1, 40), st.just(2)), elements=st.integers(-6, 6)),
    st.integers(2, 12),
)
def test_bins_cover_every_value_once(a, b, bins):
    p, q, used = d.bin_shares(exact(a), exact(b), bins)
    for shares in (p, q):
        np.testing.assert_allclose(shares.sum(axis=1), 1)
        assert (shares >= 0).all()
        assert (shares[~used] == 0).all()


def test_binned_distances_are_scipys(rng):
    a, b = rng.normal(size=(200, 4)), rng.normal(0.5, 2, (90, 4))
    p, q, _ = d.bin_shares(exact(a), exact(b))
    found = d.distances(exact(a), exact(b))
    np.testing.assert_allclose(found.jensen_shannon, [jensenshannon(x, y, base=2) for x, y in zip(p, q, strict=True)])


def test_an_outlying_window_is_seen_however_far_it_is(rng):
    a = rng.normal(size=(500, 1))
    near, far = (d.distances(exact(a), exact(np.full((100, 1), value))) for value in (6.0, 1e6))
    assert near.jensen_shannon == far.jensen_shannon  # bins do not stretch to hold the window
    assert far.wasserstein > 1e5


# -- quantiles


@settings(max_examples=50, deadline=None)
@given(arrays(np.int8, st.tuples(st.integers(1, 30), st.just(2))), st.lists(st.floats(0.01, 1), min_size=1, max_size=5))
def test_quantiles_are_numpys(rows, ranks):
    expected = np.quantile(rows.astype(float), ranks, axis=0, method="inverted_cdf").T
    np.testing.assert_array_equal(d.quantiles(exact(rows), ranks), expected)


# -- pixels


def test_pixel_distances_are_those_of_the_pixels(rng):
    a, b = rng.integers(0, 200, (3, 500)), rng.integers(30, 256, (3, 400))
    counts = [np.stack([np.bincount(row, minlength=256) for row in side]) for side in (a, b)]
    found = d.pixel_distances(*counts)
    for channel in range(3):
        x, y = a[channel].astype(float), b[channel].astype(float)
        assert found.ks[channel] == pytest.approx(ks_statistic(x, y), abs=1e-12)
        assert found.wasserstein[channel] == pytest.approx(wasserstein_distance(x, y) / x.std(), rel=1e-9)
        p, q = counts[0][channel] / 500, counts[1][channel] / 400
        assert found.jensen_shannon[channel] == pytest.approx(jensenshannon(p, q, base=2), abs=1e-9)
        assert found.hellinger[channel] == pytest.approx(np.sqrt(1 - np.sum(np.sqrt(p * q))), abs=1e-9)


def test_pixel_counts_of_any_size_do_not_overflow():
    counts = np.full((1, 256), 10**13)
    found = d.pixel_distances(counts, counts[:, ::-1] * 100)
    assert found.ks[0] == pytest.approx(0, abs=1e-9)
    assert found.psi[0] == pytest.approx(0, abs=1e-9)


def test_no_pixels():
    assert np.isnan(d.pixel_distances(np.zeros((2, 256), int), np.ones((2, 256), int)).ks).all()
    with pytest.raises(InputError):
        d.pixel_distances(np.ones((1, 256), int), np.ones((3, 256), int))
