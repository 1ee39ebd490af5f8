"""Weighted values: quantiles and ranks equal those of the values written out; a fit keeps weight and distribution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.errors import InputError
from lensai_integrations.sketches.weighted import cdf, fit, quantiles, sorted_items, spread, total_weight


@st.composite
def weighted_values(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Sorted values `[dim, m]` with weights of the same total in each stream, zeros among them."""
    dim, m = draw(st.integers(1, 4)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    values = np.sort(rng.integers(-9, 9, (dim, m)).astype(np.float32), axis=1)
    weights = rng.permuted(np.tile(rng.integers(0, 9, m), (dim, 1)), axis=1)
    weights[:, 0] += 1
    return values, weights


def written_out(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.stack([np.repeat(v, w) for v, w in zip(values, weights, strict=True)])


@settings(max_examples=50, deadline=None)
@given(weighted_values(), st.lists(st.integers(0, 64), min_size=1, max_size=8))
def test_quantiles_are_those_of_the_values_written_out(
    data: tuple[np.ndarray, np.ndarray], sixty_fourths: list[int]
) -> None:
    ranks = np.array(sixty_fourths) / 64  # exact in binary, so that nobody's rounding decides
    expected = np.quantile(written_out(*data), ranks, axis=1, method="inverted_cdf").T
    np.testing.assert_array_equal(quantiles(*data, ranks), expected)


@settings(max_examples=50, deadline=None)
@given(weighted_values(), st.lists(st.floats(-12, 12), min_size=1, max_size=8))
def test_cdf_counts_values_at_or_below(data: tuple[np.ndarray, np.ndarray], points: list[float]) -> None:
    rows = written_out(*data)
    expected = (rows[:, None, :] <= np.array(points)[None, :, None]).mean(axis=2)
    np.testing.assert_allclose(cdf(*data, points), expected, rtol=1e-12)


def test_cdf_takes_points_per_stream_infinities_and_nan() -> None:
    values, weights = np.array([[1, 2], [3, 4]], np.float32), np.ones((2, 2), int)
    points = [[1.0, np.inf, np.nan], [2.9, -np.inf, 3.0]]
    np.testing.assert_array_equal(cdf(values, weights, points), [[0.5, 1.0, np.nan], [0.0, 0.0, 0.5]])


@pytest.mark.parametrize("ranks", [[-0.1], [1.1], [np.nan], [[0.5]], [0.5, 2]])
def test_ranks_outside_0_and_1_are_refused(ranks: object) -> None:
    with pytest.raises(InputError, match="ranks must be fractions within 0 and 1"):
        quantiles(np.zeros((1, 1), np.float32), np.ones((1, 1), int), ranks)


@pytest.mark.parametrize("points", [np.zeros((3, 2)), np.zeros((2, 2, 2))])
def test_points_of_another_shape_are_refused(points: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"points must be \[p\] or \[dim, p\] with dim=2"):
        cdf(np.zeros((2, 1), np.float32), np.ones((2, 1), int), points)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(0, 1000))
def test_sorted_items_carry_the_weight_of_their_level(sizes: list[int], seed: int) -> None:
    items = np.random.default_rng(seed).permuted(np.tile(np.arange(sum(sizes), dtype=np.float32), (3, 1)), axis=1)
    values, weights = sorted_items(items, sizes)
    np.testing.assert_array_equal(values, np.sort(items, axis=1))
    level = np.repeat(np.arange(len(sizes)), sizes)
    for stream in range(3):
        by_value = dict(zip(items[stream], 2**level, strict=True))
        assert weights[stream].tolist() == [by_value[value] for value in values[stream]]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**9), st.integers(40, 700))
def test_spread_uses_the_room_and_keeps_the_weight(n: int, room: int) -> None:
    sizes = spread(n, lambda _: room)
    assert total_weight(sizes) == n
    assert min(sizes) >= 0
    assert sum(sizes) == min(n, room)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**9), st.integers(40, 700))
