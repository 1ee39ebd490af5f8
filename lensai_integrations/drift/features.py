"""Features of rows whose means tell everything a comparison asks.

Whether a stream's distribution moved, whether the classes did, whether the rows moved as vectors: each such statistic
is a function of two mean vectors, the baseline's and the window's, of features of single rows. "Is this value at most
that edge" gives a cumulative distribution; waves of random frequencies give the MMD; principal components give the
distance of means.

So one matrix product turns any number of resampled windows into all their statistics, which is what calibration costs,
and a profile without rows still answers what its sketches know the means of.

A block is the features of one group for one purpose: fixed by the baseline, applied to any window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.distances import bisect
from lensai_integrations.drift.rounding import SHARED, Rounding, are_shared, rounded_mmd, shared_of, typical_sizes
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.profiles.groups import Group
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.state import State, field, require

Floats: TypeAlias = NDArray[np.floating[Any]]
Classes: TypeAlias = NDArray[np.float32]

#: The weight of statistics that tell where and how something moved, but hardly ever see what others miss. A verdict is
#: the better at finding small shifts, the fewer statistics decide it.
MINOR = 0.05
#: A column whose values lie no further apart is a constant: one divided by less is no float32 any more.
LEAST_RANGE = 1e-30
#: A KLL sketch's rank error is stated at 99% confidence: so many standard deviations.
_NORMAL_99 = 2.58
#: Ranks of the edges at which distributions are compared; denser in the tails, where outliers show.
RANKS = (0.005, 0.01, 0.025, *(step / 20 for step in range(1, 20)), 0.975, 0.99, 0.995)
#: Streams worked on at a time.
_STREAMS = 64
#: Added to F and 1 - F where a difference is divided by them, so that a single row beyond all others decides nothing.
_TAIL = 0.005
#: More classes than this are not compared one by one.
_MOST_CLASSES = 2048
#: Principal components in which means are compared.
COMPONENTS = 32
#: Components are cut off at so many standard deviations, so that no single row decides: heavy tails, and directions in
#: which a model's answers hardly ever vary, have rows now and then that no baseline of a few thousand shows.
FARTHEST = 3.0
#: Directions of rows that vary by no more than so many roundings are none.
_ROUNDINGS = 16
#: A column clearly varies if its standard deviation is so many tolerances of `rounding.py`.
_CLEARLY = 10
#: Directions in which rows vary by a smaller share of what they do in the first are none.
_LEAST_SIZE = 1e-4


class Block(Protocol):
    """What calibration and comparison need of a block."""

    kind: ClassVar[str]
    statistics: ClassVar[tuple[str, ...]]
    #: Smallest standard deviation of a statistic: one of a stream that hardly ever varies is not certain at one row.
    least_spread: ClassVar[float]
    #: Whether it fits the rows it was made of better than others.
    learned: ClassVar[bool]

    @property
    def weights(self) -> tuple[float, ...]:
        """How much each statistic counts where all are held against each other: 1, or `MINOR`."""
        ...

    @property
    def streams(self) -> int:
        """How many streams each statistic is of; 1 if it is of whole rows."""
        ...

    @property
    def columns(self) -> int:
        """D, the number of columns of the rows it is of."""
        ...

    @property
    def width(self) -> int:
        """F, the number of features."""
        ...

    def parts(self) -> Iterator[tuple[Block, slice]]:
        """The same in pieces whose features fit the processor's cache, each with the columns of rows it is of."""
        ...

    def features(self, rows: Floats) -> Floats:
        """Features `[n, F]` of rows `[n, D]`, all finite."""
        ...

    def mean(self, rows: Floats) -> Floats:
        """The mean of `features`, `[F]`."""
        ...

    def compare(self, reference: Floats, window: Floats, scale: Floats) -> Floats:
        """Statistics `[statistics, ..., streams]` of means `[..., F]`; `scale` `[...]` is sqrt(n m / (n + m))."""
        ...

    def known(self, group: Group) -> tuple[Floats, int] | None:
        """Mean features `[F]` and rows, as far as the sketches of a group know them."""
        ...

    def state(self) -> State: ...  # noqa: D102


