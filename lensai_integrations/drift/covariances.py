"""How far apart covariances are."""

from __future__ import annotations

import numpy as np

from lensai_integrations.drift.features import Floats


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
