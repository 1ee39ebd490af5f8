"""Which training batches are profiled: all, one in so many, or as many as may be for what they cost.

Of each k consecutive batches one is profiled, and which one follows from the seed, the epoch and the batch's number:
never from speed, and without a period that data could have as well. So runs can be made again, a fit that
is resumed within an epoch goes on as it would have, and all ranks profile the same batches: a step of several ranks
takes as long as the slowest, and with batches of their own nearly every step would have a rank that profiles.

Choices are nested: what is profiled with twice the k is a part of what is profiled with k. Where a cost decides how
large k is (`cost.py`), k is doubled and halved, and ranks that disagree profile parts of the same batches.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from lensai_integrations.sketches.rows import GOLDEN, mixed
from lensai_integrations.training.cost import Clock, Cost

_ABOVE: Final = (
    "one training batch in {every:,} is profiled, which is as few as there are, and takes {share:.1%} of training time"
    " where cost={cost:g} was asked for"
)


def is_chosen(index: int, every: int, *, seed: int = 0, epoch: int = 0) -> bool:
    """Whether a batch is the one of its block of `every` consecutive batches that is profiled.

    Blocks are of the odd part of `every` first; then of two neighbouring blocks one is chosen, and so on.

    Args:
        index: Of the batch in its epoch, from 0.
        every: Of how many batches one is profiled.
        seed: Another seed chooses others.
        epoch: So does another epoch.

    Example:
        >>> [index for index in range(24) if is_chosen(index, 4)]
        [0, 7, 11, 12, 18, 22]
        >>> [index for index in range(24) if is_chosen(index, 8)]
        [0, 12, 22]
    """
    doublings = (every & -every).bit_length() - 1
    odd = every >> doublings
    block = index // odd
    if odd > 1 and index % odd != _hashed(seed, epoch, odd, block) % odd:
        return False
    for level in range(doublings):
        if (block & 1) != _hashed(seed, epoch, level, block >> 1) >> 63:
            return False
        block >>= 1
    return True


def _hashed(*numbers: int) -> int:
    """64 bits of numbers."""
    result = 0
    for number in numbers:
        result = mixed(result + number + GOLDEN)
    return result


class ChosenBatches:
    """The batches of training that are profiled: by default all.

    Args:
        every: Of how many consecutive batches one is profiled; with a cost, of how many at the least.
        cost: What share of training time may go into profiling training batches; None for `every` alone.
        seed: Which ones.

    Attributes:
        of: How many batches the pass has had.
        profiled: How many of them were profiled.

    Example:
        >>> chosen = ChosenBatches(4, seed=0)
        >>> chosen.begin(epoch=0)
        >>> for index in range(24):
        ...     chosen.ended(profiled=chosen.takes(index))
        >>> chosen.counts()
        {'profiled': 6, 'of': 24, 'every': 4}
    """

    def __init__(self, every: int = 1, *, cost: float | None = None, seed: int = 0) -> None:
        self._least, self._seed = every, seed
        self._cost = None if cost is None else Cost(float(cost), every)
        self.begin(0)

    @property
    def thins(self) -> bool:
        """Whether some may be passed over."""
        return self._least > 1 or self._cost is not None

    @property
    def every(self) -> int:
        """Of how many batches one is profiled now."""
        return self._least if self._cost is None else self._least * self._cost.factor

    def begin(self, epoch: int, *, together: int = 1) -> None:
        """Begin a pass.

        Args:
            epoch: Its number.
            together: How many steps run in what counts as one batch here.
        """
        self._epoch, self._together = epoch, together
        self.of = self.profiled = 0
        if self._cost is not None:
            self._cost.pause()

    def takes(self, index: int, clock: Callable[[], Clock] | None = None) -> bool:
        """Whether a batch that begins is to be profiled.

        Args:
            index: Its number in the epoch.
            clock: Makes what takes the time, where a cost decides; that of this process by default.
        """
        chosen = is_chosen(index, self.every, seed=self._seed, epoch=self._epoch)
        if self._cost is not None:
            self._cost.begins(clock, profiled=chosen)
        return chosen

    def spending(self) -> AbstractContextManager[Any]:
        """A context in which a batch is profiled, so that what it costs is known."""
        return nullcontext() if self._cost is None else self._cost.spending()

    def ended(self, *, profiled: bool) -> None:
        """A batch is over."""
        self.of += 1
        self.profiled += profiled

    def counts(self) -> dict[str, Any]:
        """What a profile's info says of the pass: JSON values; see `profiles/coverage.py`."""
        counts: dict[str, Any] = {"profiled": self.profiled, "of": self.of, "every": self.every}
        if self._cost is not None:
            counts["cost"] = self._cost.most
            counts |= {} if self._cost.share is None else {"share": round(self._cost.share, 4)}
        return counts | ({"together": self._together} if self._together > 1 else {})

    def complaint(self) -> str:
        """What is to be said of the cost, if it is not what was asked for; else nothing."""
        cost = self._cost
        if cost is None or cost.share is None or not cost.is_above:
            return ""
        return _ABOVE.format(every=self.every, share=cost.share, cost=cost.most)
