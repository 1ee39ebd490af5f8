"""MMD of whole rows: has the joint distribution moved, also where no single stream has?

Under the hypothesis that nothing moved, the difference of two mean feature vectors is a sum of independent small
vectors, so its squared length is distributed nearly as a weighted sum of chi-squares, the weights being the eigenvalues
of the features' covariance (Gretton et al., A fast, consistent kernel two-sample test, 2009). A gamma distribution of
the same first three cumulants stands in for it (Hall, 1983; Buckley and Eagleson, 1988): with two the far tail, where
corrected p-values lie, would be too thin; with three a p-value of 0.001 is right to about a third. The cumulants are
those for the actual numbers of rows, so a window of one row is judged as fairly as one of a thousand. They come from
a few hundred of the baseline's kept rows. Without kept rows there remains McDiarmid's bound, which holds for every
distribution and is very careful.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from lensai_integrations.drift.rounding import rounded_mmd
from lensai_integrations.errors import DefinitionError
from lensai_integrations.sketches.kernel_mean import KernelMean

#: Baseline rows the null distribution is estimated from. 256 give 32,640 pairs, and cost 10 ms at 512 columns.
NULL_ROWS = 256
#: Rows with larger values are passed over, as those with NaN are.
LARGEST = 1e30
#: What float32 features leave of a variance that is none.
ROUNDING = 1e-5
#: The method of a test whose p-value is not found by a formula.
CALIBRATED = "calibration"
#: With fewer rows than this the bound is used.
FEWEST_NULL_ROWS = 32


@dataclass(frozen=True)
class KernelTest:
    """An MMD and its p-value.

    Attributes:
        mmd: Distance of the two kernel means, its square averaged over the bandwidths (V-statistic).
        effect: The same less what chance contributes, in standard deviations of the baseline's features: 0.1 is a
            tenth of the distance of a typical row from the mean. Infinite if the baseline never varied.
        p_value: Not corrected for other tests; NaN where clean windows are what the MMD is held against.
        method: How `p_value` was found: `"gamma"` (from the baseline's rows), `"bound"` (distribution-free), or
            `"calibration"` where it was not.
        n: Rows of the baseline's kernel mean.
        m: Rows of the window's.
        bandwidths: Of the kernels, in the units of the rows.
        share: The share of rows that must have changed for it, see `least_share`.
    """

    mmd: float
    effect: float
    p_value: float
    method: str
    n: int
    m: int
    bandwidths: tuple[float, ...]
    share: float = 0.0


@dataclass(frozen=True)
class NullMoments:
    """What the null distribution depends on: products h of different rows, a of a row's with itself less the trace.

    Attributes:
        trace: Trace of the features' covariance.
        pairs: Pairs of different rows, either way round.
        square: Mean of h12^2.
        triangle: Mean of h12 h23 h31.
        cube: Sum over the pairs of h12^3.
        square_excess: Sum of h12^2 a1.
        excess_pair: Sum of h12 a1 a2.
        excess_square: Mean of a^2.
        excess_cube: Mean of a^3.
    """

    trace: float
    pairs: int
    square: float
    triangle: float
    cube: float
    square_excess: float
    excess_pair: float
    excess_square: float
    excess_cube: float

    @classmethod
    def of(cls, products: NDArray[np.float64], trace: float) -> NullMoments:
        """Those of a matrix of products `[r, r]`."""
        count, excess = len(products), np.diag(products) - trace
        off = products - np.diag(np.diag(products))
        pairs, squares = count * (count - 1), off**2
        return cls(
            trace,
            pairs,
            float(np.sum(squares) / pairs),
            float(np.sum(off @ off * off) / (pairs * (count - 2))),
            float(np.sum(off**3)),
            float(np.sum(squares @ excess)),
            float(excess @ off @ excess),
            float(np.mean(excess**2)),
            float(np.mean(excess**3)),
        )

    def sums(self, n: int, m: float) -> tuple[float, float]:
        """Sums of squares and of cubes of the weights whose chi-squares have the cumulants of the squared MMD.

        Each row x enters the difference of the means with a weight c, 1/n or -1/m. Let s = 1/n + 1/m, h be the product
        of two different rows and a = h(x, x) - trace. Then the squared MMD over s has the variance
        2 E[h12^2] (1 - q) + E[a^2] q and the third cumulant (1 - q) (8 E[h12 h23 h31] (1 - 2 q) + 4 E[h12^3] u +
        12 E[h12^2 a1] q + 6 E[h12 a1 a2] u) + E[a^3] w, where q, u and w are the sum of c^4 over s^2, the square of the
        sum of c^3 over s^3 and the sum of c^6 over s^3; exactly so for one sample (n infinite). For many rows the first
        terms remain, the traces of the covariance's square and cube.

        Args:
            n: Rows of one side.
            m: Rows of the other; of rows that depend on each other as many as they count.

        Example:
            >>> products = np.array([[1.0, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 1.0]])
            >>> [round(total, 6) for total in NullMoments.of(products, trace=1.0).sums(n=10**9, m=10**9)]
            [0.25, 0.125]
        """
        spread = 1 / n + 1 / m
        q, u, w = (n**-3 + m**-3) / spread**2, (n**-2 - m**-2) ** 2 / spread**3, (n**-5 + m**-5) / spread**3
        second = max(self.square * (1 - q) + self.excess_square * q / 2, 1e-9 * self.trace**2)
        mixed = self.cube * u / 2 + self.square_excess * q * 1.5 + self.excess_pair * u * 0.75
        third = self.triangle * (1 - q) * (1 - 2 * q) + mixed / self.pairs * (1 - q) + self.excess_cube * w / 8
        return second, float(np.clip(third, 1e-3 * second**1.5, 2 * second**1.5))


@dataclass(frozen=True)
class _NullMoments:
    """Null moments, and what they were found from, by value: a kernel mean may be updated between two comparisons."""

    mean: NDArray[np.float64]
    rows: NDArray[Any]
    exponents: tuple[int, ...]
    moments: NullMoments | None

    def is_of(self, mean: KernelMean, rows: NDArray[Any]) -> bool:
        if self.exponents != tuple(mean.exponents) or self.rows.shape != rows.shape:
            return False
        return np.array_equal(self.mean, mean.mean) and self.rows.tobytes() == rows.tobytes()


#: Of baselines: what their null distribution is like costs 20 ms at 512 columns, and the same for every window.
_KNOWN: WeakKeyDictionary[KernelMean, _NullMoments] = WeakKeyDictionary()


def kernel_test(
    baseline: KernelMean,
    window: KernelMean,
    baseline_rows: NDArray[Any] | None = None,
    window_rows: NDArray[Any] | None = None,
    *,
    calibrated: bool = False,
    rounded: float = 0.0,
    inflation: float = 1.0,
) -> KernelTest:
    """Test whether two kernel means are of one distribution.

    Two profiles made without knowing of each other choose their bandwidths each. Where they share none, the kernel
    mean of one side is made again from its kept rows at the other's bandwidths.

    Args:
        baseline: Of the baseline.
        window: Of the window.
        baseline_rows: `[r, D]`, a uniform sample of the baseline's rows in random order, or None.
        window_rows: The same of the window's.
        calibrated: Leave the p-value out, which takes most of the time: clean windows tell more than the formula.
        rounded: How far rounding may have moved all the rows of a side the same way; what it makes of an MMD is taken
            off.
        inflation: As how many times fewer rows the window's count, which depend on each other.

    Raises:
        DefinitionError: If the features are not the same, or no bandwidth is shared and neither side kept rows.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(500, 4))
        >>> one, two = KernelMean(4), KernelMean(4)
        >>> one.update(rows[:400])
        >>> two.update(rows[400:] + 1)
        >>> kernel_test(one, two, rows[:400]).p_value < 1e-6
        True
    """
    before, after = _at_shared_bandwidths(baseline, window, baseline_rows, window_rows)
    bands, m = len(before.exponents), after.n / inflation
    spread = 1 / before.n + 1 / m
    apart = math.sqrt(float(np.sum((before.mean - after.mean) ** 2)) / bands)
    squared = max(apart - rounded_mmd(rounded, before.bandwidths), 0.0) ** 2
    trace = max(1.0 - float(np.sum(before.mean**2)) / bands, 0.0) * before.n / max(before.n - 1, 1)
    beyond = max(squared - spread * trace, 0.0)
    effect = (beyond / trace) ** 0.5 if trace > ROUNDING else math.inf if beyond > ROUNDING else 0.0
    moments = None
    if not calibrated and baseline_rows is not None and trace > ROUNDING:
        moments = _null_moments(baseline, before, baseline_rows, trace)
    if calibrated:
        method, p = CALIBRATED, math.nan
    elif moments is None:
        method, p = "bound", bound_p_value(squared, spread)
    else:
        p = weighted_chi_square_p_value(squared / spread, trace, *moments.sums(before.n, m))
        method = "gamma"
    share = least_share(beyond, float(np.sum(before.mean**2)) / bands)
    return KernelTest(squared**0.5, effect, p, method, before.n, after.n, before.bandwidths, share)


def least_share(squared: float, norm: float) -> float:
    """The smallest share of rows that must have been replaced for an MMD, 0 to 1.

    Let a share s of rows, whichever, be replaced by rows of any other distribution. The kernel mean P becomes
    (1 - s) P + s R, so the MMD is s |R - P|, and |R - P|^2 = |R|^2 - 2 <R, P> + |P|^2 is at most 1 + |P|^2: a row's
    kernel with itself is 1, and with another no less than 0. So s is at least MMD / (1 + |P|^2)^(1/2). Rows that
    changed gradually, all of them a little, count as the share that would have had to change altogether.

    Args:
        squared: Squared MMD, less what chance contributes.
        norm: |P|^2, the squared length of the baseline's mean features, averaged over the bandwidths as the MMD's is.

    Example:
        >>> least_share(0.0125, norm=0.25)
        0.1
    """
    return min(math.sqrt(max(squared, 0.0) / (1 + norm)), 1.0)


def _null_moments(key: KernelMean, mean: KernelMean, rows: NDArray[Any], trace: float) -> NullMoments | None:
    """Those of a baseline's rows, found once; None if there are too few of them."""
    looked_at, kept = rows[: 2 * NULL_ROWS], _KNOWN.get(key)
    if kept is None or not kept.is_of(mean, looked_at) or (kept.moments and kept.moments.trace != trace):
        products = centred_products(mean, looked_at)
        moments = None if products is None else NullMoments.of(products, trace)
        kept = _KNOWN[key] = _NullMoments(np.array(mean.mean), np.array(looked_at), tuple(mean.exponents), moments)
    return kept.moments


