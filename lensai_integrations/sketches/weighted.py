"""Sorted values with whole-number weights: what every question to a KLL sketch comes down to.

A sketch's levels, laid side by side and sorted, are a step function of cumulative weight; so are the 256 bins of a
pixel count. A quantile and a rank are read off it. A sketch of fewer items is read off it, too: cut the
cumulative weight into slots and take the item in the middle of each. That errs by half a slot, once, where
halving level after level would add a random error at each, so it is how banks are brought to a given size.
All streams have the same total weight, which lets them share the slots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import InputError

Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]

#: A total weight below 2**62 keeps every sum of weights inside a signed 64-bit integer.
MAX_LEVELS = 61
#: Streams sorted at a time, so that what is worked on stays in the processor's cache.
_BLOCK = 64


def total_weight(sizes: Sequence[int]) -> int:
    """The number of values that `sizes[level]` items per level stand for: an item of level l stands for 2**l.

    Example:
        >>> total_weight([3, 0, 2])  # 3 * 1 + 0 * 2 + 2 * 4
        11
    """
    return sum(int(size) << level for level, size in enumerate(sizes))


def sorted_items(items: Floats, sizes: Sequence[int]) -> tuple[Floats, Integers]:
    """Items laid level after level (`[dim, sum(sizes)]`), sorted per stream, and the weight of each. NaN goes last.

    Example:
        >>> values, weights = sorted_items(np.array([[5, 1, 3]], np.float32), [1, 2])
        >>> values.tolist(), weights.tolist()
        ([[1.0, 3.0, 5.0]], [[2, 2, 1]])
    """
    items = np.asarray(items, np.float32)
    levels = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    values, weights = np.empty(items.shape, np.float32), np.empty(items.shape, np.int64)
    for start in range(0, len(items), _BLOCK):
        block = slice(start, start + _BLOCK)
        values[block], weights[block] = _sorted_block(items[block], levels)
    return values, weights


def _sorted_block(items: Floats, levels: Integers) -> tuple[Floats, Integers]:
    """The same of a few streams, given the level of each item.

    A value and its level are sorted as one whole number, the value's bits above the level's: numpy sorts whole numbers
    with vector instructions, four times as fast as it finds the order of values and gathers by it.
    """
    if not levels.any():
        return np.sort(items, axis=1), np.ones(items.shape, np.int64)
    missing = np.isnan(items)
    items = np.where(missing, np.float32(np.nan), items) if missing.any() else items  # none with a sign
    packed = _ordered_bits(items.view(np.int32)).astype(np.int64)
    packed <<= 32
    packed |= levels
    packed.sort(axis=1)
    values: Floats = _ordered_bits((packed >> 32).astype(np.int32)).view(np.float32)
    return values, np.int64(1) << (packed & 63)


def _ordered_bits(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Bits of floats as whole numbers that are ordered as the floats are, NaN last; and back again."""
    ordered: NDArray[np.int32] = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return ordered


def quantiles(values: Floats, weights: Integers, ranks: Any) -> Floats:
    """The smallest value with at least a fraction `rank` of the weight at or below it, per stream and rank.

    This is numpy's method "inverted_cdf", and DataSketches' inclusive quantile.

    Args:
        values: float32 `[dim, m]`, ascending along axis 1, m > 0.
        weights: int64 `[dim, m]`, the same total for every stream.
        ranks: `[r]`, each within 0 and 1.

    Returns:
        float32 `[dim, r]`.

    Raises:
        InputError: a rank is not a number within 0 and 1.

    Example:
        >>> quantiles(np.array([[1, 3, 5]], np.float32), np.array([[2, 1, 1]]), [0.5, 0.51, 1.0]).tolist()
        [[1.0, 3.0, 5.0]]
    """
    ranks = checked_ranks(ranks)
    cumulative = np.cumsum(weights, axis=1)
    target = np.maximum(np.ceil(ranks * float(cumulative[0, -1])), 1.0)
    positions = np.stack([np.searchsorted(row, target, side="left") for row in cumulative])
    return np.take_along_axis(values, np.minimum(positions, values.shape[1] - 1), axis=1)


