"""A baseline's calibration: its features, where the baseline is in them, and what chance does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.accuracy import Confidence, confidences_of
from lensai_integrations.drift.features import LEAST_RANGE, Block, Floats, rank_spread
from lensai_integrations.drift.null import Halves, Null, null_of
from lensai_integrations.drift.row_features import Kernel, Principal
from lensai_integrations.drift.stream_features import ClassShares, Distributions
from lensai_integrations.errors import InputError
from lensai_integrations.group import Group
from lensai_integrations.heads import is_labels, is_outputs
from lensai_integrations.profile import Profile

#: Rows of the windows that are drawn.
SIZES = (5, 10, 25, 50, 100, 200, 500, 1000)
#: Windows drawn of each size.
DRAWS = 1000
#: With fewer rows formulas are more to be trusted than resampling.
FEWEST_ROWS = 100
#: With fewer rows the calibration says so.
_FEW_ROWS = 500
#: What the name of the classes in a row sample ends with; -1 is none.
TOP_CLASS = "/top_class"
#: The share of the rows that axes and classes are learned from. These suit the rows they were learned from better
#: than any others, so those rows are left out where such a statistic is drawn or held against.
_LEARNED = 0.2
#: Groups with a smaller share of finite rows are not calibrated.
_ENOUGH = 0.5
#: Numbers beyond are no measurements, and their squares no float32.
LARGEST = 1e15
#: More rows than these tell hardly more of windows of 1,000, and take memory in proportion.
_MOST_ROWS = 10_000


@dataclass(frozen=True)
class Part:
    """A block of the baseline: where its rows are, what the baseline is, and what chance does.

    Attributes:
        group: The profile's group.
        rows: Under which name the row sample keeps the rows.
        block: The features.
        mean: Their mean in the baseline, float32 `[F]`.
        n: Rows of that mean; of a sketch as many as would make it as certain.
        null: The null distribution.
    """

    group: str
    rows: str
    block: Block
    mean: Floats
    n: int
    null: Null


@dataclass(frozen=True)
class Calibration:
    """The null distributions of a baseline's statistics, and what they are statistics of.

    Attributes:
        parts: All blocks.
        sizes: Rows of the windows drawn, ascending.
        rows: Rows of the baseline they were drawn from.
        draws: Windows of each size.
        confidences: By group of outputs, how sure the model has to be for as many rows as it is right about.
        notes: What a reader should know.
    """

    parts: tuple[Part, ...]
    sizes: tuple[int, ...]
    rows: int
    draws: int
    confidences: Mapping[str, Confidence] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def calibrated(
    profile: Profile,
    *,
    sizes: Sequence[int] = SIZES,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Find out what clean windows of a profile look like.

    Args:
        profile: The reference, with a sample of its rows.
        sizes: Rows of the windows to draw; those of more than half of the rows kept are left out.
        draws: Windows of each size.
        seed: Of the draws.
        progress: Told how many streams are done, and of how many.

    Raises:
        InputError: If the profile keeps too few rows.

    Example:
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler()
        >>> profiler.update(embeddings={"pool": np.random.default_rng(0).normal(size=(200, 3))})
        >>> [part.block.kind for part in calibrated(profiler.profile(), sizes=[10], draws=100).parts]
        ['distributions', 'kernel', 'components']
    """
    kept, notes = finite_rows(profile)
    count = len(next(iter(kept.values()), ()))
    if count < FEWEST_ROWS:
        why = "" if profile.rows is not None else "; the profile keeps no sample of its rows: make it with rows=2000"
        raise InputError(f"{count} complete rows are too few to calibrate: {FEWEST_ROWS} at the least{why}")
    if count < _FEW_ROWS:
        notes.append(f"calibrated on {count} rows only: thresholds are wider, {_FEW_ROWS} rows or more are better")
    learned = int(count * _LEARNED)
    first = {name: rows[:learned] for name, rows in kept.items()}
    rest = {name: rows[learned:] for name, rows in kept.items()}
    halves = Halves.draw(count - learned, sizes, draws, seed)
    blocks = list(blocks_of(profile, rest, first))
    total, done = sum(block.streams for _, _, block in blocks), 0

    def tick(streams: int) -> None:
        nonlocal done
        done += streams
        if progress is not None:
            progress(done, total)

    parts = []
    for group, name, block in blocks:
        null = null_of(block, rest[name], halves, tick)
        mean, n = _mean(block, profile.groups[group], rest[name], first[name])
        parts.append(Part(group, name, block, mean, n, null))
    return Calibration(tuple(parts), halves.sizes, count, draws, confidences_of(profile), tuple(notes))