def centred_products(mean: KernelMean, rows: NDArray[Any]) -> NDArray[np.float64] | None:
    """Inner products of the features of some rows, less their mean: `[r, r]`, averaged over the bandwidths.

    Args:
        mean: Of all rows; it centres the features.
        rows: `[r, D]`, some of these rows; the first `NULL_ROWS` valid ones are taken.

    Returns:
        The products, or None if fewer than `FEWEST_NULL_ROWS` valid rows are there.
    """
    rows = rows[: 2 * NULL_ROWS]
    rows = rows[np.max(np.abs(rows), axis=1) < LARGEST][:NULL_ROWS]  # NaN is not below it either
    if len(rows) < FEWEST_NULL_ROWS:
        return None
    centred = (mean.features(rows) - mean.mean.astype(np.float32)).reshape(len(rows), -1)
    products: NDArray[np.float64] = (centred @ centred.T).astype(np.float64) / len(mean.exponents)
    return products


def weighted_chi_square_p_value(value: float, first: float, second: float, third: float) -> float:
    """Probability that a sum of chi-squares of one degree of freedom, weighted, exceeds a value.

    Args:
        value: The sum.
        first: Sum of the weights.
        second: Sum of their squares.
        third: Sum of their cubes.

    Example:
        >>> round(weighted_chi_square_p_value(3.841, 1.0, 1.0, 1.0), 3)  # a single chi-square
        0.05
    """
    freedom = second**3 / third**2
    return float(chdtrc(freedom, max((value - first) * (freedom / second) ** 0.5 + freedom, 0.0)))


