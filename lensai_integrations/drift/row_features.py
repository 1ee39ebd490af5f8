"""Features of rows as vectors: has the joint distribution moved, also where no single stream has?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from lensai_integrations.drift.features import MINOR, Floats, WholeRows
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.group import Group
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.state import State, field, require

#: Principal components in which means are compared.
COMPONENTS = 32
#: Components are cut off at so many standard deviations.
_FARTHEST = 1e4


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
    kind: ClassVar[str] = "components"
    statistics: ClassVar[tuple[str, ...]] = ("mahalanobis",)

    @property
    def weights(self) -> tuple[float, ...]:
        """The distance of means decides where the components are all there are; of wide rows they are a few."""
        return (1.0 if len(self.centre) <= COMPONENTS else MINOR,)

    @classmethod
    def of(cls, rows: Floats) -> Self:
        """The largest components of some rows, `[n, D]`."""
        centre = rows.mean(axis=0)
        _, sizes, axes = np.linalg.svd(rows - centre, full_matrices=False)
        sizes = sizes / max(len(rows) - 1, 1) ** 0.5
        kept = min(COMPONENTS, int(np.sum(sizes > 1e-4 * max(sizes[0], 1e-30))))
        return cls(centre, (axes[:kept].T / sizes[:kept]).astype(np.float32))

    @property
    def columns(self) -> int:
        """D, the number of columns of the rows."""
        return len(self.centre)

    @property
    def width(self) -> int:
        """F, the number of features: q."""
        return int(self.axes.shape[1])

    def features(self, rows: Floats) -> Floats:
        """Components in standard deviations, float32 `[n, q]`, cut off far beyond any that tell something more."""
        with np.errstate(over="ignore", invalid="ignore"):
            components = (rows - self.centre) @ self.axes
        if not np.isfinite(components).all():
            components = (rows.astype(np.float64) - self.centre) @ self.axes.astype(np.float64)
        cut: Floats = np.clip(components, -_FARTHEST, _FARTHEST).astype(np.float32)
        return cut

    def compare(self, reference: Floats, window: Floats, scale: Floats) -> Floats:
        """Cube root of the squared distance of the means in standard deviations, times `scale` squared."""
        squared = np.sum(np.square(window - reference), axis=-1)
        statistic: Floats = np.cbrt(squared * np.square(scale))[None, ..., None]
        return statistic

    def known(self, group: Group) -> tuple[Floats, int] | None:
        """From the mean of the moments."""
        moments = group.moments
        if moments is None or not moments.n or moments.dim != len(self.centre):
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            mean = (moments.mean - self.centre) @ self.axes.astype(np.float64)
        mean = np.nan_to_num(mean, nan=np.inf)  # infinities of both signs: as far away as can be
        return np.clip(mean, -_FARTHEST, _FARTHEST).astype(np.float32), moments.n

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
