"""Compaction keeps what a plain sort would give; its choices are unbiased, paired, and the same on every device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lensai_integrations.sketches.bank import BLOCK, offsets, stream_keys, thin


def offset_table(stride: int, counts: range, dim: int = 4000, seed: int = 1, level: int = 3) -> np.ndarray:
    keys = stream_keys(seed, dim)
    return np.stack([offsets(keys, level, count, stride) for count in counts])


@pytest.mark.parametrize("stride", [2, 4, 32])
def test_offsets_are_uniform(stride: int) -> None:
    table = offset_table(stride, range(0, 20, 2))
    assert table.min() >= 0
    assert table.max() < stride
    assert stats.chisquare(np.bincount(table.ravel(), minlength=stride)).pvalue > 1e-4


def test_offsets_of_a_pair_mirror_each_other() -> None:
    table = offset_table(8, range(10))
    np.testing.assert_array_equal(table[0::2] + table[1::2], 7)


def test_offsets_are_independent_across_pairs_streams_levels_and_seeds() -> None:
    bits = offset_table(2, range(0, 40, 2))
    others = [
        bits[1:],  # the next pair
        np.roll(bits, 1, axis=1),  # the next stream
        offset_table(2, range(0, 40, 2), level=4),
        offset_table(2, range(0, 40, 2), seed=2),
    ]
    for other in others:
        agree = int((bits[: len(other)] == other).sum())
        assert stats.binomtest(agree, other.size, 0.5).pvalue > 1e-4


def test_offsets_are_the_same_in_torch() -> None:
    keys = stream_keys(seed=5, dim=100)
    for level, count, stride in [(0, 0, 32), (1, 7, 2), (40, 123, 2)]:
        expected = offsets(keys, level, count, stride)
        np.testing.assert_array_equal(offsets(torch.from_numpy(keys), level, count, stride).numpy(), expected)


def test_mirrored_strides_may_differ() -> None:
    """The stride of rows entering grows with n, maybe within a pair: the offsets still move in opposite directions."""
    keys = stream_keys(0, 5000)
    first, second = offsets(keys, 0, 4, 2), offsets(keys, 0, 5, 4)
    assert np.corrcoef(first, second)[0, 1] < -0.3


def thinned_by_hand(items: np.ndarray, stride: int, offset: np.ndarray) -> np.ndarray:
    return np.stack([sorted(row)[start::stride] for row, start in zip(items.tolist(), offset, strict=True)])


@settings(max_examples=50, deadline=None)
@given(
    dim=st.integers(1, 40),
    blocks=st.integers(1, 30),
    stride=st.sampled_from([1, 2, 8]),
    seed=st.integers(0, 1000),
    library=st.sampled_from(["numpy", "torch"]),
)
def test_thin_keeps_every_stride_th_sorted_item(dim: int, blocks: int, stride: int, seed: int, library: str) -> None:
    rng = np.random.default_rng(seed)
    items = rng.integers(-50, 50, (dim, blocks * stride)).astype(np.float32)
    offset = rng.integers(0, stride, dim)
    before, out = items.copy(), np.empty((dim, blocks), np.float32)
    convert = torch.from_numpy if library == "torch" else np.asarray
    low, high = thin(convert(items), stride, convert(offset), convert(out))
    np.testing.assert_array_equal(out, thinned_by_hand(items, stride, offset))
    np.testing.assert_array_equal(low, items.min(axis=1))
    np.testing.assert_array_equal(high, items.max(axis=1))
    np.testing.assert_array_equal(items, before)


def test_thin_reads_columns_of_rows_across_blocks() -> None:
    """More streams than one block has, as a transposed view, into part of a larger array."""
    width = 512
    dim = 2 * (BLOCK // width) + 3
    rows = np.random.default_rng(0).standard_normal((width, dim + 16), np.float32)[:, :dim]
    level = np.zeros((dim, 300), np.float32)
    offset = np.arange(dim) % 4
    thin(rows.T, 4, offset, level[:, 100:228])
    np.testing.assert_array_equal(level[:, 100:228], thinned_by_hand(rows.T, 4, offset))
    assert not level[:, :100].any()
    assert not level[:, 228:].any()


def test_thin_of_one_very_wide_stream() -> None:
    items = np.random.default_rng(0).permutation(np.arange(4 * BLOCK, dtype=np.float32))[None]
    out = np.empty((1, 2 * BLOCK), np.float32)
    thin(items, 2, np.array([1]), out)
    np.testing.assert_array_equal(out[0], np.arange(1, 4 * BLOCK, 2))


def test_thin_passes_over_nan_in_the_ends() -> None:
    items = torch.tensor([[3.0, torch.nan, 1.0, 2.0], [torch.nan] * 4])
    out = torch.empty((2, 2))
    low, high = thin(items, 2, torch.tensor([0, 1]), out)
    assert low.tolist() == [1.0, np.inf]
    assert high.tolist() == [3.0, -np.inf]
    assert out[0].tolist() == [1.0, 3.0]
    assert out[1].isnan().all()


def rank_errors(ranks: np.ndarray, stride: int, offset: int) -> np.ndarray:
    """Estimated minus true rank after thinning 0..63, for a value with so many items at or below it."""
    kept = np.arange(offset, 64, stride)
    return np.array([stride * int((kept < rank).sum()) - rank for rank in ranks])


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_every_rank_is_estimated_without_bias(stride: int) -> None:
    ranks = np.arange(65)
    errors = np.stack([rank_errors(ranks, stride, offset) for offset in range(stride)])
    np.testing.assert_array_equal(errors.mean(axis=0), 0)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_mirrored_pair_is_never_worse_than_independent_offsets(stride: int) -> None:
    """For every pair of ranks that a value may have in two compactions: the errors do not add up, and mostly cancel."""
    ranks = np.arange(stride)
    errors = np.stack([rank_errors(ranks, stride, offset) for offset in range(stride)])
    covariance = errors.T @ errors[::-1] / stride
    assert covariance.max() <= 0
    alone = (errors**2).mean(axis=0)
    pair = alone[:, None] + alone[None, :] + 2 * covariance
    assert pair.mean() == pytest.approx((alone[:, None] + alone[None, :]).mean() / 2)
