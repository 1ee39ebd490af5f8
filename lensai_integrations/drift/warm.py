"""A profile of rows that were measured before: of the row sample that a baseline keeps.

With it, a sliding window is full before production has sent its first image: the rows that are missing are the
baseline's own, and every image takes the place of one of them. They lie in the reference that the window is held
against as well, so until all have slid out the verdict is more careful than asked for, never less.

Pixel counts and text labels are not in the row sample; a window has them once it is production's alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import InputError
from lensai_integrations.group import Group, Sketch
from lensai_integrations.profile import Profile
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.moments import Moments
from lensai_integrations.sketches.rows import RowSample

Rows = Mapping[str, NDArray[np.float32]]


def kept_rows(reference: Profile, count: int) -> dict[str, NDArray[np.float32]]:
    """The first rows of a profile's sample, by name `[count, D]`: these are a uniform sample as well.

    Raises:
        InputError: If it keeps fewer.
    """
    data = {} if reference.rows is None else reference.rows.data
    kept = min((len(rows) for rows in data.values()), default=0)
    if kept < count:
        raise InputError(
            f"warm_start=True needs {count} rows of the baseline, but it keeps {kept}: pass a smaller window, or make "
            "the baseline with more rows"
        )
    return {name: rows[:count] for name, rows in data.items()}


def profile_of_rows(rows: Rows, like: Profile, *, size: int = 2000) -> Profile:
    """A profile that has seen these rows, sketched as `like` was.

    Args:
        rows: By name of the row sample, float32 `[n, D]`.
        like: The profile they were taken from.
        size: Rows that the new profile keeps.

    Example:
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler()
        >>> profiler.update(outputs=np.random.default_rng(0).normal(size=(50, 3)))
        >>> reference = profiler.profile()
        >>> profile_of_rows(kept_rows(reference, 20), reference).groups["outputs"].n
        20
    """
    groups = {}
    for name, group in like.groups.items():
        if sketches := dict(_sketches(group, rows)):
            groups[name] = Group(name, group.streams, dict(group.definitions), sketches, dict(group.info))
    sample = RowSample(size)
    sample.update({name: np.array(values) for name, values in rows.items()})
    return Profile(groups, sample, {"source": like.source})


def _sketches(group: Group, rows: Rows) -> Iterator[tuple[str, Sketch]]:
    for key, sketch in group.sketches.items():
        kind, _, own = key.partition("/")
        values = rows.get(f"{group.name}/{own}" if own else group.name)
        if kind in _FROM_ROWS and values is not None:
            yield key, _FROM_ROWS[kind](sketch, values)


def _bank(like: Any, values: NDArray[np.float32]) -> Sketch:
    bank = KLLBank(like.dim, like.k)
    bank.update(values)
    return bank


def _kernel_mean(like: Any, values: NDArray[np.float32]) -> Sketch:
    mean = KernelMean(values.shape[1], exponents=like.exponents)
    mean.update(values)
    return mean


def _moments(like: Any, values: NDArray[np.float32]) -> Sketch:
    moments = Moments(values.shape[1], covariance=like.keeps_covariance)
    moments.update(values)
    return moments


def _categories(like: Any, values: NDArray[np.float32]) -> Sketch:
    """Classes from their column; a negative one stands for a row that is not valid."""
    column = values[:, 0]
    categories = Categories(like.max_map_size)
    categories.update(column[np.isfinite(column) & (column >= 0)].astype(np.int64))
    return categories


_FROM_ROWS = {"bank": _bank, "kernel_mean": _kernel_mean, "moments": _moments, "categories": _categories}
