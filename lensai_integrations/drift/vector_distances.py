"""Distances of rows as vectors, for people who have the rows of both sides: embeddings, logits, feature vectors.

A baseline keeps no more of a layer than sketches and a sample of rows, and `compare` decides by statistics that were
calibrated for these. The functions here are the field's usual measures, to look at two sets of rows oneself or to stay
comparable with another tool. None comes with a threshold: what is usual depends on the numbers of rows and columns.
Everything is computed in float64, and whatever is drawn at random is drawn by a seed.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.vq import kmeans2, vq

from lensai_integrations.drift.distances import pool, wasserstein
from lensai_integrations.drift.exact_mmd import (
    PermutationTest,
    checked_numbers,
    checked_pair,
    checked_rows,
    mmd,
    mmd_test,
)
from lensai_integrations.drift.shares import jensen_shannon
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
    (mean, one), (other, two) = _moments("baseline", baseline), _moments("window", window)
    if mean.shape != other.shape:
        raise InputError(f"baseline has {mean.size} columns and window {other.size}: pass the same layer's")
    values, vectors = np.linalg.eigh(one)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    common = np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ two @ root), 0.0)).sum()
    found = np.sum((mean - other) ** 2) + np.trace(one) + np.trace(two) - 2 * common
    return max(float(found), 0.0)


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
    one, two = checked_pair(baseline, window)
    if not 1 <= n_clusters <= len(one):
        raise InputError(f"n_clusters={n_clusters!r} should be from 1 to the baseline's {len(one)} rows, e.g. 5")
    unit = -np.frexp(max(np.abs(one).max(), np.abs(two).max()))[1]  # a power of two, which rounds nothing
    one, two = np.ldexp(one, unit), np.ldexp(two, unit)  # squares of very small numbers would be 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")  # no harm: its share is 0 on both sides
        different = min(n_clusters, len(np.unique(one, axis=0)))  # k-means++ cannot choose more than there are
        centroids, _ = kmeans2(one, different, iter=50, minit="++", rng=np.random.default_rng(seed))
    p, q = (np.bincount(vq(rows, centroids)[0], minlength=n_clusters) / len(rows) for rows in (one, two))
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
    one, two = (rows.mean(axis=0) for rows in checked_pair(baseline, window))
    if metric == "euclidean":
        return float(np.linalg.norm(one - two))
    if metric != "cosine":
        raise InputError(f"metric={metric!r} is unknown: pass 'euclidean' or 'cosine'")
    lengths = float(np.linalg.norm(one) * np.linalg.norm(two))
    if not lengths:
        raise InputError("metric='cosine', but the mean of a side is 0 and has no direction: pass 'euclidean'")
    return 1.0 - float(np.clip(one @ two / lengths, -1.0, 1.0))


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
    one, two = checked_pair(baseline, window)
    if directions < 1:
        raise InputError(f"directions={directions!r} is how many are drawn: pass 1 or more, e.g. 100")
    axes = random_directions(one.shape[1], directions, seed)
    found = []
    for start in range(0, directions, _BLOCK):
        sides = (np.sort(axes[start : start + _BLOCK] @ rows.T, axis=1) for rows in (one, two))
        found.append(wasserstein(pool(*((values, np.ones(values.shape, np.int64)) for values in sides))))
    return float(np.concatenate(found).mean())


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
    one, two = checked_pair(baseline, window, least=folds)
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
    side = np.repeat([0, 1], [len(one), len(two)])
    scores = cross_val_score(model, np.concatenate([one, two]), side, scoring="roc_auc", cv=parts, error_score="raise")
    return float(np.mean(scores))


def _moments(name: str, side: Any) -> tuple[Floats, Floats]:
    """Mean and covariance of a side."""
    if not isinstance(side, tuple):
        rows = checked_rows(name, side, least=2)
        return rows.mean(axis=0), np.cov(rows, rowvar=False).reshape(rows.shape[1], -1)
    arrays = [checked_numbers(name, each) for each in side]
    if [each.ndim for each in arrays] != [1, 2] or arrays[1].shape != (arrays[0].size,) * 2:
        raise InputError(f"{name} should be a mean [D] and a covariance [D, D], not {[each.shape for each in arrays]}")
    return arrays[0], arrays[1]
