"""How many rows must have changed for what only whole rows show, where no stream by itself has changed as much.

A correlation that turned round leaves every stream as it was, and moves the kernel mean of twenty streams by a
hundredth of what it would if all rows were others: a bound by the MMD alone calls half of the rows a trifle. So scores
are looked for, one number of each row, whose distributions lie further apart. Wherever a threshold is put, the
difference of the shares of rows above it is no more than the share of rows that changed (the total variation).

A score that was found among the same rows that it is tried on tells baselines and windows apart also where nothing
changed. So rows are split in halves; what is found in one is tried on the other, and the other way round. The mean of
both is right on average, and by one standard error less it is hardly ever more than the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.features import Floats, Principal
from lensai_integrations.sketches.kernel_mean import KernelMean

_Halves: TypeAlias = tuple[Floats, Floats]

#: Rows of a side that are looked at, and the fewest that say something.
_MOST_ROWS, _FEWEST_ROWS = 2000, 20
#: Rows with larger values are passed over, as those with NaN are.
_LARGEST = 1e15


def changed_share(
    baseline: NDArray[Any], window: NDArray[Any], kernel: KernelMean | None = None, axes: Principal | None = None
) -> float:
    """A lower bound of the share of rows that changed, 0 to 1; 0 for fewer than 20 rows of a side.

    Args:
        baseline: Rows `[n, D]` in random order; the first 2,000 are looked at.
        window: Rows `[m, D]`, likewise.
        kernel: The witness of its MMD is tried as a score: by how much a row is likelier in the window.
        axes: Each of its components is tried as a score.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> rows, others = (rng.multivariate_normal([0, 0], [[1, r], [r, 1]], 1000) for r in (0.8, -0.8))
        >>> round(changed_share(rows, others, axes=Principal.of(rows)), 1)
        0.2
    """
    baseline, window = (_usable(rows) for rows in (baseline, window))
    n, m = len(baseline), len(window)
    if min(n, m) < _FEWEST_ROWS:
        return 0.0
    ours, theirs = ((rows[: len(rows) // 2], rows[len(rows) // 2 :]) for rows in (baseline, window))
    found = [_witnessed(kernel, ours, theirs)] if kernel is not None and kernel.exponents else []
    if axes is not None and axes.width:
        found.append(_along(*((axes.features(a), axes.features(b)) for a, b in (ours, theirs))))
    error = 0.5 * (1 / n + 1 / m) ** 0.5  # of a share of one half, in the mean of both halves
    return float(np.clip(max(found, default=0.0) - error, 0.0, 1.0))


def _usable(rows: NDArray[Any]) -> Floats:
    usable: Floats = rows[: 2 * _MOST_ROWS]
    return usable[(np.abs(usable) <= _LARGEST).all(axis=1)][:_MOST_ROWS]


def _both_ways(ours: _Halves, theirs: _Halves) -> Iterator[tuple[Floats, Floats, Floats, Floats]]:
    """The baseline's and the window's rows to look among, and to try on; both ways."""
    yield ours[0], theirs[0], ours[1], theirs[1]
    yield ours[1], theirs[1], ours[0], theirs[0]


def _witnessed(kernel: KernelMean, ours: _Halves, theirs: _Halves) -> float:
    """By the witness function of the MMD, the product of a row's features with the difference of the mean features.

    The threshold is the median of all scores that it is tried on: which of them are whose has no part in it. Source:
    Kubler et al., A witness two-sample test, 2022.
    """
    features = [tuple(kernel.features(half).reshape(len(half), -1) for half in side) for side in (ours, theirs)]
    gaps = []
    for before, after, old, new in _both_ways(features[0], features[1]):  # type: ignore[arg-type]
        towards = after.mean(axis=0) - before.mean(axis=0)
        old_scores, new_scores = old @ towards, new @ towards
        middle = _median(old_scores, new_scores)
        gaps.append(float(np.mean(new_scores > middle) - np.mean(old_scores > middle)))
    return sum(gaps) / 2


def _median(*sides: Floats) -> float:
    """The median of two sides of equal weight."""
    scores = np.concatenate(sides)
    weights = np.concatenate([np.full(len(side), 0.5 / len(side)) for side in sides])
    order = np.argsort(scores)
    return float(scores[order][np.searchsorted(np.cumsum(weights[order]), 0.5)])


def _along(ours: _Halves, theirs: _Halves) -> float:
    """By the component and the threshold that lie furthest apart in one half, tried on the other."""
    gaps = []
    for before, after, old, new in _both_ways(ours, theirs):
        column, threshold, sign = _furthest(before, after)
        gaps.append(sign * float(np.mean(old[:, column] <= threshold) - np.mean(new[:, column] <= threshold)))
    return sum(gaps) / 2


def _furthest(before: Floats, after: Floats) -> tuple[int, float, float]:
    """Where the cumulative distributions of two sides `[n, q]` and `[m, q]` differ most: column, threshold, sign."""
    scores = np.concatenate([before, after])
    weights = np.concatenate([np.full(len(before), 1 / len(before)), np.full(len(after), -1 / len(after))])
    order = np.argsort(scores, axis=0)
    gaps = np.cumsum(weights[order], axis=0)
    row, column = np.unravel_index(int(np.argmax(np.abs(gaps))), gaps.shape)
    return int(column), float(scores[order[row, column], column]), float(np.sign(gaps[row, column]))
