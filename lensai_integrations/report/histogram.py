"""From sketches to bars.

A KLL bank and exact pixel counts both come down to the same thing, values with weights, and all charts and gaps come
from that. Bars span the 0.5% to 99.5% quantiles: one outlier in a million rows must not press the other rows into a
single bar. What lies outside is counted and reported, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.distances import kolmogorov_smirnov, pool
from lensai_integrations.sketches.bank import KLLBank

Floats = NDArray[np.float64]

#: Ranks between which the bars lie.
ROBUST = (0.005, 0.995)
#: The whole range is drawn when it is at most this many times the robust one.
NEARLY_ALL = 1.25
MIN_BARS, MAX_BARS = 8, 32
#: A stream with at most this many different values gets a bar per value.
MAX_DISCRETE = 20


@dataclass(frozen=True)
class Distribution:
    """A stream as values with weights.

    Attributes:
        values: float64 `[m]`, ascending.
        weights: float64 `[m]`: how many rows each value stands for.
        n: Rows behind it.
    """

    values: Floats
    weights: Floats
    n: int

    @property
    def empty(self) -> bool:
        """Whether there is no row."""
        return self.values.size == 0 or self.n == 0

    def quantile(self, rank: float) -> float:
        """The smallest value with at least this share of the rows at or below it; NaN when empty.

        Example:
            >>> Distribution(np.array([1.0, 2.0]), np.array([3.0, 1.0]), 4).quantile(0.75)
            1.0
        """
        if self.empty:
            return float("nan")
        reached = np.cumsum(self.weights) >= rank * self.weights.sum() * (1 - 1e-12)
        return float(self.values[int(np.argmax(reached))])


@dataclass(frozen=True)
class Histogram:
    """The bars of one stream, for several distributions over the same bins.

    Attributes:
        edges: float64 `[bars + 1]`; of a discrete stream, the `[bars]` values instead.
        shares: Per distribution float64 `[bars]`: the share of its rows in each bar; all zero when empty.
        below: Per distribution, the share of its rows left of the first bar.
        above: Per distribution, the share of its rows right of the last bar.
        discrete: Whether each bar is one value.
    """

    edges: Floats
    shares: tuple[Floats, ...]
    below: tuple[float, ...]
    above: tuple[float, ...]
    discrete: bool = False

    @property
    def span(self) -> tuple[float, float]:
        """Left and right end of the drawn axis."""
        return float(self.edges[0]), float(self.edges[-1])


def bank_distributions(bank: KLLBank, columns: Sequence[int] | None = None) -> list[Distribution]:
    """One distribution per stream of a bank, or per chosen column; empty ones if the bank is."""
    chosen = range(bank.dim) if columns is None else columns
    n = bank.n
    if n == 0:
        return [Distribution(np.empty(0), np.empty(0), 0) for _ in chosen]
    values, weights = bank.sorted_view()
    return [Distribution(values[c].astype(np.float64), weights[c].astype(np.float64), n) for c in chosen]


def count_distribution(counts: NDArray[np.int64]) -> Distribution:
    """Exact counts `[256]` of the values 0 to 255 as a distribution."""
    present = np.flatnonzero(counts)
    return Distribution(present.astype(np.float64), counts[present].astype(np.float64), int(counts.sum()))


def histogram(
    distributions: Sequence[Distribution], span: tuple[float, float] | None = None, bars: int | None = None
) -> Histogram | None:
    """Bars of several distributions over common bins, or None when all of them are empty.

    Args:
        distributions: The same stream of several profiles, the one that is drawn first at the front.
        span: Fixed ends of the axis; None takes the robust range of all distributions together.
        bars: How many bars; None decides from the number of rows (Rice's rule, 8 to 32).

    Example:
        >>> drawn = histogram([Distribution(np.array([0.0, 1.0]), np.array([3.0, 1.0]), 4)])
        >>> drawn.discrete, drawn.shares[0].tolist()
        (True, [0.75, 0.25])
    """
    present = [d for d in distributions if not d.empty]
    if not present:
        return None
    if span is None:
        values = np.unique(np.concatenate([d.values[d.weights > 0] for d in present]))
        if values.size <= max(1, min(MAX_DISCRETE, max(d.n for d in present) // 2)):
            return _discrete(distributions, values)
        span = _common_span(present)
    amount = bars or int(np.clip(2 * max(d.n for d in present) ** (1 / 3), MIN_BARS, MAX_BARS))
    edges = np.linspace(*span, amount + 1)
    parts = [_binned(d, edges) for d in distributions]
    shares, below, above = zip(*parts, strict=True)
    return Histogram(edges, shares, below, above)


def gap(a: Distribution, b: Distribution) -> float | None:
    """The Kolmogorov-Smirnov distance of two distributions, 0 to 1; None if one is empty.

    Example:
        >>> a, b = (Distribution(np.array([0.0, x]), np.ones(2), 2) for x in (1.0, 2.0))
        >>> gap(a, a), gap(a, b)
        (0.0, 0.5)
    """
    if a.empty or b.empty:
        return None
    pooled = pool((a.values[None], a.weights[None]), (b.values[None], b.weights[None]))
    return float(kolmogorov_smirnov(pooled)[0])


def _common_span(distributions: Sequence[Distribution]) -> tuple[float, float]:
    low = min(d.quantile(ROBUST[0]) for d in distributions)
    high = max(d.quantile(ROBUST[1]) for d in distributions)
    least, most = min(d.values[0] for d in distributions), max(d.values[-1] for d in distributions)
    if most - least <= NEARLY_ALL * (high - low):
        return float(least), float(most)
    return (low, high) if high > low else (float(least), float(most))


def _binned(d: Distribution, edges: Floats) -> tuple[Floats, float, float]:
    """Shares per bar; the first bar includes its left edge."""
    if d.empty:
        return np.zeros(len(edges) - 1), 0.0, 0.0
    total = d.weights.sum()
    counts = np.histogram(d.values, edges, weights=d.weights)[0]
    below, above = d.weights[d.values < edges[0]].sum(), d.weights[d.values > edges[-1]].sum()
    return counts / total, float(below / total), float(above / total)


def _discrete(distributions: Sequence[Distribution], values: Floats) -> Histogram:
    shares = []
    for d in distributions:
        places: NDArray[Any] = np.searchsorted(values, d.values)
        kept = d.weights > 0
        totals = np.bincount(places[kept], d.weights[kept], minlength=len(values))
        shares.append(totals / max(totals.sum(), 1))
    none = (0.0,) * len(distributions)
    return Histogram(values, tuple(shares), none, none, discrete=True)