class WholeRows:
    """What blocks of whole rows have in common: one stream, one part, a mean over features."""

    streams: ClassVar[int] = 1
    least_spread: ClassVar[float] = 1e-4
    learned: ClassVar[bool] = True

    def parts(self) -> Iterator[tuple[Any, slice]]:
        """Itself."""
        yield self, slice(None)

    def mean(self, rows: Floats) -> Floats:
        """The mean of `features`, float32 `[F]`."""
        mean: Floats = self.features(rows).mean(axis=0, dtype=np.float64).astype(np.float32)  # type: ignore[attr-defined]
        return mean

    def known(self, group: Group) -> tuple[Floats, int] | None:
        """Nothing: rows are needed."""
        return None


def rank_spread(group: Group) -> float:
    """The standard deviation of a rank by a group's sketches; 0 while they still have every row.

    Example:
        >>> rank_spread(Group("embeddings/pool"))
        0.0
    """
    bank = group.bank
    if bank is None or not bank.n or bank.sorted_view([0])[1].max() <= 1:
        return 0.0
    return bank.rank_error / _NORMAL_99


# -- of single streams


@dataclass(frozen=True)
class Distributions:
    """Cumulative distributions of D streams at edges that are the baseline's quantiles.

    An edge that is also the one before is moved just below its value, so that a value which many rows share has its
    own bin; the first edge is just below the smallest value, the last one at the largest. A window's values that are
    that value up to rounding are counted with it (`near`).

    Attributes:
        edges: float32 `[D, E]`, ascending.
        shares: The baseline's rows at or below each, float32 `[D, E]`.

    Example:
        >>> rows = np.arange(200, dtype=np.float32)[:, None]
        >>> block = Distributions.of(rows)
        >>> mean = block.mean(rows)
        >>> moved = block.compare(mean, block.mean(rows + 50), np.float32(1))
        >>> dict(zip(block.statistics, moved[:, 0].round(2).tolist()))
        {'ks': 0.25, 'wasserstein': 0.22, 'anderson_darling': 0.67}
    """

    edges: Floats
    shares: Floats
    kind: ClassVar[str] = "distributions"
    statistics: ClassVar[tuple[str, ...]] = ("ks", "wasserstein", "anderson_darling")
    weights: ClassVar[tuple[float, ...]] = (MINOR, MINOR, 1.0)
    least_spread: ClassVar[float] = 0.05
    learned: ClassVar[bool] = False

    @classmethod
    def of(cls, rows: Floats) -> Self:
        """The edges of some rows, `[n, D]`, n at least 1."""
        ordered = np.sort(rows.T, axis=1)
        places = np.ceil(np.array(RANKS) * len(rows)).astype(np.intp) - 1
        edges = np.concatenate([ordered[:, :1], ordered[:, np.maximum(places, 0)], ordered[:, -1:]], axis=1)
        first = np.diff(edges, axis=1, prepend=-np.inf) > 0
        repeats = np.concatenate([~first[:, 1:], np.zeros((len(edges), 1), bool)], axis=1)
        lowered = first & repeats
        lowered[:, 0] = True
        edges = np.where(lowered, np.nextafter(edges, np.float32(-np.inf)), edges)
        result = cls(edges, np.zeros_like(edges))
        return cls(edges, result.mean(rows).reshape(edges.shape))

    @property
    def streams(self) -> int:
        """D."""
        return len(self.edges)

    @property
    def columns(self) -> int:
        """D, the number of columns of the rows."""
        return len(self.edges)

    @property
    def width(self) -> int:
        """F, the number of features."""
        return self.edges.size

    def parts(self) -> Iterator[tuple[Block, slice]]:
        """Some streams at a time."""
        for start in range(0, len(self.edges), _STREAMS):
            block = slice(start, start + _STREAMS)
            yield type(self)(self.edges[block], self.shares[block]), block

    def features(self, rows: Floats) -> Floats:
        """Whether each value is at or below each edge: float32 `[n, D * E]`."""
        return (rows[:, :, None] <= self.edges).reshape(len(rows), -1).astype(np.float32)

    def mean(self, rows: Floats) -> Floats:
        """The mean of `features`, without making them: float32 `[D * E]`."""
        return shares_at_or_below(rows, self.edges).ravel()

    def near(self, reference: Floats, shares: Callable[[Floats], Floats], rounding: Rounding, of_layer: bool) -> Floats:
        """The mean of `features` of a window, as near to the baseline's as rounding can have moved it away.

        Below a value that many of the baseline's rows share, what lies below it by more than the tolerance is counted;
        at it, what lies up to the tolerance above. Where several such values are as close to each other, and in a
        stream that hardly varies by more, any share will do that values within the tolerance of the edge can make.

        Args:
            reference: The baseline's, `[D * E]`.
            shares: The window's shares of rows at or below each of some points: from `[D, p]` to `[D, p]`.
            rounding: The tolerance.
            of_layer: Whether the streams are a layer's columns.

        Returns:
            float32 `[D * E]`.
        """
        if (rounding, of_layer) not in self._tolerances:
            self._tolerances[rounding, of_layer] = self._tolerant(rounding, of_layer)
        lower, upper = self._tolerances[rounding, of_layer]
        low, high = np.split(shares(np.concatenate([lower, upper], axis=1)), 2, axis=1)
        nearest: Floats = np.clip(reference.reshape(self.edges.shape), low, high).astype(np.float32).ravel()
        return nearest

    @cached_property
    def _tolerances(self) -> dict[tuple[Rounding, bool], tuple[Floats, Floats]]:
        """What `_tolerant` says; found once, for each window asks."""
        return {}

    def _tolerant(self, rounding: Rounding, of_layer: bool) -> tuple[Floats, Floats]:
        """For each edge, from where to where what a window has there may be counted or not: float32 `[D, E]` both."""
        edges, typical = self.edges.astype(np.float64), self._typical(of_layer)
        tolerance, slight = (each.of_values(edges, typical[:, None]) for each in (rounding, shared_of(of_layer)))
        coarse = self.moved_alike(rounding, of_layer)[:, None] > 0
        below, above, any_share = _places(edges, are_shared(edges, typical, of_layer), tolerance)
        any_share |= coarse
        lower = np.where(any_share | below, edges - tolerance, np.where(above, edges + tolerance, edges))
        upper = np.where(any_share | above, edges + tolerance, np.where(below, edges - tolerance, edges + 2 * slight))
        with np.errstate(over="ignore"):
            return lower.astype(np.float32), upper.astype(np.float32)

    def _ends(self) -> tuple[Floats, Floats]:
        low, high = (1 + RANKS.index(rank) for rank in (0.025, 0.975))
        return self.edges[:, low], self.edges[:, high]

    def _typical(self, of_layer: bool) -> Floats:
        return typical_sizes(*self._ends(), of_layer)

    def moved_alike(self, rounding: Rounding, of_layer: bool) -> Floats:
        """How far rounding moves each stream as a whole, float64 `[D]`; see `Rounding.of_coarse`."""
        return rounding.of_coarse(*self._ends(), self._typical(of_layer))

    def compare(self, reference: Floats, window: Floats, scale: Floats) -> Floats:
        """Kolmogorov-Smirnov distance, Wasserstein-1 in ranks, and Anderson-Darling's, each times `scale`.

        The last two integrate over the baseline's own distribution, by the trapezoidal rule: |F - G|, and the root of
        (F - G)^2 / (F (1 - F)).
        """
        shape = (*window.shape[:-1], *self.edges.shape)
        gap = (window - reference).reshape(shape)
        width, weight = self.weighted
        size = np.abs(gap)
        largest, area = size.max(axis=-1), np.einsum("...de,de->...d", size, width)
        tails = np.sqrt(np.einsum("...de,...de,de->...d", gap, gap, weight))
        statistics: Floats = np.stack([largest, area, tails]) * np.asarray(scale)[..., None]
        return statistics

    @cached_property
    def weighted(self) -> tuple[Floats, Floats]:
        """The share of rows around each edge, and what its square weighs in Anderson-Darling's: `[D, E]`."""
        steps = np.diff(self.shares, axis=1, prepend=0, append=1)
        width = (steps[:, :-1] + steps[:, 1:]) / 2
        return width, width / ((self.shares + _TAIL) * (1 - self.shares + _TAIL))

    def known(self, group: Group) -> tuple[Floats, int] | None:
        """From the bank's KLL sketches."""
        if group.bank is None or not group.n:
            return None
        return group.bank.cdf(self.edges).astype(np.float32).ravel(), group.n

    def state(self) -> State:
        """`edges` and `shares`."""
        return {"edges": self.edges, "shares": self.shares}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The block whose state this is.

        Raises:
            FormatError: If it is none.
        """
        edges = field(state, "edges", np.float32, (None, len(RANKS) + 2))
        shares = field(state, "shares", np.float32, edges.shape)
        require(len(edges) > 0 and bool(np.isfinite(edges).all()), "edges that are not finite, or none")
        require(bool(np.all(edges[:, 1:] >= edges[:, :-1])), "edges out of order")
        require(bool(np.all((shares >= 0) & (shares <= 1))), "shares out of range")
        return cls(edges, shares)


def shares_at_or_below(rows: Floats, points: Floats) -> Floats:
    """The shares of rows `[n, D]` at or below points `[D, p]`, column by column: float32 `[D, p]`.

    Example:
        >>> shares_at_or_below(np.array([[1.0], [2.0]]), np.array([[0.0, 1.0, 2.0]])).tolist()
        [[0.0, 0.5, 1.0]]
    """
    below = np.empty(points.shape, np.float32)
    for start in range(0, len(points), _STREAMS):
        block = slice(start, start + _STREAMS)
        below[block] = bisect(np.sort(np.ascontiguousarray(rows[:, block].T), axis=1), points[block], "right")
    return below / np.float32(len(rows))


def _places(edges: Floats, shared: NDArray[np.bool_], tolerance: Floats) -> tuple[NDArray[np.bool_], ...]:
    """Where edges `[D, E]` are by values that many rows share: below one, at one, among close ones; bool `[D, E]` each.

    Args:
        edges: Ascending.
        shared: Whether each is one value with the next, `[D, E - 1]`.
        tolerance: Of each.
    """
    never = np.zeros((len(edges), 1), bool)
    of_many = np.concatenate([shared, never], axis=1) | np.concatenate([never, shared], axis=1)
    steps = np.diff(edges, axis=1)
    together = of_many[:, 1:] & of_many[:, :-1] & (steps <= 2 * tolerance[:, 1:])
    below = of_many & ~np.concatenate([never, together], axis=1)
    at = of_many & ~np.concatenate([together, never], axis=1)
    for column in range(edges.shape[1] - 2, -1, -1):  # equal edges are at the same value
        at[:, column] |= at[:, column + 1] & (steps[:, column] == 0)
    at &= ~below
    return below, at, of_many & ~below & ~at


@dataclass(frozen=True)
class ClassShares:
    """Shares of classes.

    Attributes:
        classes: Their numbers, float32 `[K]`, ascending.
        shares: Expected ones, float32 `[K]`; what they lack of 1 is expected of all other classes together.

    Example:
        >>> rows = np.array([[0], [0], [1], [2]], np.float32)
        >>> block = ClassShares.of(rows)
        >>> (6 * block.shares).tolist()
        [2.0, 1.0, 1.0]
        >>> mean = block.features(rows).mean(axis=0)
        >>> mean.tolist()
        [0.5, 0.25, 0.25]
        >>> block.compare(mean, np.array([0, 1, 0], np.float32), np.float32(1))[0].astype(float).round(2).tolist()
        [1.59]
    """

    classes: Classes
    shares: Floats
    kind: ClassVar[str] = "class_shares"
    statistics: ClassVar[tuple[str, ...]] = ("freeman_tukey",)
    weights: ClassVar[tuple[float, ...]] = (1.0,)
    least_spread: ClassVar[float] = 0.05
    learned: ClassVar[bool] = True  # rows always are of classes they were learned from, and others at times are not
    streams: ClassVar[int] = 1
    columns: ClassVar[int] = 1

    @classmethod
    def of(cls, rows: Floats) -> Self:
        """The classes of some rows, `[n, 1]`.

        As many rows of further classes are expected as there are classes of a single row (I. J. Good, The population
        frequencies of species and the estimation of population parameters, 1953), one at the least.
        """
        classes, counts = np.unique(rows[:, 0], return_counts=True)
        further = max(int(np.sum(counts == 1)), 1)
        return cls(classes, (counts / (len(rows) + further)).astype(np.float32))

    @property
    def width(self) -> int:
        """F, the number of features."""
        return len(self.classes)

    def parts(self) -> Iterator[tuple[Block, slice]]:
        """Itself."""
        yield self, slice(None)

    def features(self, rows: Floats) -> Floats:
        """Which class it is: float32 `[n, K]`; all 0 for one that the baseline does not know."""
        belongs: Floats = (rows[:, :1] == self.classes).astype(np.float32)
        return belongs

    def mean(self, rows: Floats) -> Floats:
        """The mean of `features`."""
        mean: Floats = self.features(rows).mean(axis=0)
        return mean

    def compare(self, reference: Floats, window: Floats, scale: Floats) -> Floats:
        """The cube root of Freeman and Tukey's statistic, with the classes that are not known as one more.

        4 times the sum of squared differences of the roots of the shares, times `scale` squared: chi-square's size
        where shares are large, and bounded where they are small, so that a row of a rare class decides nothing
        (M. F. Freeman and J. W. Tukey, Transformations related to the angular and the square root, 1950). The cube
        root makes it nearly normal (E. B. Wilson and M. M. Hilferty, The distribution of chi-square, 1931).
        """
        further = max(1 - float(self.shares.sum()), 0.0)  # of classes that are expected and were not seen
        before, after = (np.maximum(shares, 0.0) for shares in (reference, window))
        others = [np.sqrt(np.maximum(1 - shares.sum(axis=-1), 0.0) + further) for shares in (before, after)]
        apart = np.sum(np.square(np.sqrt(after) - np.sqrt(before)), axis=-1) + np.square(others[1] - others[0])
        statistic: Floats = np.cbrt(4 * apart * np.square(scale))[None, ..., None]
        return statistic

    def known(self, group: Group) -> tuple[Floats, int] | None:
        """From the categories sketch of the top class."""
        sketch = group.categories.get("top_class")
        if sketch is None or not sketch.n or sketch.error:
            return None
        counts = dict(sketch.top(_MOST_CLASSES))
        shares = [counts.get(str(int(number)), 0) / sketch.n for number in self.classes]
        return np.array(shares, np.float32), sketch.n

    def state(self) -> State:
        """`classes` and `shares`."""
        return {"classes": self.classes, "shares": self.shares}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The block whose state this is.

        Raises:
            FormatError: If it is none.
        """
        classes = field(state, "classes", np.float32, (None,))
        shares = field(state, "shares", np.float32, classes.shape)
        require(len(classes) > 0 and bool(np.isfinite(classes).all()), "classes that are not finite, or none")
        require(bool(np.all(classes[1:] > classes[:-1])), "classes out of order")
        require(bool(np.all((shares > 0) & (shares <= 1))), "shares out of range")
        return cls(classes, shares)


