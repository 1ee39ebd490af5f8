"""A window held against clean windows: each statistic's p-value, corrected for all that were drawn with it.

In come a calibration (`calibration.py`) and a window of the same measures; out come, of each block of the baseline that
the window has something for, its statistics and the logarithms of their p-values (Westfall and Young's max-T). What
counts as drift is not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.calibration import LARGEST, Calibration, Part, measured
from lensai_integrations.drift.dependence import INDEPENDENT, Inflation
from lensai_integrations.drift.evidence import ROWS, rounded_apart
from lensai_integrations.drift.features import Distributions, Floats, Kernel, Principal, rank_spread, shares_at_or_below
from lensai_integrations.drift.null import log_p
from lensai_integrations.drift.rounding import Rounding, is_of_layer
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import Profile

Logs: TypeAlias = NDArray[np.float64]
_Logs: TypeAlias = tuple[Logs, Logs]
#: Mean features of a window, its rows, and the standard deviation of what sketches get wrong.
Means: TypeAlias = tuple[Floats, int, float]

#: Logarithms of p-values are made smaller by this over the root of the baseline's rows, and then shifted by the next.
_FINITE, _CAREFUL = 4.0, 0.4
#: Blocks that are about single streams.
_OF_STREAMS = ("distributions", "class_shares")


@dataclass(frozen=True)
class CorrectedBlock:
    """What was found of one block.

    Attributes:
        part: The block.
        values: Its statistics, float32 `[statistics, D]`.
        log_p: Logarithms of their p-values, corrected for all statistics of all streams of the report, likewise.
        alone: Of each statistic the logarithm of its p-value as if it were the only one, corrected for its streams,
            float64 `[statistics]`.
        m: Rows of the window.
        size: Number of the size of clean windows that is nearest to that.
        inflation: By how much the squared distance of rows as wholes was made smaller, for rows depend on each other.
    """

    part: Part
    values: Floats
    log_p: Logs
    alone: Logs
    m: int
    size: int = 0
    inflation: float = 1.0


def judged_blocks(
    calibration: Calibration | None, reference: Profile, window: Profile, inflation: Inflation = INDEPENDENT
) -> list[CorrectedBlock]:
    """What clean windows say of this one; not of rows as wholes whose pixels are rounded on one side only."""
    if calibration is None:
        return []
    judged = corrected_statistics(calibration, window, reference, inflation)
    return [block for block in judged if not (is_of_rows(block) and rounded_apart(block.part.group, reference, window))]


def judged_names(name: str, judged: list[CorrectedBlock], window: Profile) -> set[str]:
    """The streams of a group that clean windows say something of, `ROWS` among them for its rows as vectors."""
    of_group = [block for block in judged if block.part.group == name]
    streams = {stream for block in of_group if not is_of_rows(block) for stream in judged_streams(block, window)}
    return streams | ({ROWS} if any(map(is_of_rows, of_group)) else set())


def is_of_rows(judged: CorrectedBlock) -> bool:
    """Whether it is about whole rows, and not about each stream by itself."""
    return judged.part.block.kind not in _OF_STREAMS


def judged_streams(judged: CorrectedBlock, window: Profile) -> list[str]:
    """The full names of the streams that each of its statistics is of, which is not of whole rows."""
    group = judged.part.group
    names = ("top_class",) if judged.part.block.kind == "class_shares" else window.groups[group].streams
    return [f"{group}/{name}" for name in names]


def corrected_statistics(
    calibration: Calibration, window: Profile, reference: Profile | None = None, inflation: Inflation = INDEPENDENT
) -> list[CorrectedBlock]:
    """All statistics that the window has something for, held against clean windows of about its size.

    Args:
        calibration: Of the baseline.
        window: Of the same measures.
        reference: The baseline's; groups whose streams differ from the window's are left out. Without it all are alike.
        inflation: Of the window, if its rows depend on each other.
    """
    return corrected(calibration, means_of(calibration, window, reference), inflation)


def corrected(
    calibration: Calibration, present: Sequence[tuple[Part, Means]], inflation: Inflation = INDEPENDENT
) -> list[CorrectedBlock]:
    """The same of the means of a window."""
    if not present:
        return []
    parts, found = [part for part, _ in present], [_values(part, inflation, *means) for part, means in present]
    values = [each for each, _ in found]
    counts = [rows for _, (_, rows, _) in present]
    size = float(np.interp(np.log(max(counts)), np.log(calibration.sizes), np.arange(len(calibration.sizes))))
    low, share = int(size), size - int(size)
    adjusted = _adjusted(parts, values, counts, low)
    if share:
        above = _adjusted(parts, values, counts, low + 1)
        adjusted = [_between(lower, upper, share) for lower, upper in zip(adjusted, above, strict=True)]
    return [
        CorrectedBlock(part, value, widened(logs, calibration.rows), alone, count, round(size), smaller)
        for (part, (_, count, _)), (value, smaller), (logs, alone) in zip(present, found, adjusted, strict=True)
    ]


def means_of(calibration: Calibration, window: Profile, reference: Profile | None = None) -> list[tuple[Part, Means]]:
    """The blocks that a window has something for, and its means."""
    rows = complete_rows(window)
    sample = rows or ({} if window.rows is None else window.rows.data)
    parts = [part for part in calibration.parts if reference is None or _alike(part.group, window, reference)]
    rounded = _rounded(parts, window, reference)
    return [(part, means) for part in parts if (means := _means(part, window, rows, sample, rounded)) is not None]


def _alike(name: str, window: Profile, reference: Profile) -> bool:
    ours, theirs = window.groups.get(name), reference.groups.get(name)
    return ours is not None and theirs is not None and ours.streams == theirs.streams


def complete_rows(profile: Profile) -> dict[str, Floats]:
    """The rows of a profile that still has all of them, or else nothing."""
    if profile.rows is None or profile.rows.n > profile.rows.size:
        return {}
    return profile.rows.data


@dataclass(frozen=True)
class _Rounded:
    """What rounding may do to the rows of a group: a tolerance of values, and how far it moves whole streams `[D]`."""

    rounding: Rounding
    of_layer: bool
    alike: Floats


def _rounded(parts: Sequence[Part], window: Profile, reference: Profile | None) -> dict[str, _Rounded]:
    """What rounding may do, by group whose distributions are known."""
    found = {}
    for part in parts:
        if isinstance(part.block, Distributions) and (group := window.groups.get(part.group)) is not None:
            theirs = reference.groups.get(part.group) if reference is not None else None
            rounding, of_layer = Rounding.of(group, theirs), is_of_layer(group)
            found[part.group] = _Rounded(rounding, of_layer, part.block.moved_alike(rounding, of_layer))
    return found


def _means(
    part: Part,
    window: Profile,
    rows: Mapping[str, Floats],
    sample: Mapping[str, Floats],
    rounded: Mapping[str, _Rounded],
) -> tuple[Floats, int, float] | None:
    """Mean features of the window, its rows, and the standard deviation of what sketches get wrong.

    Where rounding matters they are as near to the baseline's as it allows.
    """
    group = window.groups.get(part.group)
    if group is None:
        return None
    if isinstance(part.block, Distributions):
        return _shares(part.block, part, group, rows.get(part.rows), rounded[part.group])
    found = _plain_means(part, group, rows.get(part.rows), sample.get(part.rows))
    moved = rounded.get(part.group)
    if found is None or moved is None or not moved.alike.any():
        return found
    mean, m, error = found
    if isinstance(part.block, Kernel):
        mean = part.block.near(part.mean, mean, float(np.linalg.norm(moved.alike)))
    elif isinstance(part.block, Principal):
        by = (np.abs(part.block.axes).T @ moved.alike).astype(np.float32)
        mean = np.clip(part.mean, mean - by, mean + by)
    return mean, m, error


def _shares(
    block: Distributions, part: Part, group: Group, kept: Floats | None, rounded: _Rounded
) -> tuple[Floats, int, float] | None:
    if kept is None:
        if group.bank is None or not group.n:
            return None
        mean = block.near(part.mean, group.bank.cdf, rounded.rounding, rounded.of_layer)
        return mean, group.n, rank_spread(group)
    kept = _measured(part, kept)
    if not len(kept):
        return None
    shares = partial(shares_at_or_below, kept)
    return block.near(part.mean, shares, rounded.rounding, rounded.of_layer), len(kept), 0.0


def _measured(part: Part, kept: Floats) -> Floats:
    """Those of kept rows that are measurements, none too large."""
    usable = measured(part.rows, kept)
    clipped: Floats = np.clip(kept if usable.all() else kept[usable], -LARGEST, LARGEST)
    return clipped


def _plain_means(
    part: Part, group: Group, kept: Floats | None, sample: Floats | None
) -> tuple[Floats, int, float] | None:
    sketched = part.block.known(group) if kept is None or part.block.kind == "kernel" else None  # which is exact
    if sketched is not None:
        return *sketched, 0.0
    if kept is None:  # in no sketch: a sample of the rows stands for them
        kept = sample
    if kept is None:
        return None
    kept = _measured(part, kept)
    return (part.block.mean(kept), len(kept), 0.0) if len(kept) else None


def _values(part: Part, inflation: Inflation, mean: Floats, m: int, error: float) -> tuple[Floats, float]:
    """Statistics of a window, and of rows as wholes by how much their squared distance was made smaller."""
    scale = np.array((1 / m + 1 / part.n + 4 * error**2) ** -0.5, np.float32)
    values = part.block.compare(part.mean, mean, scale)
    ratio = inflation.of(part, m)
    if ratio is None:
        return values, 1.0
    if isinstance(part.block, Distributions):  # each proportional to the deviations of its stream
        return values * ratio, 1.0
    fewer = part.block.compare(part.mean, part.mean + (mean - part.mean) * ratio, scale)
    before, after = float(values[0, 0]), float(fewer[0, 0])  # cube roots of squared distances
    return fewer, (before / after) ** 3 if after > 0 else 1.0


def shrinkage(m: int, n: int) -> float:
    """What standardised statistics are multiplied by, since a baseline is not drawn anew for each window.

    The variance of a difference of means is 1/m + 1/n. From a baseline that is off by chance all windows are, and most
    clearly those that are larger than itself, so its part is counted three times: the rate is to hold for nearly every
    baseline, and not only on average (benchmarks/drift/alarms.py).

    Args:
        m: Rows of the window.
        n: Rows of the baseline.

    Example:
        >>> round(shrinkage(100, 2000), 3), round(shrinkage(10**9, 2000), 3)
        (0.956, 0.577)
    """
    return float(((1 / m + 1 / n) / (1 / m + 3 / n)) ** 0.5)


def _adjusted(parts: list[Part], values: list[Floats], counts: list[int], size: int) -> list[_Logs]:
    """Logarithms of p-values held against windows of one size: adjusted for everything, and of each statistic alone.

    Statistics of little weight are as if their p-values were larger.
    """
    weights = [np.log(part.block.weights)[:, None] for part in parts]
    logs = [
        part.null.log_p(part.null.standard(v, size) * shrinkage(m, part.n), size)
        for part, v, m in zip(parts, values, counts, strict=True)
    ]
    drawn = [(part.null.drawn(size) - weight).min(axis=0) for part, weight in zip(parts, weights, strict=True)]
    least = np.sort(-np.min(drawn, axis=0))
    return [(log_p(least, w - of_block), of_block.min(axis=1)) for of_block, w in zip(logs, weights, strict=True)]


def _between(lower: _Logs, upper: _Logs, share: float) -> _Logs:
    return (1 - share) * lower[0] + share * upper[0], (1 - share) * lower[1] + share * upper[1]


def widened(logs: Logs, rows: int) -> Logs:
    """The same, for what a finite baseline and a finite number of draws get wrong.

    A null distribution drawn from r rows knows nothing of rows that r rows do not show. Without this the false alarms
    on real clean windows were 1.4, 2.4 and 3 times the rate asked for at 2,000, 500 and 200 rows
    (benchmarks/drift/alarms.py).
    """
    result: Logs = np.minimum(logs * max(1 - _FINITE / rows**0.5, 0.5) + _CAREFUL, 0.0)
    return result
