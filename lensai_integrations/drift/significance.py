"""Whether a distance is more than chance: p-values, e-values, and their correction for how many there are.

The p-values are formulas, not resampling, so a comparison takes milliseconds and the same two profiles always get the
same verdict. Where a formula is approximate it is chosen to err on the careful side: a sketch's own error is taken off
a distance before it is judged, and windows of a handful of rows get wide p-values rather than wrong ones.

Evidence that is added up (over the hours of a sensor) or held against that of others (over a fleet) is kept as
e-values: numbers that are 1 or less on average where nothing moved. Their averages are e-values again and whoever
picks the largest of them can be told how many are false, however they depend on each other, while p-values of windows
that were all held against one baseline do depend on each other. e-values are handled by their natural logarithms.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrc, chdtrc, gammainc, kolmogorov

Floats: TypeAlias = NDArray[np.float64]

#: Cells of a table with fewer rows expected than this are put together before a chi-square test (Cochran, 1954).
SMALLEST_EXPECTED = 5.0


def ks_p_value(distance: Floats, n: int, m: float | Floats, error: float = 0.0) -> Floats:
    """p-values of the two-sample Kolmogorov-Smirnov test, for any shape of distances.

    The limiting distribution with M. A. Stephens' correction for finite samples (Use of the Kolmogorov-Smirnov,
    Cramer-von Mises and related statistics without extensive tables, 1970): never more than 10% below the exact
    p-value down to 1e-6, and above it for fewer than ten rows, where one row alone cannot reach 0.09.

    Args:
        distance: Kolmogorov-Smirnov distances, 0 to 1.
        n: Rows of one side.
        m: Rows of the other, of each distance or of all; of rows that depend on each other as many as they count.
        error: What the distance may be off by because the sides are sketches; taken off it first.

    Example:
        >>> ks_p_value(np.array([0.0, 0.165]), 2000, 100).round(3).tolist()
        [1.0, 0.01]
    """
    root = np.sqrt(n * m / (n + m))
    p: Floats = kolmogorov((root + 0.12 + 0.11 / root) * np.maximum(distance - error, 0.0))
    return p


def chi_square_p_value(
    baseline: NDArray[Any], window: NDArray[Any], n: float, m: float, error: float = 0.0
) -> tuple[float, int]:
    """p-value and degrees of freedom of the chi-square test that two rows of counts are of one distribution.

    Cells in which either side is expected to have fewer than five rows are put together, smallest first, until none is
    left. With a single cell remaining there is nothing to test: p is 1 at 0 degrees of freedom.

    Args:
        baseline: Counts `[K]`.
        window: Counts `[K]`.
        n: Baseline's rows, the sum of its counts.
        m: Window's rows.
        error: What a difference of two shares may be off by because counts are estimates; taken off every difference.

    Example:
        >>> p, freedom = chi_square_p_value(np.array([10, 20, 30]), np.array([6, 9, 45]), 60, 60)
        >>> round(p, 4), freedom
        (0.0168, 2)
    """
    distance, freedom = chi_square_distance(baseline, window, n, m, error)
    return (float(chdtrc(freedom, distance / (1 / n + 1 / m))), freedom) if freedom else (1.0, 0)


def chi_square_distance(
    baseline: NDArray[Any], window: NDArray[Any], n: float, m: float, error: float = 0.0
) -> tuple[float, int]:
    """The chi-square statistic times 1/n + 1/m, and its degrees of freedom: 0 where there is nothing to test.

    Arguments as for `chi_square_p_value`.

    Example:
        >>> chi_square_distance(np.array([10, 20, 30]), np.array([20, 20, 20]), 60, 60)
        (0.17777777777777778, 2)
    """
    expected = (baseline + window) / (n + m)
    cells = _cells(expected * min(n, m))
    p, q, both = (np.bincount(cells, weights=shares) for shares in (baseline / n, window / m, expected))
    freedom = len(both) - 1
    if freedom < 1:
        return 0.0, 0
    difference = np.maximum(np.abs(p - q) - error, 0.0)
    return float(np.sum(difference**2 / both)), freedom


def rare_p_value(
    baseline: NDArray[Any], window: NDArray[Any], n: float, m: float, errors: tuple[float, float] = (0, 0)
) -> float:
    """p-value of the category whose share changed most beyond chance, for any counts however small.

    Given in how many rows of both sides together a category occurs, the window's part is binomial of rate m / (n + m)
    (in truth hypergeometric, which is narrower); both tails, times the number of categories. It sees what a chi-square
    test, which has to put rare categories together, cannot: a category the baseline never had.

    Args:
        baseline: Counts `[K]`.
        window: Counts `[K]`; of rows that depend on each other, as many as they count, rounded here.
        n: Baseline's rows.
        m: Window's rows, likewise.
        errors: By how much counts of the baseline and of the window may be off; held against a change either way.

    Example:
        >>> rare_p_value(np.array([2000, 0]), np.array([195, 5]), 2000, 200) < 1e-4
        True
    """
    rate, mine, theirs = m / (n + m), errors[0], int(np.ceil(errors[1]))
    window = np.rint(window).astype(np.int64)
    more, fewer = np.maximum(window - theirs, 0), window + theirs
    upper = np.where(more > 0, bdtrc(np.maximum(more - 1, 0), more + baseline + mine, rate), 1.0)
    lower = bdtr(fewer, fewer + np.maximum(baseline - mine, 0), rate)
    return float(min(1.0, 2 * len(window) * np.min(np.minimum(upper, lower), initial=1.0)))


def category_p_value(
    baseline: NDArray[Any], window: NDArray[Any], n: float, m: float, errors: tuple[float, float] = (0, 0)
) -> float:
    """p-value of a change in the shares of categories: twice the smaller of the chi-square test's and the rare one's.

    Where all categories are too rare for a chi-square test, the rare one's alone. Arguments as for `rare_p_value`.

    Example:
        >>> category_p_value(np.array([500, 500]), np.array([50, 50]), 1000, 100)
        1.0
    """
    common, freedom = chi_square_p_value(baseline, window, n, m, errors[0] / n + errors[1] / m)
    rare = rare_p_value(baseline, window, n, m, errors)
    return min(1.0, 2 * min(common, rare)) if freedom else rare


def labels_p_value(
    baseline: NDArray[Any], window: NDArray[Any], n: float, m: float, errors: tuple[float, float] = (0, 0)
) -> float:
    """p-value of a change in the share of rows that have a label, of labels of which a row may have several.

    Labels of a row belong together, so their counts are no independent draws, and a chi-square test of them all would
    alarm too often. Each label by itself is on in independent rows; the one that changed most is held against chance as
    by `rare_p_value`, by the rows that have it or by those that do not, whichever are fewer.

    Args:
        baseline: Rows with each label `[K]`.
        window: Rows with each label `[K]`.
        n: Baseline's rows.
        m: Window's rows.
        errors: As for `rare_p_value`.

    Example:
        >>> labels_p_value(np.array([400, 400]), np.array([40, 40]), 1000, 100)
        1.0
        >>> labels_p_value(np.array([400, 400]), np.array([80, 40]), 1000, 100) < 1e-3
        True
    """
    often = 2 * (baseline + window) > n + m
    fewer = (np.where(often, np.maximum(n - baseline, 0), baseline), np.where(often, np.maximum(m - window, 0), window))
    return rare_p_value(*fewer, n, m, errors)


def holm(p: Floats) -> Floats:
    """Holm's adjusted p-values `[K]`: those below alpha are a set with any false one in it at most alpha of the time.

    Whatever the dependence between the tests. Source: S. Holm, A simple sequentially rejective multiple test procedure,
    1979.

    Example:
        >>> holm(np.array([0.04, 0.01, 0.5])).round(2).tolist()
        [0.08, 0.03, 0.5]
    """
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def log_e_value(log_p: Any) -> Floats:
    """Logarithms of the e-values that p-values are worth, for any shape.

    All betting scores `kappa * p ** (kappa - 1)` averaged over kappa from 0 to 1, `(1 - p + p ln p) / (p (ln p)^2)`:
    admissible, and with no constant to choose. p = 1 is worth 0.5, 0.01 is worth 4.5, and a million to one 5,200.
    Source: V. Vovk and R. Wang, E-values: calibration, combination and applications, 2021.

    Args:
        log_p: Natural logarithms of p-values, 0 or less.

    Example:
        >>> np.exp(log_e_value(np.log([1.0, 0.01, 1e-6]))).round(1).tolist()
        [0.5, 4.5, 5239.1]
    """
    x = np.maximum(-np.asarray(log_p, np.float64), 1e-100)
    e: Floats = x + np.log(gammainc(2.0, x)) - 2 * np.log(x)  # 1 - p + p ln p without cancellation at p near 1
    return e


def log_mean_e(log_e: Any, count: int | None = None) -> float:
    """Logarithm of the mean of e-values, which is one again, whatever the dependence between them.

    Args:
        log_e: Natural logarithms of e-values `[K]`.
        count: Of how many it is the mean; those that are not given count as 0. K by default.

    Example:
        >>> [round(np.exp(log_mean_e(np.log([2.0, 4.0]), count)).item(), 9) for count in (None, 24)]
        [3.0, 0.25]
    """
    logs = np.asarray(log_e, np.float64)
    return float(np.logaddexp.reduce(logs) - np.log(count or len(logs))) if logs.size else -np.inf


def e_bh(log_e: Any, false_share: float) -> NDArray[np.bool_]:
    """Which of many are reported, so that at most that share of those reported are false on average.

    The k largest, for the largest k of which the smallest is at least K / (k * false_share) (the e-BH procedure). It
    holds whatever the dependence between them: e-values of windows that share a baseline are not independent. Source:
    R. Wang and A. Ramdas, False discovery rate control with e-values, 2022.

    Args:
        log_e: Natural logarithms of e-values `[K]`.
        false_share: More than 0, at most 1.

    Example:
        >>> e_bh(np.log([0.5, 45.0, 30.0, 2.0]), 0.1).tolist()
        [False, True, True, False]
    """
    logs = np.asarray(log_e, np.float64)
    least = np.log(len(logs) / false_share) if logs.size else 0.0
    descending = np.sort(logs)[::-1]
    enough = np.flatnonzero(descending + np.log(np.arange(1, len(logs) + 1)) >= least - 1e-12)
    reported: NDArray[np.bool_] = logs >= descending[enough[-1]] if enough.size else np.zeros(logs.shape, np.bool_)
    return reported


def _cells(expected: Floats) -> NDArray[np.intp]:
    """A cell for every category, so that each cell is expected to hold enough rows."""
    order = np.argsort(-expected, kind="stable")
    small = int(np.count_nonzero(expected < SMALLEST_EXPECTED))
    alone = len(expected) - small
    if small and expected[order[alone:]].sum() < SMALLEST_EXPECTED:
        alone -= 1  # the small ones together are still too small: the least of the others joins them
    cells = np.empty(len(expected), np.intp)
    cells[order] = np.minimum(np.arange(len(expected)), max(alone, 0))
    return cells
