"""How far apart two distributions are, for all streams of a bank at once.

A sketch is a small weighted sample, so every distance here is a function of sorted values and weights, `[D, m]` on
either side. Both sides are merged once by a single sort (they are sorted runs, which a stable sort merges); the
Kolmogorov-Smirnov and Wasserstein distances then need one pass each, and the bins of the others a bisection that all
streams take together. No step loops over streams.

Bins come from the baseline alone, each with the same share of its rows: a fixed grid would be empty where one stream
lives and too coarse where another does, and a grid rescaled to both sides cannot see a shift. A value that fills a bin
by itself (in a constant stream, in a tied one) gets a bin of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from lensai_integrations.errors import InputError

Floats: TypeAlias = NDArray[np.float64]
#: Ascending values and their weights, `[D, m]` each, as `KLLBank.sorted_view` gives them.
View: TypeAlias = tuple[NDArray[Any], NDArray[Any]]

#: Streams taken at a time, so that what is worked on stays in the processor's cache.
_BLOCK = 64
#: Sums below this can be had in 32 bits, in half the time.
_INT32 = 2.0**31
#: Rows added to every bin of both sides before PSI is computed (Jeffreys' prior of a multinomial).
PSI_SMOOTHING = 0.5


@dataclass(frozen=True)
class Distances:
    """Distances of D streams, float64 `[D]` each; NaN where a side has no rows.

    Attributes:
        ks: Kolmogorov-Smirnov: the largest difference of the two cumulative distributions, 0 to 1.
        wasserstein: Wasserstein-1 in standard deviations of the baseline; infinite if that never varied and the
            window differs from it.
        psi: Population stability index over equal-probability bins, smoothed.
        jensen_shannon: Square root of the Jensen-Shannon divergence in bits, over the same bins, 0 to 1.
        hellinger: Hellinger distance over the same bins, 0 to 1.
        energy: Energy distance as scipy defines it, `sqrt(2 * integral of (F - G)^2)`, after both sides were divided by
            the baseline's standard deviation; infinite as Wasserstein-1 is.
    """

    ks: Floats
    wasserstein: Floats
    psi: Floats
    jensen_shannon: Floats
    hellinger: Floats
    energy: Floats


@dataclass(frozen=True)
class Pooled:
    """Both sides on one axis.

    Attributes:
        points: The values of both sides, `[D, m]`, ascending.
        difference: float64 `[D, m]`: share of the baseline's rows at or below each point, less the share of the
            window's. Among equal points only the last one's is that of a value.
    """

    points: NDArray[Any]
    difference: Floats

    @cached_property
    def steps(self) -> Floats:
        """From each point to the next, float64 `[D, m - 1]`."""
        steps: Floats = np.subtract(self.points[:, 1:], self.points[:, :-1], dtype=np.float64)
        return steps

    @cached_property
    def gaps(self) -> Floats:
        """Absolute differences, float64 `[D, m]`; 0 at points tied with the next, whose shares are of no value."""
        gaps: Floats = np.abs(self.difference)
        np.copyto(gaps[:, :-1], 0.0 * gaps[:, -1:], where=self.steps == 0)  # NaN without rows
        return gaps


def pool(baseline: View, window: View) -> Pooled:
    """Merge two sides by value.

    Raises:
        InputError: If the sides have different numbers of streams, or values and weights different shapes.

    Example:
        >>> one = np.ones((1, 2), int)
        >>> pool((np.array([[1.0, 3.0]]), one), (np.array([[2.0, 3.0]]), one)).difference.tolist()
        [[0.5, 0.0, 0.5, 0.0]]
    """
    for values, weights in (baseline, window):
        if values.ndim != 2 or values.shape != weights.shape or len(values) != len(baseline[0]):
            shapes = [(*map(np.shape, side),) for side in (baseline, window)]
            raise InputError(f"values and weights should be [D, m] with one D on both sides, not {shapes}")
    baseline, window = with_a_point(baseline), with_a_point(window)
    n, m = (weights.sum(axis=1, keepdims=True) for _, weights in (baseline, window))
    total = n.astype(np.float64) * m
    whole = np.dtype(np.int32 if total.max(initial=0.0) < _INT32 and n.dtype.kind == m.dtype.kind == "i" else float)
    values = np.concatenate([baseline[0], window[0]], axis=1)
    sides = ((baseline[1], m), (window[1], -n))  # whole numbers, so that sums cancel exactly
    weights = np.concatenate([ours.astype(whole) * others.astype(whole) for ours, others in sides], axis=1)
    order = np.argsort(values, axis=1, kind="stable")
    order += np.arange(len(values))[:, None] * values.shape[1]
    summed = np.cumsum(weights.ravel().take(order, mode="clip"), axis=1, dtype=whole)  # "clip" skips a check of places
    return Pooled(values.ravel().take(order, mode="clip"), summed / or_nan(total))


def kolmogorov_smirnov(pooled: Pooled) -> Floats:
    """Largest difference of the two cumulative distributions, `[D]`; NaN where a side has no rows.

    Example:
        >>> one = np.ones((1, 2), int)
        >>> kolmogorov_smirnov(pool((np.array([[1.0, 3.0]]), one), (np.array([[2.0, 3.0]]), one))).tolist()
        [0.5]
    """
    largest: Floats = np.max(pooled.gaps, axis=1)
    return largest


def wasserstein(pooled: Pooled) -> Floats:
    """Wasserstein-1, the area between the two cumulative distributions, `[D]` in the streams' own units.

    Example:
        >>> one = np.ones((1, 1), int)
        >>> wasserstein(pool((np.array([[1.0]]), one), (np.array([[4.0]]), one))).tolist()
        [3.0]
    """
    area: Floats = np.einsum("dm,dm->d", pooled.gaps[:, :-1], pooled.steps)
    return area


def energy(pooled: Pooled) -> Floats:
    """Energy distance, `sqrt(2 * integral of (F - G)^2)`, `[D]`; its square is in the streams' own units.

    So it is the root of `2 E|X - Y| - E|X - X'| - E|Y - Y'|`, as `scipy.stats.energy_distance` has it; some call that
    expression itself the energy distance. Source: G. Szekely and M. Rizzo, Energy statistics, 2013.

    Example:
        >>> one = np.ones((1, 1), int)
        >>> energy(pool((np.array([[1.0]]), one), (np.array([[3.0]]), one))).tolist()
        [2.0]
    """
    area: Floats = np.einsum("dm,dm->d", np.square(pooled.gaps[:, :-1]), pooled.steps)
    return np.sqrt(2 * area)


def standard_deviation(view: View) -> Floats:
    """Standard deviation of each stream, `[D]`; NaN without rows.

    Example:
        >>> standard_deviation((np.array([[1.0, 3.0]]), np.array([[1, 1]]))).tolist()
        [1.0]
    """
    values, weights = (array.astype(np.float64) for array in with_a_point(view))
    values -= values[:, :1].copy()  # about one of them, for a constant's deviation to be 0 and not a rounding error
    total = or_nan(weights.sum(axis=1))
    mean: Floats = np.einsum("dm,dm->d", values, weights) / total
    variance: Floats = np.einsum("dm,dm->d", np.square(values, out=values), weights) / total - mean**2
    return np.sqrt(np.maximum(variance, 0.0))


def quantiles(view: View, ranks: Sequence[float]) -> Floats:
    """Smallest values with at least a share `rank` of the rows at or below them, `[D, r]`; NaN without rows.

    Example:
        >>> quantiles((np.array([[1.0, 3.0]]), np.array([[3, 1]])), (0.5, 0.9)).tolist()
        [[1.0, 3.0]]
    """
    values, weights = with_a_point(view)
    summed = np.cumsum(weights, axis=1)
    return values_at(values, summed, np.asarray(ranks)) + 0.0 * or_nan(summed[:, -1:])


def bin_shares(baseline: View, window: View, bins: int = 10) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Shares of both sides in bins that each hold the same share of the baseline.

    The edges are the baseline's quantiles at 1/bins, 2/bins, ...; a bin is open below and closed above. An edge whose
    value alone holds more than half a bin's share becomes a bin of its own, so up to `2 * bins - 1` bins are used.

    Returns:
        Shares of the baseline and of the window, float64 `[D, 2 * bins - 1]`, 0 in bins that are not used, and
        which bins are used.

    Example:
        >>> view = (np.arange(100.0)[None], np.ones((1, 100), int))
        >>> shares, _, used = bin_shares(view, view, bins=4)
        >>> shares[used].tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    of_baseline = reference(baseline, bins)
    return of_baseline.shares, _shares_of(window, of_baseline), of_baseline.used


@dataclass(frozen=True)
class Reference:
    """A baseline, and what follows from it alone: worth keeping where many windows are held against it.

    Attributes:
        view: Ascending values and their weights, `[D, m]` each.
        deviation: Standard deviations, float64 `[D]`.
        n: Rows, `[D]`.
        edges: Of its bins, float64 `[D, bins - 1]`.
        alone: Edges that are bins of their own, bool, likewise.
        used: Which bins are used, bool `[D, 2 * bins - 1]`.
        shares: Its shares in them, float64, likewise.
    """

    view: View
    deviation: Floats
    n: NDArray[Any]
    edges: Floats
    alone: NDArray[np.bool_]
    used: NDArray[np.bool_]
    shares: Floats


def reference(baseline: View, bins: int = 10) -> Reference:
    """What `distances` needs of a baseline.

    Args:
        baseline: Ascending values and their weights, `[D, m]` each.
        bins: How many, of equal share.

    Example:
        >>> reference((np.arange(100.0)[None], np.ones((1, 100), int)), bins=4).edges.tolist()
        [[24.0, 49.0, 74.0]]
    """
    values, weights = with_a_point(baseline)
    summed = np.cumsum(weights, axis=1)
    edges = values_at(values, summed, np.arange(1, bins) / bins)
    below, upto = bisect(values, edges, "left"), bisect(values, edges, "right")
    repeated = np.diff(edges, axis=1, prepend=np.nan) == 0
    alone = (summed_at(summed, upto) - summed_at(summed, below) > 0.5 / bins * summed[:, -1:]) & ~repeated
    used = np.ones((len(edges), 2 * bins - 1), bool)
    used[:, 1::2], used[:, :-1:2] = alone, ~repeated
    shares = shares_between(summed, np.where(alone, below, upto), upto)
    return Reference(baseline, standard_deviation(baseline), summed[:, -1], edges, alone, used, shares)


def distances(baseline: View | Reference, window: View, bins: int = 10) -> Distances:
    """All distances of all streams.

    Args:
        baseline: Ascending values and their weights, `[D, m]` each; or what `reference` makes of them.
        window: The same of the window, with the same D.
        bins: Bins of the baseline, of equal share; of a `Reference` its own are used.

    Raises:
        InputError: If the sides have different numbers of streams.

    Example:
        >>> one = (np.array([[1.0, 2.0, 3.0]]), np.ones((1, 3), int))
        >>> distances(one, one).ks.tolist()
        [0.0]
    """
    view = baseline.view if isinstance(baseline, Reference) else baseline
    ks, area, squared = _by_blocks(view, window)
    of_baseline = baseline if isinstance(baseline, Reference) else reference(baseline, bins)
    p, q = of_baseline.shares, _shares_of(window, of_baseline)
    index = population_stability(p, q, of_baseline.n, window[1].sum(axis=1), of_baseline.used)
    spread = of_baseline.deviation
    return Distances(
        ks,
        _in_deviations(area, spread),
        index,
        jensen_shannon(p, q),
        hellinger(p, q),
        _in_deviations(squared, np.sqrt(spread)),
    )


def pixel_distances(baseline: NDArray[np.int64], window: NDArray[np.int64]) -> Distances:
    """All distances of exact pixel counts `[C, 256]`; Jensen-Shannon and Hellinger over the 256 values themselves.

    Raises:
        InputError: If the sides have different numbers of channels.

    Example:
        >>> black, grey = np.eye(256, dtype=int)[[0]], np.eye(256, dtype=int)[[128]]
        >>> pixel_distances(black, grey).jensen_shannon.tolist()
        [1.0]
    """
    before, after = ((np.broadcast_to(np.arange(256.0), counts.shape), counts) for counts in (baseline, window))
    p, q = (counts / or_nan(counts.sum(axis=1, keepdims=True)) for counts in (baseline, window))
    return replace(distances(before, after), jensen_shannon=jensen_shannon(p, q), hellinger=hellinger(p, q))


def _shares_of(window: View, of_baseline: Reference) -> Floats:
    """Shares of a window in the bins of a baseline."""
    values, weights = with_a_point(window)
    below, upto = bisect(values, of_baseline.edges, "left"), bisect(values, of_baseline.edges, "right")
    return shares_between(np.cumsum(weights, axis=1), np.where(of_baseline.alone, below, upto), upto)


def _in_deviations(distance: Floats, spread: Floats) -> Floats:
    return np.where(spread > 0, distance / np.where(spread > 0, spread, 1.0), np.where(distance > 0, np.inf, distance))


def _by_blocks(baseline: View, window: View) -> tuple[Floats, Floats, Floats]:
    """Kolmogorov-Smirnov, Wasserstein-1 and energy distance of all streams."""
    results = np.empty((3, len(baseline[0])))
    for start in range(0, max(len(baseline[0]), len(window[0])), _BLOCK):
        block = slice(start, start + _BLOCK)
        pooled = pool((baseline[0][block], baseline[1][block]), (window[0][block], window[1][block]))
        results[:, block] = kolmogorov_smirnov(pooled), wasserstein(pooled), energy(pooled)
    ks, area, squared = results
    return ks, area, squared


# -- of two sets of shares: of rows in bins, of labels in categories, of pixels at their 256 values


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
    before, after = _smoothed(p, np.asarray(n), used), _smoothed(q, np.asarray(m), used)
    index: Floats = np.sum((before - after) * np.log(before / after), axis=1, where=used)
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


# -- weighted values as step functions of all streams at once, ascending [D, m], and weights summed up along them


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
    index = bisect(summed, np.ceil(ranks * summed[:, -1:] * (1 - 1e-12)), "left")
    smallest: Floats = np.take_along_axis(values, np.minimum(index, values.shape[1] - 1), axis=1).astype(np.float64)
    return smallest


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
    indices: NDArray[np.intp] = low + goes_right(flat[low], wanted) - start
    return indices


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
