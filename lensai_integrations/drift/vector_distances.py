"""Distances of rows as vectors, for people who have the rows of both sides: embeddings, logits, feature vectors.

A baseline keeps no more of a layer than sketches and a sample of rows, and `compare` decides by statistics that were
calibrated for these. The functions here are the field's usual measures, to look at two sets of rows oneself or to stay
comparable with another tool. None comes with a threshold: what is usual depends on the numbers of rows and columns.
Everything is computed in float64, and whatever is drawn at random is drawn by a seed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.vq import kmeans2, vq
from scipy.spatial.distance import pdist

from lensai_integrations.drift.distances import jensen_shannon, pool, wasserstein
from lensai_integrations.errors import InputError, MissingDependencyError

__all__ = [
    "PermutationTest",
    "centroid_distance",
    "classifier_auc",
    "frechet_distance",
    "k_means_distance",
    "mmd",
    "mmd_test",
    "random_directions",
    "sliced_wasserstein",
]

Floats: TypeAlias = NDArray[np.float64]

#: Directions taken at a time.
_BLOCK = 64
#: Kernel values computed at a time: 32 MB.
_CHUNK = 1 << 22
#: Larger numbers have covariances whose products are no float64; and SciPy's clusters of them end the process.
_LARGEST = 1e70
#: Rows the median distance is found from.
_MEDIAN_ROWS = 1000
#: Most rows of both sides that `mmd_test` makes a kernel matrix of: 3.2 GB.
_LARGEST_MATRIX = 20_000


def frechet_distance(
    baseline: ArrayLike | tuple[ArrayLike, ArrayLike], window: ArrayLike | tuple[ArrayLike, ArrayLike]
) -> float:
    """Squared Frechet distance of two normal distributions with the sides' means and covariances.

    `|mean1 - mean2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2))`: of an Inception network's features the FID. Source: Dowson
    and Landau, 1982; Heusel et al., 2017. The trace of the root is that of the symmetric C1^(1/2) C2 C1^(1/2), so that
    covariances of fewer rows than columns are no trouble. It sees means and covariances and nothing else.

    Args:
        baseline: Rows `[n, D]`, two or more, or a tuple of a mean `[D]` and a covariance `[D, D]`, e.g. of a profile's
            `Moments`.
        window: The same of the window.

    Raises:
        InputError: If a side is neither, has a value that is not finite, or the two have different widths.

    Example:
        >>> round(frechet_distance((np.zeros(2), np.eye(2)), (np.ones(2), 4 * np.eye(2))), 6)  # 2 + 2 * (2 - 1)^2
        4.0
    """
    (mean, covariance), (window_mean, window_covariance) = _moments("baseline", baseline), _moments("window", window)
    if mean.shape != window_mean.shape:
        raise InputError(f"baseline has {mean.size} columns and window {window_mean.size}: pass the same layer's")
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    common = np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ window_covariance @ root), 0.0)).sum()
    squared = np.sum((mean - window_mean) ** 2) + np.trace(covariance) + np.trace(window_covariance) - 2 * common
    return max(float(squared), 0.0)


def k_means_distance(baseline: ArrayLike, window: ArrayLike, n_clusters: int = 5, seed: int = 0) -> float:
    """Jensen-Shannon distance of the shares of rows in clusters of the baseline, 0 to 1.

    The centroids are those of k-means on the baseline alone; the rows of both sides go to their nearest one. Source:
    Fiddler AI, Monitoring natural language and computer vision models, 2022. Of few clusters it is coarse: what moves
    inside a cluster is not seen.

    Args:
        baseline: Rows `[n, D]`, at least `n_clusters`.
        window: Rows `[m, D]`.
        n_clusters: How many.
        seed: Where k-means starts (k-means++).

    Raises:
        InputError: If rows are no finite matrices of the same width, or n_clusters is not from 1 to n.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(200, 3))
        >>> k_means_distance(rows, rows), k_means_distance(rows, rows + 100) > 0.6
        (0.0, True)
    """
    x, y = checked_pair(baseline, window)
    if not 1 <= n_clusters <= len(x):
        raise InputError(f"n_clusters={n_clusters!r} should be from 1 to the baseline's {len(x)} rows, e.g. 5")
    unit = -np.frexp(max(np.abs(x).max(), np.abs(y).max()))[1]  # a power of two, which rounds nothing
    x, y = np.ldexp(x, unit), np.ldexp(y, unit)  # squares of very small numbers would be 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")  # no harm: its share is 0 on both sides
        different = min(n_clusters, len(np.unique(x, axis=0)))  # k-means++ cannot choose more than there are
        centroids, _ = kmeans2(x, different, iter=50, minit="++", rng=np.random.default_rng(seed))
    p, q = (np.bincount(vq(rows, centroids)[0], minlength=n_clusters) / len(rows) for rows in (x, y))
    return float(jensen_shannon(p, q))


def centroid_distance(baseline: ArrayLike, window: ArrayLike, metric: str = "euclidean") -> float:
    """Distance of the two mean rows: what Arize plots of embeddings.

    Args:
        baseline: Rows `[n, D]`.
        window: Rows `[m, D]`.
        metric: `"euclidean"`, in the units of the rows, or `"cosine"`: 1 less the cosine of their angle, 0 to 2.

    Raises:
        InputError: If rows are no finite matrices of the same width, metric is unknown, or with `"cosine"` a mean is 0.

    Example:
        >>> centroid_distance([[0.0, 0.0], [2.0, 0.0]], [[1.0, 3.0]]), centroid_distance([[1, 0]], [[0, 2]], "cosine")
        (3.0, 1.0)
    """
    x, y = (rows.mean(axis=0) for rows in checked_pair(baseline, window))
    if metric == "euclidean":
        return float(np.linalg.norm(x - y))
    if metric != "cosine":
        raise InputError(f"metric={metric!r} is unknown: pass 'euclidean' or 'cosine'")
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    if not lengths:
        raise InputError("metric='cosine', but the mean of a side is 0 and has no direction: pass 'euclidean'")
    return 1.0 - float(np.clip(x @ y / lengths, -1.0, 1.0))


def sliced_wasserstein(baseline: ArrayLike, window: ArrayLike, directions: int = 100, seed: int = 0) -> float:
    """Wasserstein-1 along random directions, on average, in the units of the rows.

    Source: Rabin et al., Wasserstein barycenter and its application to texture mixing, 2011; directions are uniform on
    the sphere. In D columns a shift of length s shows along a direction as about s (2 / (pi D))^(1/2).

    Args:
        baseline: Rows `[n, D]`.
        window: Rows `[m, D]`.
        directions: How many.
        seed: Of the directions.

    Raises:
        InputError: If rows are no finite matrices of the same width, or directions is below 1.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(100, 3))
        >>> sliced_wasserstein(rows, rows), round(sliced_wasserstein(rows, rows + 10, directions=1000))
        (0.0, 9)
    """
    x, y = checked_pair(baseline, window)
    if directions < 1:
        raise InputError(f"directions={directions!r} is how many are drawn: pass 1 or more, e.g. 100")
    axes = random_directions(x.shape[1], directions, seed)
    lengths = []
    for start in range(0, directions, _BLOCK):
        sides = (np.sort(axes[start : start + _BLOCK] @ rows.T, axis=1) for rows in (x, y))
        lengths.append(wasserstein(pool(*((values, np.ones(values.shape, np.int64)) for values in sides))))
    return float(np.concatenate(lengths).mean())


def random_directions(dim: int, count: int, seed: int) -> Floats:
    """Unit vectors, uniform on the sphere, float64 `[count, dim]`: what `sliced_wasserstein` looks along.

    Example:
        >>> np.linalg.norm(random_directions(dim=4, count=2, seed=0), axis=1).round(6).tolist()
        [1.0, 1.0]
    """
    axes = np.random.default_rng(seed).normal(size=(count, dim))
    return np.asarray(axes / np.linalg.norm(axes, axis=1, keepdims=True), np.float64)


def classifier_auc(baseline: ArrayLike, window: ArrayLike, folds: int = 5, seed: int = 0) -> float:
    """How well a classifier tells the two sides apart: ROC AUC on rows it was not fitted on, 0.5 for not at all.

    A logistic regression of standardised columns, cross-validated; the mean over the folds. Source: Lopez-Paz and
    Oquab, Revisiting classifier two-sample tests, 2017; Evidently's default for embeddings. It sees differences of
    means; rows that only spread more widely look the same to it.

    Args:
        baseline: Rows `[n, D]`, at least `folds`.
        window: Rows `[m, D]`, at least `folds`.
        folds: Parts of the rows, 2 or more.
        seed: Of their choice.

    Raises:
        InputError: If rows are no finite matrices of the same width, or too few for the folds.
        MissingDependencyError: If scikit-learn is not installed.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(200, 4))
        >>> classifier_auc(rows[:100], rows[100:] + 3) > 0.99
        True
    """
    if folds < 2:
        raise InputError(f"folds={folds!r} is how many parts the rows are cut into: pass 2 or more, e.g. 5")
    x, y = checked_pair(baseline, window, least=folds)
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_score
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingDependencyError(
            "classifier_auc needs scikit-learn: pip install 'lensai-integrations[classifier]'"
        ) from error
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    side = np.repeat([0, 1], [len(x), len(y)])
    scores = cross_val_score(model, np.concatenate([x, y]), side, scoring="roc_auc", cv=parts, error_score="raise")
    return float(np.mean(scores))


def _moments(name: str, side: Any) -> tuple[Floats, Floats]:
    """Mean and covariance of a side."""
    if not isinstance(side, tuple):
        rows = checked_rows(name, side, least=2)
        return rows.mean(axis=0), np.cov(rows, rowvar=False).reshape(rows.shape[1], -1)
    arrays = [checked_numbers(name, array) for array in side]
    if [array.ndim for array in arrays] != [1, 2] or arrays[1].shape != (arrays[0].size,) * 2:
        raise InputError(
            f"{name} should be a mean [D] and a covariance [D, D], not {[array.shape for array in arrays]}"
        )
    return arrays[0], arrays[1]


@dataclass(frozen=True)
class PermutationTest:
    """What `mmd_test` found.

    Attributes:
        mmd: Squared MMD, unbiased.
        p_value: Share of the permutations, the actual order among them, that have at least that.
        bandwidth: Of the kernel, in the units of the rows.
        permutations: How many were drawn.
    """

    mmd: float
    p_value: float
    bandwidth: float
    permutations: int


def mmd(baseline: ArrayLike, window: ArrayLike, bandwidth: float | None = None, unbiased: bool = True) -> float:
    """Squared maximum mean discrepancy with the kernel exp(-|x - y|^2 / (2 bandwidth^2)), exactly.

    Source: Gretton et al., A kernel two-sample test, 2012, equations 3 and 5. The kernel's values are summed as they
    are computed, so memory grows with the rows and not with their square; time does.

    Args:
        baseline: Rows `[n, D]`, two or more.
        window: Rows `[m, D]`, two or more.
        bandwidth: None for the median distance of the rows of both sides (of 1,000 of them if there are more).
        unbiased: Leave out the pairs of a row with itself. Without drift the value is 0 on average then, and often
            below it; with them it is never below 0, and the larger the fewer rows there are.

    Raises:
        InputError: If rows are no finite matrices of the same width, or the bandwidth is not above 0.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(200, 8))
        >>> abs(mmd(rows[:100], rows[100:])) < 0.01, round(mmd(rows[:100], rows[100:] + 1), 2)
        (True, 0.25)
    """
    x, y = checked_pair(baseline, window, least=2)
    scale = _bandwidth(x, y, bandwidth)
    n, m = len(x), len(y)
    within = [_kernel_sum(rows, rows, scale) - len(rows) * unbiased for rows in (x, y)]
    across = _kernel_sum(x, y, scale) / (n * m)
    return within[0] / (n * (n - unbiased)) + within[1] / (m * (m - unbiased)) - 2 * across


def mmd_test(
    baseline: ArrayLike, window: ArrayLike, bandwidth: float | None = None, permutations: int = 500, seed: int = 0
) -> PermutationTest:
    """Whether two sets of rows are of one distribution, by shuffling which row is of which side.

    The kernel matrix is computed once. With a 1 where a shuffled row is of the baseline, the sums over the pairs of
    every shuffle are quadratic forms, and all of them one product of matrices.

    Args:
        baseline: Rows `[n, D]`, two or more.
        window: Rows `[m, D]`, two or more; both sides together at most 20,000.
        bandwidth: As for `mmd`. The median over both sides does not depend on which row is of which side.
        permutations: How many shuffles; the smallest possible p-value is 1 / (permutations + 1).
        seed: Of the shuffles.

    Raises:
        InputError: As for `mmd`, if there are too many rows, or permutations is below 1.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(60, 4))
        >>> found = mmd_test(rows[:30], rows[30:] + 1, permutations=99)
        >>> found.p_value, found.permutations
        (0.01, 99)
    """
    x, y = checked_pair(baseline, window, least=2)
    n, m = len(x), len(y)
    if n + m > _LARGEST_MATRIX:
        raise InputError(f"{n} and {m} rows need too large a kernel matrix: pass at most {_LARGEST_MATRIX:,} together")
    if permutations < 1:
        raise InputError(f"permutations={permutations!r} is how many shuffles are drawn: pass 1 or more, e.g. 500")
    scale = _bandwidth(x, y, bandwidth)
    rows = np.concatenate([x, y])
    kernel = np.empty((n + m, n + m))
    for start, block in _kernel_blocks(rows, rows, scale):
        kernel[start : start + len(block)] = block
    np.fill_diagonal(kernel, 0.0)
    rng = np.random.default_rng(seed)
    observed = _shuffled(kernel, n, np.arange(n + m)[None])[0]
    drawn = np.concatenate(
        [
            _shuffled(
                kernel, n, rng.permuted(np.tile(np.arange(n + m), (min(_BLOCK, permutations - start), 1)), axis=1)
            )
            for start in range(0, permutations, _BLOCK)
        ]
    )
    reached = int(np.count_nonzero(drawn >= observed - 1e-12))  # shuffles that change nothing differ by rounding
    return PermutationTest(float(observed), (1 + reached) / (1 + permutations), scale, permutations)


def checked_pair(baseline: ArrayLike, window: ArrayLike, least: int = 1) -> tuple[Floats, Floats]:
    """Both sides as float64 matrices of one width.

    Args:
        baseline: Rows `[n, D]`.
        window: Rows `[m, D]`.
        least: How many rows each needs.

    Raises:
        InputError: If they are not, have too few rows, or a value is not finite.

    Example:
        >>> [rows.shape for rows in checked_pair([[1, 2]], [[3, 4], [5, 6]])]
        [(1, 2), (2, 2)]
    """
    x, y = checked_rows("baseline", baseline, least), checked_rows("window", window, least)
    if x.shape[1] != y.shape[1]:
        raise InputError(f"baseline has {x.shape[1]} columns and window {y.shape[1]}: pass the same layer's rows")
    return x, y


def checked_rows(name: str, rows: ArrayLike, least: int) -> Floats:
    """Rows as a finite float64 matrix.

    Args:
        name: What to call them in an error.
        rows: `[n, D]`.
        least: How many are needed.

    Raises:
        InputError: If they are not, there are fewer, or a value is not finite.

    Example:
        >>> checked_rows("window", [[1, 2]], least=1).dtype
        dtype('float64')
    """
    matrix = checked_numbers(name, rows)
    if matrix.ndim != 2 or len(matrix) < least or not matrix.shape[1]:
        raise InputError(f"{name} should be rows [n, D], n at least {least}, not an array of shape {matrix.shape}")
    return matrix


def checked_numbers(name: str, numbers: Any) -> Floats:
    """Numbers as a float64 array, all finite and none so large that squares and their products are not.

    Args:
        name: What to call them in an error.
        numbers: Anything numpy makes an array of.

    Raises:
        InputError: If they are no numbers, or one is not finite or beyond 1e70.

    Example:
        >>> checked_numbers("mean", [1, 2])
        array([1., 2.])
    """
    try:
        array = np.asarray(numbers, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} should be an array of numbers in host memory: {error}") from error
    if not np.isfinite(array).all():
        raise InputError(f"{name} has values that are NaN or infinite: leave out their rows, and count them")
    if array.size and (largest := float(np.abs(array).max())) > _LARGEST:
        raise InputError(
            f"{name} has numbers as large as {largest:.0e}, whose squares are too large to compute with: divide both"
            " sides by the same number"
        )
    return array


def _bandwidth(x: Floats, y: Floats, bandwidth: float | None) -> float:
    """The one given, or the median distance; for rows that are mostly alike their mean distance, or 1."""
    if bandwidth is not None:
        if not 0 < bandwidth < np.inf:
            raise InputError(f"bandwidth={bandwidth!r} should be a distance of rows: pass a number above 0, or None")
        return float(bandwidth)
    rows = np.concatenate([x, y])
    lengths = pdist(rows[np.linspace(0, len(rows) - 1, min(len(rows), _MEDIAN_ROWS)).astype(np.intp)])
    return float(np.median(lengths) or np.mean(lengths) or 1.0)


def _kernel_blocks(x: Floats, y: Floats, bandwidth: float) -> Iterator[tuple[int, Floats]]:
    """The kernel's values, some rows `[c, m]` at a time, and which row is their first."""
    middle = y.mean(axis=0)  # near the rows, for their squared lengths to be no larger than need be
    x, y = (x - middle) / bandwidth, (y - middle) / bandwidth
    lengths, step = np.einsum("nd,nd->n", y, y) / 2, max(_CHUNK // len(y), 1)
    for start in range(0, len(x), step):
        rows = x[start : start + step]
        block = rows @ y.T
        block -= np.einsum("nd,nd->n", rows, rows)[:, None] / 2 + lengths
        yield start, np.exp(np.minimum(block, 0.0, out=block), out=block)


def _kernel_sum(x: Floats, y: Floats, bandwidth: float) -> float:
    """Sum of the kernel over all pairs; of a side with itself, each row with itself counts exactly 1."""
    total = 0.0
    for start, block in _kernel_blocks(x, y, bandwidth):
        total += float(block.sum())
        if x is y:
            total += len(block) - float(np.trace(block, offset=start))
    return total


def _shuffled(kernel: Floats, n: int, orders: NDArray[np.intp]) -> Floats:
    """Unbiased squared MMD of the first n rows of each order against the others, `[orders]`."""
    m = len(kernel) - n
    chosen = np.zeros((len(kernel), len(orders)))
    np.put_along_axis(chosen, orders[:, :n].T, 1.0, axis=0)
    degrees = kernel.sum(axis=1)
    within, touched = np.einsum("np,np->p", chosen, kernel @ chosen), degrees @ chosen
    rest: Floats = degrees.sum() - 2 * touched + within
    result: Floats = within / (n * (n - 1)) + rest / (m * (m - 1)) - 2 * (touched - within) / (n * m)
    return result
