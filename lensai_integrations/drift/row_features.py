"""Features of rows as vectors: has the joint distribution moved, also where no single stream has?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from scipy.cluster.vq import kmeans2

from lensai_integrations.drift.features import MINOR, Floats
from lensai_integrations.drift.shares import jensen_shannon
from lensai_integrations.drift.stream_features import Distributions
from lensai_integrations.group import Group
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.state import State, field, require

#: Directions of the sliced Wasserstein distance.
SLICES = 32
#: Principal components in which means and covariances are compared.
COMPONENTS = 32
#: Clusters, as Fiddler counts them by default.
CLUSTERS = 5


class _Rows:
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


@dataclass(frozen=True)
class Kernel(_Rows):
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
    def width(self) -> int:
        """F, the number of features."""
        return 2 * self.frequencies * len(self.exponents)

    def features(self, rows: Floats) -> Floats:
        """float32 `[n, bandwidths * 2 F]`."""
        features: Floats = self._empty().features(rows).reshape(len(rows), -1)
        return features

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
        block._empty()
        return block


@dataclass(frozen=True)
class Principal(_Rows):
    """Principal components and their products: means and covariances.

    Attributes:
        centre: float32 `[D]`.
        axes: float32 `[D, q]`, columns scaled so that components have the variance 1 in the baseline.
        sizes: Standard deviations of the components, float32 `[q]`.
    """

    centre: Floats
    axes: Floats
    sizes: Floats
    kind: ClassVar[str] = "principal"
    statistics: ClassVar[tuple[str, ...]] = ("centroid", "mahalanobis", "frechet")

    @property
    def weights(self) -> tuple[float, ...]:
        """The distance of means decides where the components are all there are; of wide rows they are a few."""
        return MINOR, 1.0 if len(self.centre) <= COMPONENTS else MINOR, MINOR

    @classmethod
    def of(cls, rows: Floats) -> Self:
        """The largest components of some rows, `[n, D]`."""
        centre = rows.mean(axis=0)
        _, sizes, axes = np.linalg.svd(rows - centre, full_matrices=False)
        sizes = sizes / max(len(rows) - 1, 1) ** 0.5
        kept = min(COMPONENTS, int(np.sum(sizes > 1e-4 * max(sizes[0], 1e-30))))
        return cls(centre, (axes[:kept].T / sizes[:kept]).astype(np.float32), sizes[:kept].astype(np.float32))

    @property
    def width(self) -> int:
        """F, the number of features."""
        return len(self.sizes) * (len(self.sizes) + 3) // 2

    def features(self, rows: Floats) -> Floats:
        """Components and the products of each two: float32 `[n, q + q (q + 1) / 2]`."""
        components = (rows - self.centre) @ self.axes
        first, second = np.triu_indices(len(self.sizes))
        features: Floats = np.concatenate([components, components[:, first] * components[:, second]], axis=1)
        return features

    def compare(self, reference: Floats, window: Floats, scale: Floats) -> Floats:
        """Cube roots of squared distances, times `scale` squared: of the means in the rows' units over the baseline's
        spread, of the means in standard deviations, and Frechet's of means and covariances.
        """
        kept = len(self.sizes)
        gap = (window - reference)[..., :kept]
        part = self.sizes**2 / np.sum(self.sizes**2)
        centroid = np.sum(gap**2 * part, axis=-1)
        covariances = [self._covariance(side, part**0.5) for side in (reference, window)]
        frechet = centroid + bures(*covariances)
        squared = np.stack([centroid, np.sum(gap**2, axis=-1), frechet])
        statistics: Floats = np.cbrt(squared * np.square(scale))[..., None]
        return statistics

    def mean(self, rows: Floats) -> Floats:
        """The mean of `features`, without making the products of each row."""
        components = (rows - self.centre) @ self.axes
        products = (components.T @ components) / np.float32(len(rows))
        mean: Floats = np.concatenate([components.mean(axis=0), products[np.triu_indices(len(self.sizes))]])
        return mean

    def _covariance(self, mean: Floats, sizes: Floats) -> Floats:
        kept = len(self.sizes)
        first, second = np.triu_indices(kept)
        result = np.zeros((*mean.shape[:-1], kept, kept), np.float32)
        result[..., first, second] = mean[..., kept:] - mean[..., first] * mean[..., second]
        result[..., second, first] = result[..., first, second]
        return result * sizes[:, None] * sizes

    def known(self, group: Group) -> tuple[Floats, int] | None:
        """From the moments, if they have a covariance."""
        moments = group.moments
        if moments is None or not moments.n or moments.covariance is None or moments.dim != len(self.centre):
            return None
        axes = self.axes.astype(np.float64)
        mean = (moments.mean - self.centre) @ axes
        products = axes.T @ moments.covariance @ axes * ((moments.n - 1) / moments.n) + np.outer(mean, mean)
        features = np.concatenate([mean, products[np.triu_indices(len(self.sizes))]])
        return features.astype(np.float32), moments.n

    def state(self) -> State:
        """`centre`, `axes` and `sizes`."""
        return {"centre": self.centre, "axes": self.axes, "sizes": self.sizes}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The block whose state this is.

        Raises:
            FormatError: If it is none.
        """
        centre, sizes = field(state, "centre", np.float32, (None,)), field(state, "sizes", np.float32, (None,))
        axes = field(state, "axes", np.float32, (len(centre), len(sizes)))
        require(0 < len(sizes) <= COMPONENTS and bool(np.all(sizes > 0)), "components out of range")
        return cls(centre, axes, sizes)


