"""Weighted values as step functions of all streams at once: places, shares and quantiles, without a loop over streams.

Values are ascending, `[D, m]`, and weights summed up along them, likewise.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


def or_nan(total: NDArray[Any]) -> Floats:
    """Totals as float64, NaN for 0: what is divided by it is no number either.

    Example:
        >>> or_nan(np.array([2, 0])).tolist()
        [2.0, nan]
    """
    return np.where(total > 0, total, np.nan)


def with_a_point(view: tuple[NDArray[Any], NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The view, or for one without any points one point of no weight, so that all shares come out as NaN.

    Example:
        >>> with_a_point((np.zeros((1, 0)), np.zeros((1, 0), int)))[0].tolist()
        [[0.0]]
    """
    return view if view[0].shape[1] else (np.zeros((len(view[0]), 1)), np.zeros((len(view[0]), 1), np.int64))


def values_at(values: NDArray[Any], summed: NDArray[Any], ranks: Floats) -> Floats:
    """Smallest values with at least a share `rank` of the weight at or below them, `[D, r]`.

    Args:
        values: Ascending, `[D, m]`, m at least 1.
        summed: Cumulative weights, likewise.
        ranks: `[r]`, 0 to 1.

    Example:
        >>> values_at(np.array([[1.0, 3.0]]), np.array([[3, 4]]), np.array([0.5, 0.9])).tolist()
        [[1.0, 3.0]]
    """
    # a rank such as 0.3 times a count of 10 comes out as 3.0000000000000004 or so
    place = bisect(summed, np.ceil(ranks * summed[:, -1:] * (1 - 1e-12)), "left")
    found: Floats = np.take_along_axis(values, np.minimum(place, values.shape[1] - 1), axis=1).astype(np.float64)
    return found


def bisect(ascending: NDArray[Any], wanted: NDArray[Any], side: str) -> NDArray[np.intp]:
    """`numpy.searchsorted` of `[D, p]` in `[D, m]`, m at least 1, row by row, all rows in step.

    Example:
        >>> bisect(np.array([[1, 2, 2]]), np.array([[2, 5]]), "left").tolist()
        [[1, 3]]
    """
    goes_right = np.less if side == "left" else np.less_equal
    flat, size = ascending.ravel(), ascending.shape[1]
    start = np.arange(len(wanted))[:, None] * size
    low = np.broadcast_to(start, wanted.shape)
    while size > 1:  # the place lies from low to low + size
        half = size // 2
        low = low + half * goes_right(flat[low + (half - 1)], wanted)
        size -= half
    found: NDArray[np.intp] = low + goes_right(flat[low], wanted) - start
    return found


def summed_at(summed: NDArray[Any], count: NDArray[np.intp]) -> NDArray[Any]:
    """Weight of the `count` smallest values, `[D, p]`.

    Example:
        >>> summed_at(np.array([[1, 3, 4]]), np.array([[0, 2]])).tolist()
        [[0, 3]]
    """
    return np.where(count > 0, np.take_along_axis(summed, np.maximum(count - 1, 0), axis=1), 0)


def shares_between(summed: NDArray[Any], lower: NDArray[np.intp], upper: NDArray[np.intp]) -> Floats:
    """Shares up to the first lower place, from there to the upper, then to the next lower, ...: `[D, 2 * p + 1]`.

    Example:
        >>> shares_between(np.array([[1, 2, 3, 4]]), np.array([[1]]), np.array([[3]])).tolist()
        [[0.25, 0.5, 0.25]]
    """
    ends = np.stack([lower, upper], axis=2).reshape(len(lower), -1)
    weights = np.diff(summed_at(summed, ends), axis=1, prepend=0, append=summed[:, -1:])
    shares: Floats = weights / or_nan(summed[:, -1:])
    return shares
