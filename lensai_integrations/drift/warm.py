"""A profile of rows that were measured before: of the row sample that a baseline keeps.

With it, a sliding window is full before production has sent its first image: the rows that are missing are the
baseline's own, and every image takes the place of one of them. They lie in the reference that the window is held
against as well, so until all have slid out the verdict is more careful than asked for, never less.

Pixel counts and text labels are not in the row sample; a window has them once it is production's alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import InputError
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.builder import feed, source_of
from lensai_integrations.sketches.rows import RowSample
from lensai_integrations.sketches.state import Sketch

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
        if sketches := _sketches(group, rows):
            groups[name] = Group(name, group.streams, dict(group.definitions), sketches, dict(group.info))
    sample = RowSample(size)
    sample.update({name: np.array(values) for name, values in rows.items()})
    return Profile(groups, sample, {"source": like.source})


def _sketches(group: Group, rows: Rows) -> dict[str, Sketch]:
    """Sketches like those of a group, of the rows that there are of them."""
    parts: dict[str, Any] = {}
    for key, sketch in group.sketches.items():
        _, _, stream = key.partition("/")
        values = rows.get(f"{group.name}/{stream}" if stream else group.name)
        if values is not None and sketch.takes != "pixels":
            parts[source_of(key, sketch)] = _classes(values) if sketch.takes == "categories" else values
    sketches = {key: sketch.empty() for key, sketch in group.sketches.items() if source_of(key, sketch) in parts}
    feed(sketches, parts)
    return sketches


def _classes(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Classes from their column; a negative one stands for a row that is not valid."""
    column = values[:, 0]
    return column[np.isfinite(column) & (column >= 0)].astype(np.int64)