def bures(one: Floats, two: Floats) -> Floats:
    """Squared Bures distance of covariances `[..., q, q]`: tr(A + B - 2 (A^1/2 B A^1/2)^1/2), `[...]`.

    With the squared distance of the means it is the squared Frechet distance of two normal distributions (D. C. Dowson
    and B. V. Landau, The Frechet distance between multivariate normal distributions, 1982).

    Example:
        >>> bures(np.eye(2), 4 * np.eye(2)).round(6).tolist()
        2.0
    """
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.maximum(values, 0))[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    crossed = np.maximum(np.linalg.eigvalsh(root @ two @ root), 0)
    traces = np.trace(one, axis1=-2, axis2=-1) + np.trace(two, axis1=-2, axis2=-1)
    squared: Floats = np.maximum(traces - 2 * np.sqrt(crossed).sum(axis=-1), 0)
    return squared


@dataclass(frozen=True)
class Clusters(_Rows):
    """Which of a few centroids, fixed in the baseline, is nearest.

    Attributes:
        centroids: float32 `[K, D]`.

    Example:
        >>> block = Clusters(np.array([[0], [10]], np.float32))
        >>> block.features(np.array([[1], [9], [11]], np.float32)).tolist()
        [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """

    centroids: Floats
    kind: ClassVar[str] = "clusters"
    statistics: ClassVar[tuple[str, ...]] = ("k_means",)
    weights: ClassVar[tuple[float, ...]] = (MINOR,)

    @classmethod
    def of(cls, rows: Floats, seed: int = 0) -> Self:
        """The centroids of some rows, by k-means++ and Lloyd's iterations."""
        rng = np.random.default_rng(seed)
        centroids, _ = kmeans2(rows, min(CLUSTERS, len(rows)), minit="++", missing="warn", rng=rng)
        return cls(np.ascontiguousarray(centroids, np.float32))

    @property
    def width(self) -> int:
        """F, the number of features."""
        return len(self.centroids)

    def features(self, rows: Floats) -> Floats:
        """float32 `[n, K]`, one of them 1."""
        distances = np.square(self.centroids).sum(axis=1) - 2 * rows @ self.centroids.T
        nearest: Floats = np.eye(len(self.centroids), dtype=np.float32)[np.argmin(distances, axis=1)]
        return nearest

    def compare(self, reference: Floats, window: Floats, scale: Floats) -> Floats:
        """Cube root of the squared Jensen-Shannon distance of the clusters' shares, times `scale` squared."""
        distance = jensen_shannon(reference.astype(np.float64), window.astype(np.float64))
        statistic: Floats = np.cbrt((distance * scale) ** 2).astype(np.float32)[None, ..., None]
        return statistic

    def state(self) -> State:
        """`centroids`."""
        return {"centroids": self.centroids}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The block whose state this is.

        Raises:
            FormatError: If it is none.
        """
        centroids = field(state, "centroids", np.float32, (None, None))
        require(bool(np.isfinite(centroids).all()), "a centroid is not finite")
        return cls(centroids)


@dataclass(frozen=True)
class Slices(_Rows):
    """Distributions along some random directions: their mean distance is the sliced Wasserstein distance.

    Attributes:
        directions: float32 `[D, S]`.
        along: Distributions of the projections.
    """

    directions: Floats
    along: Distributions
    kind: ClassVar[str] = "slices"
    statistics: ClassVar[tuple[str, ...]] = ("sliced_wasserstein",)
    weights: ClassVar[tuple[float, ...]] = (MINOR,)

    @classmethod
    def of(cls, rows: Floats, seed: int = 0) -> Self:
        """Directions, uniform in the space of columns divided by their standard deviation."""
        spread = rows.std(axis=0)
        drawn = np.random.default_rng(seed).normal(size=(rows.shape[1], SLICES))
        scale = np.where(spread > 0, spread, np.inf)
        directions = (drawn / np.linalg.norm(drawn, axis=0) / scale[:, None]).astype(np.float32)
        return cls(directions, Distributions.of(rows @ directions))

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
        return cls(field(state, "directions", np.float32, (None, along.streams)), along)
