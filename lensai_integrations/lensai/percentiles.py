"""Histograms of sketches, and percentiles of histograms, as LensAI's Python profiler has them.

A histogram is for looking at. Thresholds come from the sketch itself (`Sketches.compute_thresholds`): equal bins over a
skewed distribution put most of it into one bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lensai_integrations.errors import InputError
from lensai_integrations.sketches.bank import KLLBank

#: Cumulative sums of decimal fractions miss a percentile by no more than this.
_ROUNDING = 1e-9


def calculate_percentiles(
    x: Sequence[float], probabilities: Sequence[float], lower_percentile: float = 0.01, upper_percentile: float = 0.99
) -> tuple[float, float]:
    """The smallest value at which the cumulative probability reaches each of two percentiles.

    Args:
        x: `[m]` values, in any order.
        probabilities: `[m]`, of each value; together 1.
        lower_percentile: Within 0 and 1.
        upper_percentile: Within 0 and 1.

    Returns:
        The value at the lower and at the upper percentile.

    Raises:
        InputError: If the lengths differ, the probabilities do not add up to 1, or a percentile is not within 0 and 1.

    Example:
        >>> calculate_percentiles([3, 1, 2], [0.2, 0.5, 0.3], 0.5, 0.9)
        (1.0, 3.0)
    """
    values, weights = np.asarray(x, np.float64), np.asarray(probabilities, np.float64)
    if values.ndim != 1 or values.shape != weights.shape or not len(values):
        raise InputError(f"x and probabilities should be lists of the same length, not {values.shape}, {weights.shape}")
    if not (weights >= 0).all() or not np.isclose(weights.sum(), 1):
        raise InputError(f"probabilities should be at least 0 and add up to 1, not to {weights.sum():g}")
    for name, value in (("lower_percentile", lower_percentile), ("upper_percentile", upper_percentile)):
        if not 0 <= value <= 1:
            raise InputError(f"{name}={value!r} should be a fraction within 0 and 1: pass 0.99 for the 99th percentile")
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    places = np.searchsorted(reached, np.array([lower_percentile, upper_percentile]) - _ROUNDING)
    lower, upper = values[order][np.minimum(places, len(values) - 1)]
    return float(lower), float(upper)


def get_histogram_sketch(sketch: Any, num_splits: int = 30) -> tuple[list[float], list[float]] | tuple[None, None]:
    """A histogram of a sketch over equal bins between its minimum and maximum.

    Args:
        sketch: A `datasketches.kll_floats_sketch`, such as one of `Sketches.sketch_registry`.
        num_splits: Number of bins.

    Returns:
        The `num_splits + 1` ends of the bins, and for each the fraction of values at or below it and above the one
        before. `(None, None)` of an empty sketch.

    Raises:
        InputError: If `num_splits` is not a positive whole number.

    Example:
        >>> from datasketches import kll_floats_sketch
        >>> sketch = kll_floats_sketch()
        >>> sketch.update(np.array([0, 1, 2, 2], np.float32))
        >>> get_histogram_sketch(sketch, 2)
        ([0.0, 1.0, 2.0], [0.25, 0.25, 0.5])
    """
    if not isinstance(num_splits, int | np.integer) or num_splits < 1:
        raise InputError(f"num_splits={num_splits!r} should be a positive whole number, the number of bins")
    if sketch.is_empty():
        return None, None
    bank = KLLBank.from_bytes([sketch.serialize()])
    ends = np.linspace(bank.min[0], bank.max[0], num_splits + 1, dtype=np.float32)
    return ends.tolist(), np.diff(bank.cdf(ends)[0], prepend=0.0).tolist()