# -- of rows as vectors


@dataclass(frozen=True)
class Kernel(WholeRows):
    """Random Fourier features: the distance of their means is the MMD.

    Attributes:
        dim, frequencies, seed: Of the kernel mean.
        exponents: Its bandwidths.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
        >>> block = Kernel(3, 64, 1, (0, 1))
        >>> block.features(rows).shape
        (100, 256)
    """

    dim: int
    frequencies: int
    seed: int
    exponents: tuple[int, ...]
    kind: ClassVar[str] = "kernel"
    statistics: ClassVar[tuple[str, ...]] = ("mmd",)
    weights: ClassVar[tuple[float, ...]] = (1.0,)
    learned: ClassVar[bool] = False

    def _empty(self) -> KernelMean:
        return KernelMean(self.dim, self.frequencies, self.seed, self.exponents)

    @property
    def columns(self) -> int:
        """D, the number of columns of the rows."""
        return self.dim

    @property
    def width(self) -> int:
        """F, the number of features."""
        return 2 * self.frequencies * len(self.exponents)

    def features(self, rows: Floats) -> Floats:
        """float32 `[n, bandwidths * 2 F]`; 0 for a row too far away to compute them, as its kernel with others is."""
        features: Floats = self._empty().features(rows).reshape(len(rows), -1)
        return np.nan_to_num(features, copy=False)

    def compare(self, reference: Floats, window: Floats, scale: Floats) -> Floats:
        """Cube root of the squared MMD, averaged over the bandwidths, times `scale` squared."""
        squared = np.sum(np.square(window - reference), axis=-1) / len(self.exponents)
        statistic: Floats = np.cbrt(squared * np.square(scale))[None, ..., None]
        return statistic

    def near(self, reference: Floats, window: Floats, length: float) -> Floats:
        """A window's mean features, as near to the baseline's as rounding can have moved them away.

        A row that moves by a length l moves its features by at most l / s, as the slope of the kernel's is.

        Args:
            reference: The baseline's, `[F]`.
            window: The window's, `[F]`.
            length: By how much rounding moves rows all the same way.
        """
        slack = rounded_mmd(length, [2.0**exponent for exponent in self.exponents])
        gap = window - reference
        mmd = float(np.sqrt(np.sum(np.square(gap)) / len(self.exponents)))
        return window if not slack else (reference + gap * np.float32(max(1 - slack / max(mmd, slack), 0.0)))

    def known(self, group: Group) -> tuple[Floats, int] | None:
        """From the kernel mean, if its bandwidths are these."""
        mean = group.kernel_mean
        if mean is None or not mean.n or (mean.dim, mean.seed) != (self.dim, self.seed):
            return None
        if mean.exponents != self.exponents or mean.frequencies != self.frequencies:
            return None
        return mean.mean.astype(np.float32).ravel(), mean.n

    def state(self) -> State:
        """`kernel`: dim, frequencies, seed, exponents."""
        return {"kernel": np.array([self.dim, self.frequencies, self.seed, *self.exponents], np.int64)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The block whose state this is.

        Raises:
            FormatError: If it is none.
        """
        numbers = field(state, "kernel", np.int64, (None,)).tolist()
        require(4 <= len(numbers) <= 6, "a kernel of another length")
        block = cls(numbers[0], numbers[1], numbers[2], tuple(numbers[3:]))
        try:
            block._empty()
        except InputError as error:
            raise FormatError(f"a kernel that cannot be: {error}") from error
        return block


@dataclass(frozen=True)
class Principal(WholeRows):
    """Principal components: how far apart the means are.

    Attributes:
        centre: float32 `[D]`.
        axes: float32 `[D, q]`, columns scaled so that components have the variance 1 in the baseline.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
        >>> block = Principal.of(rows)
        >>> block.features(rows).shape
        (200, 3)
    """

    centre: Floats
    axes: Floats
    kind: ClassVar[str] = "bounded_components"
    statistics: ClassVar[tuple[str, ...]] = ("mahalanobis",)

    @property
    def weights(self) -> tuple[float, ...]:
        """The distance of means decides where the components are all there are; of wide rows they are a few."""
        return (1.0 if len(self.centre) <= COMPONENTS else MINOR,)

    @classmethod
    def of(cls, rows: Floats) -> Self | None:
        """The largest components of some rows `[n, D]`, their columns in standard deviations; None if none varies.

        A column that varies by hardly more than rounding does is none of them: in standard deviations, its components
        would be the rounding of one library, which another has not. So are directions that only rounding has.
        """
        centre, spread = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
        sizes = np.quantile(np.abs(rows), 0.975, axis=0).astype(np.float64)
        rounding = _ROUNDINGS * np.finfo(np.float32).eps * sizes
        varies = spread > np.maximum(_CLEARLY * SHARED.of_values(sizes, sizes), LEAST_RANGE)
        if not varies.any():
            return None
        per_spread = np.where(varies, 1 / np.where(varies, spread, 1.0), 0.0)
        _, sizes, axes = np.linalg.svd((rows - centre) * per_spread, full_matrices=False)
        sizes = sizes / max(len(rows) - 1, 1) ** 0.5
        least = np.sqrt(np.square(axes) @ np.square(rounding * per_spread))
        kept = np.flatnonzero(sizes > np.maximum(least, _LEAST_SIZE * sizes[0]))[:COMPONENTS]
        scaled = (axes[kept] / sizes[kept, None] * per_spread).T
        return cls(centre.astype(np.float32), np.ascontiguousarray(scaled, np.float32))

    @property
    def columns(self) -> int:
        """D, the number of columns of the rows."""
        return len(self.centre)

    @property
    def width(self) -> int:
        """F, the number of features: q."""
        return int(self.axes.shape[1])

    def features(self, rows: Floats) -> Floats:
        """Components in standard deviations, float32 `[n, q]`, cut off at `FARTHEST` of them."""
        with np.errstate(over="ignore", invalid="ignore"):
            components = (rows - self.centre) @ self.axes
        if not np.isfinite(components).all():
            components = (rows.astype(np.float64) - self.centre) @ self.axes.astype(np.float64)
        cut: Floats = np.clip(components, -FARTHEST, FARTHEST).astype(np.float32)
        return cut

    def compare(self, reference: Floats, window: Floats, scale: Floats) -> Floats:
        """Cube root of the squared distance of the means in standard deviations, times `scale` squared."""
        squared = np.sum(np.square(window - reference), axis=-1)
        statistic: Floats = np.cbrt(squared * np.square(scale))[None, ..., None]
        return statistic

    def state(self) -> State:
        """`centre` and `axes`."""
        return {"centre": self.centre, "axes": self.axes}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The block whose state this is.

        Raises:
            FormatError: If it is none.
        """
        centre = field(state, "centre", np.float32, (None,))
        axes = field(state, "axes", np.float32, (len(centre), None))
        require(0 < axes.shape[1] <= COMPONENTS, "components out of range")
        require(all(bool(np.isfinite(array).all()) for array in (centre, axes)), "axes that are not finite")
        return cls(centre, axes)
