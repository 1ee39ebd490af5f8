"""Features of rows as vectors: has the joint distribution moved, also where no single stream has?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from scipy.cluster.vq import kmeans2

from lensai_integrations.drift.covariances import bures
from lensai_integrations.drift.features import MINOR, MOST_FEATURES, Floats, WholeRows
from lensai_integrations.drift.shares import jensen_shannon
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.group import Group
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.state import State, field, require

#: Principal components in which means and covariances are compared.
COMPONENTS = 32
#: Clusters, as Fiddler counts them by default.
CLUSTERS = 5
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
    """Principal components and their products: means and covariances.

    Attributes:
        centre: float32 `[D]`.
        axes: float32 `[D, q]`, columns scaled so that components have the variance 1 in the baseline.
        sizes: Standard deviations of the components, float32 `[q]`.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
        >>> block = Principal.of(rows)
        >>> block.features(rows).shape  # three components, and six products of two
        (200, 9)
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
    def columns(self) -> int:
        """D, the number of columns of the rows."""
        return len(self.centre)

    @property
    def width(self) -> int:
        """F, the number of features."""
        return len(self.sizes) * (len(self.sizes) + 3) // 2

    def _components(self, rows: Floats) -> Floats:
        """In standard deviations, cut off far beyond any that tell something more: their squares stay finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            components = (rows - self.centre) @ self.axes
        if not np.isfinite(components).all():
            components = (rows.astype(np.float64) - self.centre) @ self.axes.astype(np.float64)
        cut: Floats = np.clip(components, -_FARTHEST, _FARTHEST).astype(np.float32)
        return cut

    def features(self, rows: Floats) -> Floats:
        """Components and the products of each two: float32 `[n, q + q (q + 1) / 2]`."""
        components = self._components(rows)
        first, second = np.triu_indices(len(self.sizes))
        features: Floats = np.concatenate([components, components[:, first] * components[:, second]], axis=1)
        return features

    def compare(self, reference: Floats, window: Floats, scale: Floats) -> Floats:
        """Cube roots of squared distances, times `scale` squared: of the means in the rows' units over the baseline's
        spread, of the means in standard deviations, and Frechet's of means and covariances.
        """
        kept = len(self.sizes)
        gap = (window - reference)[..., :kept]
        part = self._parts_of_variance()
        centroid = np.sum(gap**2 * part, axis=-1)
        covariances = [self._covariance(side, part**0.5) for side in (reference, window)]
        frechet = centroid + bures(*covariances)
        squared = np.stack([centroid, np.sum(gap**2, axis=-1), frechet])
        statistics: Floats = np.cbrt(squared * np.square(scale))[..., None]
        return statistics

    def _parts_of_variance(self) -> Floats:
        """The share of each component, whatever the rows' unit: squares of very large or small ones are no float32."""
        relative = np.ldexp(self.sizes, -np.frexp(self.sizes.max())[1])  # by a power of two, which rounds nothing
        shares: Floats = relative**2 / np.sum(relative**2)
        return shares

    def mean(self, rows: Floats) -> Floats:
        """The mean of `features`, without making the products of each row."""
        components = self._components(rows)
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
        with np.errstate(over="ignore", invalid="ignore"):
            mean = (moments.mean - self.centre) @ axes
            products = np.outer(mean, mean)
            if moments.n > 1:  # one row has no covariance
                products += axes.T @ moments.covariance @ axes * ((moments.n - 1) / moments.n)
        features = np.concatenate([mean, products[np.triu_indices(len(self.sizes))]])
        features = np.nan_to_num(features, nan=np.inf)  # infinities of both signs: as far away as can be
        return np.clip(features, -(_FARTHEST**2), _FARTHEST**2).astype(np.float32), moments.n

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
        require(all(bool(np.isfinite(array).all()) for array in (centre, sizes, axes)), "axes that are not finite")
        return cls(centre, axes, sizes)


@dataclass(frozen=True)
class Clusters(WholeRows):
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
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # rows of fewer values than clusters leave some empty
            centroids, _ = kmeans2(rows, min(CLUSTERS, len(rows)), minit="++", missing="warn", rng=rng)
        return cls(np.unique(centroids, axis=0).astype(np.float32))

    @property
    def columns(self) -> int:
        """D, the number of columns of the rows."""
        return int(self.centroids.shape[1])

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
        require(0 < len(centroids) <= MOST_FEATURES, f"{len(centroids)} centroids")
        require(bool(np.isfinite(centroids).all()), "a centroid is not finite")
        return cls(centroids)
