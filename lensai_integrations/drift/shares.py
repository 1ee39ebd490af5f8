"""Distances of two sets of shares: of rows in bins, of labels in categories, of pixels at their 256 values.

All take float64 shares that sum to 1 along the last axis, any number of such rows at a time.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

Floats: TypeAlias = NDArray[np.float64]

#: Rows added to every bin of both sides before PSI is computed (Jeffreys' prior of a multinomial).
PSI_SMOOTHING = 0.5


def population_stability(p: Floats, q: Floats, n: NDArray[Any], m: NDArray[Any], used: NDArray[np.bool_]) -> Floats:
    """Population stability index of shares `[D, B]` of n and m rows, `[D]`; finite also where a bin is empty.

    `sum (p' - q') ln(p' / q')` over the bins used, where p' and q' are the shares after `PSI_SMOOTHING` rows were added
    to each of them. Even so it grows as the window shrinks (about (bins - 1) / m for clean data), so no decision
    rests on it. Source: S. Lewis, An Introduction to Credit Scoring, 1992; the smoothing is Jeffreys' prior.

    Args:
        p: Baseline's shares.
        q: Window's shares.
        n: Baseline's rows `[D]`.
        m: Window's rows `[D]`.
        used: Bins to sum over, bool `[D, B]`.

    Example:
        >>> rows, used = np.array([100]), np.ones((1, 2), bool)
        >>> population_stability(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]), rows, rows, used).round(2).tolist()
        [2.63]
    """
    one, two = _smoothed(p, np.asarray(n), used), _smoothed(q, np.asarray(m), used)
    index: Floats = np.sum((one - two) * np.log(one / two), axis=1, where=used)
    return index


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """Jensen-Shannon distance in bits of shares `[..., B]`, `[...]`: 0 for equal shares, 1 where none overlap.

    The square root of the mean of both Kullback-Leibler divergences to the mean of both. Source: J. Lin, 1991.

    Example:
        >>> float(jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
        1.0
    """
    middle = (p + q) / 2
    divergence: Floats = np.sum(rel_entr(p, middle) + rel_entr(q, middle), axis=-1) / (2 * np.log(2))
    return np.sqrt(np.clip(divergence, 0.0, 1.0))


def hellinger(p: Floats, q: Floats) -> Floats:
    """Hellinger distance of shares `[..., B]`, `[...]`: 0 for equal shares, 1 where none overlap.

    Example:
        >>> float(hellinger(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
        1.0
    """
    squared: Floats = np.sum((np.sqrt(p) - np.sqrt(q)) ** 2, axis=-1) / 2
    return np.sqrt(np.minimum(squared, 1.0))


def total_variation(p: Floats, q: Floats) -> Floats:
    """Total variation of shares `[..., B]`, `[...]`: the share of rows that would have to change category.

    Example:
        >>> float(total_variation(np.array([0.5, 0.5]), np.array([0.25, 0.75])))
        0.25
    """
    half: Floats = np.minimum(np.sum(np.abs(p - q), axis=-1) / 2, 1.0)  # rounding may lead beyond it
    return half


def _smoothed(shares: Floats, rows: NDArray[Any], used: NDArray[np.bool_]) -> Floats:
    total = rows[:, None] + PSI_SMOOTHING * used.sum(axis=1, keepdims=True)
    smoothed: Floats = (shares * rows[:, None] + PSI_SMOOTHING) / total
    return smoothed