def bound_p_value(squared: float, spread: float) -> float:
    """Upper bound of the p-value of a squared MMD (V-statistic) for any distribution and kernel with k(x, x) = 1.

    The MMD's mean is at most sqrt(1/n + 1/m), and replacing a row changes it by at most 2/n or 2/m; McDiarmid's
    inequality does the rest (Gretton et al., A kernel two-sample test, 2012, theorem 7, for one distribution).

    Args:
        squared: Squared MMD.
        spread: 1/n + 1/m.

    Example:
        >>> bound_p_value(0.01, 1 / 50 + 1 / 50)
        1.0
    """
    return float(np.exp(-(max(squared**0.5 - spread**0.5, 0.0) ** 2) / (2 * spread)))


def _at_shared_bandwidths(
    baseline: KernelMean, window: KernelMean, baseline_rows: NDArray[Any] | None, window_rows: NDArray[Any] | None
) -> tuple[KernelMean, KernelMean]:
    """Both sides at the bandwidths both have."""
    try:
        shared = _limited(window, baseline)
    except DefinitionError:
        if baseline.dim == window.dim and window_rows is not None and len(window_rows):
            return baseline, _of_rows(window_rows, baseline)
        if baseline.dim == window.dim and baseline_rows is not None and len(baseline_rows):
            return _of_rows(baseline_rows, window), window
        raise
    return _limited(baseline, shared), shared


def _empty(like: KernelMean) -> KernelMean:
    return KernelMean(like.dim, like.frequencies, like.seed, like.exponents)


def _limited(mean: KernelMean, like: KernelMean) -> KernelMean:
    """A kernel mean at those of its bandwidths that another has too."""
    result = _empty(like)
    result.merge(mean)
    return result


def _of_rows(rows: NDArray[Any], like: KernelMean) -> KernelMean:
    result = _empty(like)
    result.update(rows)
    return result
