"""Thresholds by how much a device is to save: a share of images, and of predictions, not of each measure alone.

A device saves an image when any of its measures is beyond its upper bound. Of measures that go together (sharp images
are noisy ones) the same images are beyond, so bounds for a share of all images follow from whole rows: each image has
the rank it has in the measure where it stands out most, and the bounds are where the share of such ranks is what was
asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.edge.streams import Stream
from lensai_integrations.errors import InputError
from lensai_integrations.profiles.profile import Profile


def checked_rate(rate: float) -> float:
    """The share of images to save.

    Raises:
        InputError: If it is no share.

    Example:
        >>> checked_rate(0.01)
        0.01
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1:
        raise InputError(f"save_rate={rate!r} should be a share of the images, above 0 and below 1, e.g. 0.01")
    return float(rate)


def upper_bounds(profile: Profile, streams: Sequence[Stream], rate: float) -> list[float]:
    """Bounds of which at least one is exceeded by a share of the rows.

    Args:
        profile: Of the streams.
        streams: Of one group.
        rate: The share, above 0 and below 1.

    Returns:
        A bound for each stream. Without joint rows, quantiles at which the share is that at most (Bonferroni).

    Example:
        >>> upper_bounds(Profile(), [], 0.1)
        []
    """
    if not streams:
        return []
    rows = _rows(profile, streams)
    if rows is not None:
        return [float(bound) for bound in row_bounds(rows, rate)]
    rank = 1 - rate / len(streams)
    return [float(stream.quantiles([rank])[0]) for stream in streams]


def row_bounds(rows: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Bounds of columns `[d]`, equally rare in each, of which a share of the rows exceeds at least one.

    Args:
        rows: Finite numbers `[n, d]`, both 1 or more.
        rate: The share; of the rows, as many as can be without going over it. Rows that are equal stay together.

    Example:
        >>> row_bounds(np.array([[1.0, 9.0], [2.0, 8.0], [3.0, 6.0], [4.0, 7.0]]), 0.5).tolist()
        [3.0, 8.0]
    """
    n = len(rows)
    ordered = np.sort(rows, axis=0)
    columns = zip(ordered.T, rows.T, strict=True)
    ranks = np.stack([np.searchsorted(column, values, side="right") for column, values in columns], axis=1)
    most = np.sort(ranks.max(axis=1))
    limit = most[n - 1 - min(math.floor(rate * n), n - 1)]
    inside: NDArray[np.float64] = np.where(ranks <= limit, rows, -np.inf).max(axis=0)
    return inside


def _rows(profile: Profile, streams: Sequence[Stream]) -> NDArray[np.float64] | None:
    """The joint rows that have a value of every stream; None where there are none."""
    group = streams[0].group
    if profile.rows is None or group.name not in profile.rows.data:
        return None
    kept = np.asarray(profile.rows.data[group.name], np.float64)
    known = list(group.streams)
    if kept.shape[1] != len(known) or any(stream.name not in known for stream in streams):
        return None
    chosen = kept[:, [known.index(stream.name) for stream in streams]]
    chosen = chosen[np.isfinite(chosen).all(axis=1)]
    return chosen if len(chosen) else None
