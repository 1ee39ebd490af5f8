"""Features of rows along random directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from lensai_integrations.drift.features import LEAST_RANGE, MINOR, MOST_FEATURES, Floats, WholeRows
from lensai_integrations.drift.stream_features import Distributions
from lensai_integrations.sketches.state import State, field, require

#: Directions of the sliced Wasserstein distance.
SLICES = 32


@dataclass(frozen=True)
class Slices(WholeRows):
    """Distributions along some random directions: their mean distance is the sliced Wasserstein distance.

    Attributes:
        directions: float32 `[D, S]`.
        along: Distributions of the projections.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
        >>> block = Slices.of(rows)
        >>> moved = block.compare(block.mean(rows), block.mean(rows + 1), np.float32(1))
        >>> moved.shape, bool(moved[0, 0] > 0.1)
        ((1, 1), True)
    """

    directions: Floats
    along: Distributions
    kind: ClassVar[str] = "slices"
    statistics: ClassVar[tuple[str, ...]] = ("sliced_wasserstein",)
    weights: ClassVar[tuple[float, ...]] = (MINOR,)

    @classmethod
    def of(cls, rows: Floats, seed: int = 0) -> Self:
        """Directions, uniform in the space of columns divided by their standard deviation."""
        varies = np.ptp(rows, axis=0) > LEAST_RANGE  # rounding gives a constant some deviation
        spread = np.where(varies, rows.std(axis=0), 0.0)
        drawn = np.random.default_rng(seed).normal(size=(rows.shape[1], SLICES))
        scale = np.where(spread > 0, spread, np.inf)
        directions = (drawn / np.linalg.norm(drawn, axis=0) / scale[:, None]).astype(np.float32)
        return cls(directions, Distributions.of(rows @ directions))

    @property
    def columns(self) -> int:
        """D, the number of columns of the rows."""
        return len(self.directions)

    @property
    def width(self) -> int:
        """F, the number of features."""
        return self.along.width

    def features(self, rows: Floats) -> Floats:
        """Whether each projection is at or below each edge."""
        return self.along.features(rows @ self.directions)

    def mean(self, rows: Floats) -> Floats:
        """The mean of `features`."""
        return self.along.mean(rows @ self.directions)

    def compare(self, reference: Floats, window: Floats, scale: Floats) -> Floats:
        """The mean over the directions of the Wasserstein-1 distance in ranks, times `scale`."""
        area: Floats = self.along.compare(reference, window, scale)[1].mean(axis=-1)
        return area[None, ..., None]

    def state(self) -> State:
        """`directions`, and those of the distributions."""
        return {"directions": self.directions, **self.along.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The block whose state this is.

        Raises:
            FormatError: If it is none.
        """
        along = Distributions.from_state(state)
        directions = field(state, "directions", np.float32, (None, along.streams))
        require(along.streams <= MOST_FEATURES, "too many directions")
        require(bool(np.isfinite(directions).all()), "a direction is not finite")
        return cls(directions, along)