def _mean(block: Block, group: Group, rest: Floats, first: Floats) -> tuple[Floats, int]:
    """Where the baseline is, by as many rows as there are, and of how many; without those that the block learned of."""
    more, learned = block.known(group), len(first) * block.learned
    if more is None or more[1] <= len(rest) + len(first):
        rows = rest if learned else np.concatenate([first, rest])
        return block.mean(rows), len(rows)
    mean, n = more
    if learned:
        mean = ((n * mean.astype(np.float64) - learned * block.mean(first)) / (n - learned)).astype(np.float32)
    error = rank_spread(group) if block.kind == "distributions" else 0.0
    return mean, max(int(1 / (1 / (n - learned) + 4 * error**2)), 1)


def measured(name: str, rows: Floats) -> NDArray[np.bool_]:
    """Which rows are measurements, bool `[n]`: finite, and of classes those that are one.

    Example:
        >>> measured("outputs/top_class", np.array([[3], [-1], [np.nan]], np.float32)).tolist()
        [True, False, False]
    """
    finite = np.asarray(np.isfinite(rows).all(axis=1))
    return np.logical_and(finite, rows[:, 0] >= 0) if is_top_class(name) else finite


def finite_rows(profile: Profile) -> tuple[dict[str, Floats], list[str]]:
    """The rows kept of a profile's groups that are measurements in all of them, and what a reader should know.

    Returns:
        Rows float32 `[r, D]` by name, r at most 10,000; and notes.
    """
    data = profile.rows.data if profile.rows is not None else {}
    known = {name: rows for name, rows in data.items() if _group_of(name) in profile.groups and rows.size}
    named = {name: rows for name, rows in known.items() if not is_labels(name)}
    usual = {name: measured(name, rows) & (np.abs(rows) <= LARGEST).all(axis=1) for name, rows in named.items()}
    usable = [name for name, mask in usual.items() if mask.mean() >= _ENOUGH]
    together = np.logical_and.reduce([usual[name] for name in usable]) if usable else np.zeros(0, bool)
    chosen = np.flatnonzero(together)[:_MOST_ROWS]  # in random order, so the first are a sample as well
    notes = [f"{name}: too many rows are not finite to calibrate" for name in named if name not in usable]
    return {name: np.ascontiguousarray(named[name][chosen], np.float32) for name in usable}, notes


def is_top_class(name: str) -> bool:
    """Whether rows of this name in a sample are classes that a model answered.

    Example:
        >>> is_top_class("outputs/age/top_class"), is_top_class("outputs/age"), is_top_class("labels")
        (True, False, False)
    """
    return is_outputs(name) and name.endswith(TOP_CLASS)


def _group_of(name: str) -> str:
    return name.removesuffix(TOP_CLASS) if is_top_class(name) else name


def blocks_of(
    profile: Profile, rows: Mapping[str, Floats], first: Mapping[str, Floats]
) -> Iterator[tuple[str, str, Block]]:
    """The blocks to calibrate: group, name of its rows, block; those that learn do so from the first rows."""
    for name, kept in rows.items():
        if is_top_class(name):
            yield _group_of(name), name, ClassShares.of(first[name])
            continue
        mean = profile.groups[name].kernel_mean
        yield name, name, Distributions.of(kept)
        if mean is not None and mean.exponents:
            yield name, name, Kernel(mean.dim, mean.frequencies, mean.seed, tuple(mean.exponents))
        if np.ptp(first[name], axis=0).max() > LEAST_RANGE:
            yield name, name, Principal.of(first[name])
