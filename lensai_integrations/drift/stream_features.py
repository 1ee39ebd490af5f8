"""Features of single streams: which rows lie at or below some edges, and which belong to which class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.features import MINOR, Block, Floats
from lensai_integrations.group import Group
from lensai_integrations.sketches.state import State, field, require

Classes: TypeAlias = NDArray[np.float32]

#: Ranks of the edges at which distributions are compared; denser in the tails, where outliers show.
RANKS = (0.005, 0.01, 0.025, *(step / 20 for step in range(1, 20)), 0.975, 0.99, 0.995)
#: Streams worked on at a time.
_STREAMS = 64
#: Added to F and 1 - F where a difference is divided by them, so that a single row beyond all others decides nothing.
_TAIL = 0.005
#: More classes than this are not compared one by one.
_MOST_CLASSES = 2048


@dataclass(frozen=True)
class Distributions:
    """Cumulative distributions of D streams at edges that are the baseline's quantiles.

    An edge that is also the one before is moved just below its value, so that a value which many rows share has its
    own bin; the first edge is just below the smallest value, the last one at the largest.

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
        ordered = np.sort(np.ascontiguousarray(rows.T), axis=1)
        below = [np.searchsorted(*pair, side="right") for pair in zip(ordered, self.edges, strict=True)]
        mean: Floats = np.concatenate(below).astype(np.float32) / np.float32(len(rows))
        return mean

    def compare(self, reference: Floats, window: Floats, scale: Floats) -> Floats:
        """Kolmogorov-Smirnov distance, Wasserstein-1 in ranks, and Anderson-Darling's, each times `scale`.

        The last two integrate over the baseline's own distribution, by the trapezoidal rule: |F - G|, and the root of
        (F - G)^2 / (F (1 - F)).
        """
        shape = (*window.shape[:-1], *self.edges.shape)
        gap = (window - reference).reshape(shape)
        width, weight = self._weights()
        size = np.abs(gap)
        largest, area = size.max(axis=-1), np.einsum("...de,de->...d", size, width)
        tails = np.sqrt(np.einsum("...de,...de,de->...d", gap, gap, weight))
        statistics: Floats = np.stack([largest, area, tails]) * np.asarray(scale)[..., None]
        return statistics

    def _weights(self) -> tuple[Floats, Floats]:
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
        >>> block.compare(mean, np.array([0, 1, 0], np.float32), np.float32(1))[1].tolist()
        [0.75]
    """

    classes: Classes
    shares: Floats
    kind: ClassVar[str] = "classes"
    statistics: ClassVar[tuple[str, ...]] = ("chi_square", "total_variation")
    weights: ClassVar[tuple[float, ...]] = (1.0, MINOR)
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
        """The cube root of chi-square, and the total variation times `scale`; classes not known are one more.

        Chi-square's divisors are the shares expected; the cube root makes it nearly normal (E. B. Wilson and
        M. M. Hilferty, The distribution of chi-square, 1931).
        """
        gap = window - reference
        unknown = -gap.sum(axis=-1)
        least = 0.01 / len(self.shares)
        others = max(1 - float(self.shares.sum()), 0.0)
        chi = np.sum(gap**2 / (self.shares + least), axis=-1) + unknown**2 / (others + least)
        variation = (np.abs(gap).sum(axis=-1) + np.abs(unknown)) / 2
        statistics: Floats = np.stack([np.cbrt(chi * np.square(scale)), variation * scale])[..., None]
        return statistics

    def known(self, group: Group) -> tuple[Floats, int] | None:
        """From the categories sketch of the top class."""
        sketch = group.categories.get("top_class")
        if sketch is None or not sketch.n or sketch.error:
            return None
        counts = dict(sketch.top(_MOST_CLASSES))
        found = [counts.get(str(int(number)), 0) / sketch.n for number in self.classes]
        return np.array(found, np.float32), sketch.n

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