def checked_ranks(ranks: Any) -> NDArray[np.float64]:
    """The ranks as a float64 vector, refused unless each lies within 0 and 1.

    Example:
        >>> checked_ranks(0.5)
        array([0.5])
    """
    result = np.atleast_1d(np.asarray(ranks, dtype=np.float64))
    if result.ndim != 1 or not ((result >= 0) & (result <= 1)).all():
        raise InputError(f"ranks must be fractions within 0 and 1, got {ranks!r}; pass 0.99 for the 99th percentile")
    return result


def cdf(values: Floats, weights: Integers, points: Any) -> NDArray[np.float64]:
    """The fraction of the weight at or below each point, per stream.

    Args:
        values: float32 `[dim, m]`, ascending along axis 1, m > 0.
        weights: int64 `[dim, m]`.
        points: `[p]` for all streams, or `[dim, p]`.

    Returns:
        float64 `[dim, p]`; NaN where a point is NaN.

    Raises:
        InputError: points are of another shape.

    Example:
        >>> cdf(np.array([[1, 3, 5]], np.float32), np.array([[2, 1, 1]]), [0.0, 1.0, 4.0]).tolist()
        [[0.0, 0.5, 0.75]]
    """
    points = checked_points(points, len(values))
    cumulative = np.concatenate([np.zeros((len(values), 1), np.int64), np.cumsum(weights, axis=1)], axis=1)
    below = np.stack([np.searchsorted(row, at, side="right") for row, at in zip(values, points, strict=True)])
    result = np.take_along_axis(cumulative, below, axis=1) / cumulative[:, -1:]
    return np.where(np.isnan(points), np.nan, result)


def checked_points(points: Any, dim: int) -> NDArray[np.float64]:
    """The points as float64 `[dim, p]`, whether they were given once for all streams or per stream.

    Example:
        >>> checked_points([1, 2], dim=3).shape
        (3, 2)
    """
    result = np.atleast_1d(np.asarray(points, dtype=np.float64))
    if result.ndim > 2 or (result.ndim == 2 and len(result) != dim):
        raise InputError(f"points must be [p] or [dim, p] with dim={dim}, got shape {result.shape}")
    return np.broadcast_to(result, (dim, result.shape[-1]))


def spread(n: int, room: Callable[[int], int]) -> tuple[int, ...]:
    """Level sizes of total weight n that use all the room there is, with items as equally heavy as possible.

    Starts from the least number of levels whose room takes n, the binary digits of n below the top level; then
    splits items of the top level, each into two of half the weight, until the room is used up.

    Args:
        n: the total weight, below 2**61.
        room: the number of items allowed, given the number of levels.

    Example:
        >>> spread(1000, lambda levels: 300)  # 44 * 2 + 228 * 4
        (0, 100, 200)
    """
    levels = next(m for m in range(1, MAX_LEVELS + 1) if (n >> (m - 1)) + (n % (1 << (m - 1))).bit_count() <= room(m))
    sizes = [n >> level & 1 for level in range(levels - 1)] + [n >> (levels - 1)]
    for level in range(levels - 1, 0, -1):
        split = min(sizes[level], room(levels) - sum(sizes))
        sizes[level] -= split
        sizes[level - 1] += 2 * split
    return tuple(sizes)


def fit(values: Floats, weights: Integers, sizes: Sequence[int]) -> Floats:
    """Items of the given level sizes that stand for the same distribution, to within half the heaviest item.

    The cumulative weight is cut into slots, one per item, light ones at both ends, where a distribution's tails are;
    each slot's item is the value at its middle. Nothing is random, and fitting twice changes nothing.

    Args:
        values: float32 `[dim, m]`, ascending along axis 1.
        weights: int64 `[dim, m]`, each stream's total at least `total_weight(sizes)`; the rest is cut off.
        sizes: items wanted per level.

    Returns:
        float32 `[dim, sum(sizes)]`, level after level, ascending within each.

    Example:
        >>> fit(np.arange(8, dtype=np.float32)[None], np.ones((1, 8), int), [2, 3]).tolist()
        [[0.0, 7.0, 2.0, 4.0, 6.0]]
    """
    levels = np.repeat(np.arange(len(sizes)), sizes)
    levels = np.concatenate([levels[0::2], levels[1::2][::-1]])
    width = np.int64(1) << levels.astype(np.int64)
    middle = np.cumsum(width) - width + (width >> 1)
    positions = np.stack([np.searchsorted(row, middle, side="right") for row in np.cumsum(weights, axis=1)])
    by_level = np.argsort(levels, kind="stable")
    return np.take_along_axis(values, positions[:, by_level], axis=1)
