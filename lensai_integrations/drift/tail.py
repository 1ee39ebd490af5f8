"""p-values of values held against draws, continued beyond the largest draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc

Floats: TypeAlias = NDArray[np.float64]

#: The share of draws whose tail is continued as an exponential one.
SHARE = 0.05
#: Skewness is kept in this range: a normal distribution below, an exponential one above.
_SKEWNESS = (0.02, 2.0)
#: Smaller p-values are taken to be this one.
SMALLEST = 1e-300


@dataclass(frozen=True)
class Smooth:
    """A gamma distribution with the mean, variance and skewness of some draws (Pearson's type III).

    Three numbers, so that a few hundred draws settle them: where many such p-values are put together and the smallest
    one counts, p-values found by counting draws would each be right and the smallest of them far too small.

    Attributes:
        mean, spread, skewness: Of the draws.

    Example:
        >>> draws = np.random.default_rng(0).gumbel(size=1000)
        >>> np.exp(Smooth.of(draws).log_p([0.37, 4.6, 6.9])).round(3).tolist()
        [0.444, 0.012, 0.002]
    """

    mean: float
    spread: float
    skewness: float

    @classmethod
    def of(cls, draws: NDArray[Any]) -> Self:
        """Of some draws, `[B]`."""
        draws = draws.astype(np.float64)
        mean, spread = float(draws.mean()), max(float(draws.std()), 1e-9)
        return cls(mean, spread, float(np.clip(np.mean(((draws - mean) / spread) ** 3), *_SKEWNESS)))

    def log_p(self, values: Any) -> Floats:
        """Natural logarithm of the probability that a draw is at least a value; any shape."""
        shape = 4 / self.skewness**2
        place = shape + shape**0.5 * (np.asarray(values, np.float64) - self.mean) / self.spread
        logs: Floats = np.log(np.maximum(gammaincc(shape, np.maximum(place, 0.0)), SMALLEST))
        return logs


def log_p(draws: NDArray[Any], values: Any) -> Floats:
    """Natural logarithm of the probability that a draw is at least a value.

    Up to the draws' 95% quantile by counting; beyond it an exponential distribution of the same mean excess is put in
    their place, which is what tails of maxima tend to, or decay faster than (J. Pickands, Statistical inference using
    extreme order statistics, 1975). So p-values stay apart where no draw lies.

    Args:
        draws: `[B]`, ascending.
        values: Any shape.

    Example:
        >>> draws = np.arange(1000.0)
        >>> np.exp(log_p(draws, [-1.0, 500.0, 949.0, 1200.0])).round(3).tolist()
        [1.0, 0.5, 0.052, 0.0]
    """
    values = np.asarray(values, np.float64)
    count = len(draws)
    exceeded = max(int(SHARE * count), 1)
    edge = float(draws[-exceeded])
    excess = max(float(np.sum(draws[-exceeded:] - edge)) / max(exceeded - 1, 1), 1e-9)  # the edge itself is none
    p = (count - np.searchsorted(draws, values, side="left") + 1) / (count + 1)
    within = np.log(np.minimum(p, 1.0))
    result: Floats = np.where(values > edge, np.log(SHARE) - np.maximum(values - edge, 0.0) / excess, within)
    return result
