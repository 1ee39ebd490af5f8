"""What clean windows look like: the null distribution of every drift statistic, from the baseline's own rows.

The obvious way, to draw windows from the reference and hold them against all of it, alarms far too often: such a window
overlaps what it is judged by, and a finite reference is itself off. So the rows are split in random halves; windows of
one half are held against the other. Statistics are multiplied by sqrt(n m / (n + m)), which makes their distribution
nearly independent of n: what was learned of n = half the rows holds for the whole baseline.

Streams of one image depend on each other, so that a bound on the number of tests would be far too careful, or for
heavy tails not careful enough. Kept is therefore, of each drawn window, the largest standardised value of each
statistic over all streams (max-T: P. H. Westfall and S. S. Young, Resampling-based multiple testing, 1993). A report
is judged by the smallest of these p-values, whose own distribution over the same windows is known as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc

from lensai_integrations.drift.features import Block, Floats
from lensai_integrations.errors import InputError

Indices: TypeAlias = NDArray[np.intp]

#: Windows worked on at a time.
_DRAWN = 125
#: The largest share of the rows that windows are drawn from; the others are held against.
_MOST = 0.625
#: The share of draws whose tail is continued as an exponential one.
SHARE = 0.05
#: Skewness is kept in this range: a normal distribution below, an exponential one above.
_SKEWNESS = (0.02, 2.0)
#: Smaller p-values are taken to be this one.
SMALLEST = 1e-300


@dataclass(frozen=True)
class Null:
    """The null distribution of a block's statistics.

    Attributes:
        centre: Mean of each statistic of each stream, float32 `[sizes, statistics, D]`.
        spread: Standard deviation, likewise.
        largest: Largest standardised value over the streams of each drawn window, float32 `[sizes, statistics, draws]`,
            in the order they were drawn: draw i is the same rows for all blocks of a baseline.
    """

    centre: Floats
    spread: Floats
    largest: Floats

    def standard(self, values: Floats, size: int) -> Floats:
        """Statistics `[statistics, D]` of a window of the size of that number, standardised."""
        standard: Floats = (values - self.centre[size]) / self.spread[size]
        return standard

    @cached_property
    def _smooth(self) -> list[list[Smooth]]:
        """The distribution of the largest of each statistic, by size; found once, for each window asks."""
        return [[Smooth.of(maxima) for maxima in draws] for draws in self.largest]

    def log_p(self, standard: Floats, size: int) -> NDArray[np.float64]:
        """Logarithms of the p-values of standardised statistics `[statistics, ...]`, each as the largest of all."""
        smooth = self._smooth[size]
        return np.stack([each.log_p(values) for each, values in zip(smooth, standard, strict=True)])

    @cached_property
    def _drawn(self) -> dict[int, NDArray[np.float64]]:
        return {}

    def drawn(self, size: int) -> NDArray[np.float64]:
        """Logarithms of the p-values of the windows drawn of a size, `[statistics, draws]`; found once."""
        if size not in self._drawn:
            self._drawn[size] = self.log_p(self.largest[size], size)
        return self._drawn[size]


@dataclass(frozen=True)
class Halves:
    """Random halves of r rows, and windows of one of them: the rows' numbers in random order, draw by draw.

    Attributes:
        order: `[draws, r]`; the first `half` of each are held against, windows begin behind them.
        half: Rows held against; a little less than half of r if the largest window takes a little more.
        sizes: Rows of the windows, ascending.

    Example:
        >>> halves = Halves.draw(100, (10, 50, 90), draws=3, seed=0)
        >>> halves.sizes, halves.half, halves.order.shape
        ((10, 50), 50, (3, 100))
    """

    order: Indices
    half: int
    sizes: tuple[int, ...]

    @classmethod
    def draw(cls, rows: int, sizes: Sequence[int], draws: int, seed: int) -> Halves:
        """Draw them.

        Raises:
            InputError: If there are too few rows for the smallest window.
        """
        fitting = tuple(size for size in sorted(set(sizes)) if 0 < size <= _MOST * rows)
        if not fitting:
            raise InputError(f"{rows} rows are too few to calibrate: {math.ceil(min(sizes) / _MOST)} at the least")
        rng = np.random.default_rng(seed)
        order = rng.permuted(np.tile(np.arange(rows), (draws, 1)), axis=1)
        return cls(order, rows - max(rows // 2, fitting[-1]), fitting)

    def weights(self, draws: slice) -> Floats:
        """What each row counts in each step from one size to the next, and in the half held against.

        Returns:
            float32 `[draws, 1 + sizes, r]`: sums over rows with the weights `[:, 0]` are the half's, and those of the
            first `[:, 1 : 1 + i]` together a window's of the i-th size.
        """
        order, rows = self.order[draws], self.order.shape[1]
        ends = [0, self.half, *(self.half + size for size in self.sizes)]
        result = np.zeros((len(order), len(ends) - 1, rows), np.float32)
        for step, (start, end) in enumerate(pairwise(ends)):
            np.put_along_axis(result[:, step], order[:, start:end], 1.0, axis=1)
        return result


def null_of(block: Block, rows: Floats, halves: Halves, tick: Callable[[int], None] = lambda draws: None) -> Null:
    """Draw windows and compare them, all sizes and many streams at once.

    Args:
        block: What to compute; of one stream at least.
        rows: `[r, D]` of the block's group, all finite.
        halves: Of these rows.
        tick: Called with the number of values done.

    Returns:
        Its null distribution.
    """
    pieces = []
    for piece, columns in block.parts():
        values = np.concatenate(list(_values(piece, piece.features(rows[:, columns]), halves)), axis=1)
        centre, spread = values.mean(axis=1), np.maximum(values.std(axis=1), piece.least_spread)
        largest = ((values - centre[:, None]) / spread[:, None]).max(axis=-1)
        pieces.append((centre, spread, largest))
        tick(piece.streams)
    centres, spreads, maxima = zip(*pieces, strict=True)
    kept = (
        np.concatenate(centres, axis=-1),
        np.concatenate(spreads, axis=-1),
        np.swapaxes(np.max(maxima, axis=0), 1, 2),
    )
    centre, spread, largest = (np.ascontiguousarray(np.swapaxes(array, 0, 1), np.float32) for array in kept)
    return Null(centre, spread, largest)


def _values(block: Block, features: Floats, halves: Halves) -> Iterator[Floats]:
    """Statistics of drawn windows, `[statistics, draws, sizes, D]`, some draws at a time."""
    rows = halves.order.shape[1]
    half, sizes = halves.half, np.array(halves.sizes, np.float32)
    scale = np.sqrt(half * sizes / (half + sizes))
    for start in range(0, len(halves.order), _DRAWN):
        weights = halves.weights(slice(start, start + _DRAWN))
        sums = (weights.reshape(-1, rows) @ features).reshape(*weights.shape[:2], -1)
        means = np.cumsum(sums[:, 1:], axis=1) / sizes[:, None]
        yield block.compare(sums[:, :1] / half, means, scale)


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

    def log_p(self, values: Any) -> NDArray[np.float64]:
        """Natural logarithm of the probability that a draw is at least a value; any shape."""
        shape = 4 / self.skewness**2
        variate = shape + shape**0.5 * (np.asarray(values, np.float64) - self.mean) / self.spread
        logs: NDArray[np.float64] = np.log(np.maximum(gammaincc(shape, np.maximum(variate, 0.0)), SMALLEST))
        return logs


def log_p(draws: NDArray[Any], values: Any) -> NDArray[np.float64]:
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
    result: NDArray[np.float64] = np.where(
        values > edge, np.log(SHARE) - np.maximum(values - edge, 0.0) / excess, within
    )
    return result
