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

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.group import Group
from lensai_integrations.sketches.state import State

Floats: TypeAlias = NDArray[np.floating[Any]]


#: The weight of statistics that tell where and how something moved, but hardly ever see what others miss. A verdict is
#: the better at finding small shifts, the fewer statistics decide it.
MINOR = 0.05
#: A column whose values lie no further apart is a constant: one divided by less is no float32 any more.
LEAST_RANGE = 1e-30
#: A KLL sketch's rank error is stated at 99% confidence: so many standard deviations.
_NORMAL_99 = 2.58


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
    if bank is None or not bank.n or bank.sorted_view()[1].max() <= 1:
        return 0.0
    return bank.rank_error / _NORMAL_99