def test_spread_has_no_heavier_items_than_needed(n: int, room: int) -> None:
    """Items of half the heaviest weight alone would not fit."""
    heaviest = max(level for level, size in enumerate(spread(n, lambda _: room)) if size)
    if heaviest:
        half = heaviest - 1
        assert (n >> half) + (n % (1 << half)).bit_count() > room


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3000), st.integers(60, 300), st.integers(0, 1000))
def test_fit_moves_no_rank_by_more_than_half_its_heaviest_item(n: int, room: int, seed: int) -> None:
    values = np.sort(np.random.default_rng(seed).standard_normal((2, n)).astype(np.float32), axis=1)
    sizes = spread(n, lambda _: room)
    items = fit(values, np.ones((2, n), int), sizes)
    fitted, weights = sorted_items(items, sizes)
    heaviest = 2 ** max(level for level, size in enumerate(sizes) if size)
    for stream in range(2):
        ranks = np.searchsorted(values[stream], fitted[stream], side="right")
        cumulative = np.cumsum(weights[stream])
        assert np.all(cumulative - weights[stream] < ranks)  # every item comes from its own slot
        assert np.all(ranks <= cumulative)
        estimated = np.concatenate([[0], cumulative])[np.searchsorted(fitted[stream], values[stream], side="right")]
        assert np.abs(estimated - np.arange(1, n + 1)).max() <= heaviest / 2


def test_fit_is_exact_where_there_is_room() -> None:
    values = np.arange(50, dtype=np.float32)[None]
    np.testing.assert_array_equal(np.sort(fit(values, np.ones((1, 50), int), [50])), values)


def test_fit_twice_changes_nothing() -> None:
    values = np.sort(np.random.default_rng(0).standard_normal((3, 5000)).astype(np.float32), axis=1)
    sizes = spread(5000, lambda _: 300)
    once = fit(values, np.ones((3, 5000), int), sizes)
    np.testing.assert_array_equal(fit(*sorted_items(once, sizes), sizes), once)


def test_light_items_are_at_both_ends() -> None:
    items = fit(np.arange(1000, dtype=np.float32)[None], np.ones((1, 1000), int), [0, 100, 200])
    weights = sorted_items(items, [0, 100, 200])[1]
    assert weights[0].tolist() == [2] * 50 + [4] * 200 + [2] * 50


def test_fit_of_counts() -> None:
    """Bins with counts, some empty, are weighted values like any other."""
    counts = np.array([[1000, 0, 3000, 1]])
    sizes = spread(4001, lambda _: 100)
    values, weights = sorted_items(fit(np.arange(4, dtype=np.float32)[None], counts, sizes), sizes)
    assert weights[values == 0].sum() == pytest.approx(1000, abs=32)
    assert weights[values == 2].sum() == pytest.approx(3000, abs=32)
    assert not (values == 1).any()


def test_fit_cuts_off_what_is_over_at_the_top() -> None:
    items = fit(np.arange(10, dtype=np.float32)[None], np.ones((1, 10), int), [6])
    assert sorted(items[0].tolist()) == [0, 1, 2, 3, 4, 5]


def test_levels_of_a_fit_ascend() -> None:
    sizes = spread(10_000, lambda _: 200)
    items = fit(np.arange(10_000, dtype=np.float32)[None], np.ones((1, 10_000), int), sizes)
    for level in np.split(items[0], np.cumsum(sizes)[:-1]):
        assert np.all(np.diff(level) > 0)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 70),
    st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(sum),
    st.lists(
        st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan, -np.nan, 2.5]),
        min_size=1,
    ),
    st.integers(0, 1000),
)
def test_sorted_items_keep_each_values_weight(dim: int, sizes: list[int], pool: list[float], seed: int) -> None:
    items = np.random.default_rng(seed).choice(np.array(pool, np.float32), (dim, sum(sizes)))
    values, weights = sorted_items(items, sizes)
    np.testing.assert_array_equal(values, np.sort(items, axis=1))
    assert (values.dtype, weights.dtype) == (np.float32, np.int64)
    own = np.repeat(1 << np.arange(len(sizes)), sizes)
    for row, found, heavy in zip(items, values, weights, strict=True):
        for value in np.unique(row):  # NaN are one value
            same = np.isnan if np.isnan(value) else lambda each, value=value: each == value
            assert sorted(own[same(row)]) == sorted(heavy[same(found)])


def test_the_highest_levels_are_sorted_too() -> None:
    values, weights = sorted_items(np.array([[2.0, 1.0]], np.float32), [1, *[0] * 59, 1])
    assert values.tolist() == [[1.0, 2.0]]
    assert weights.tolist() == [[2**60, 1]]
