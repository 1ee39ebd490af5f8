"""Hold a window against a calibrated baseline: every statistic, and how often clean windows reach it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.calibration import LARGEST, Calibration, Part, measured
from lensai_integrations.drift.features import Floats, rank_spread
from lensai_integrations.drift.tail import log_p
from lensai_integrations.errors import FormatError
from lensai_integrations.profile import Profile

#: Logarithms of p-values are made smaller by this over the root of the baseline's rows, and then shifted by the next.
_FINITE, _CAREFUL = 6.0, 0.5

Logs: TypeAlias = NDArray[np.float64]
_Logs: TypeAlias = tuple[Logs, Logs]


@dataclass(frozen=True)
class Judged:
    """What was found of one block.

    Attributes:
        part: The block.
        values: Its statistics, float32 `[statistics, D]`.
        log_p: Logarithms of their p-values, corrected for all statistics of all streams of the report, likewise.
        alone: Of each statistic the logarithm of its p-value as if it were the only one, corrected for its streams,
            float64 `[statistics]`.
        m: Rows of the window.
    """

    part: Part
    values: Floats
    log_p: Logs
    alone: Logs
    m: int


def judge(calibration: Calibration, window: Profile, reference: Profile | None = None) -> list[Judged]:
    """All statistics that the window has something for, held against clean windows of about its size.

    Args:
        calibration: Of the baseline.
        window: Of the same measures.
        reference: The baseline's; groups whose streams differ from the window's are left out. Without it all are alike.
    """
    rows = complete_rows(window)
    parts = [part for part in calibration.parts if reference is None or _alike(part.group, window, reference)]
    every = [(part, _means(part, window, rows)) for part in parts]
    seen = [(part, means) for part, means in every if means is not None]
    if not seen:
        return []
    parts, values = [part for part, _ in seen], [_values(part, *means) for part, means in seen]
    m = max(rows for _, (_, rows, _) in seen)
    size = float(np.interp(np.log(m), np.log(calibration.sizes), np.arange(len(calibration.sizes))))
    low, share = int(size), size - int(size)
    found = _adjusted(parts, values, low)
    if share:
        above = _adjusted(parts, values, low + 1)
        found = [_between(one, two, share) for one, two in zip(found, above, strict=True)]
    return [
        Judged(part, value, widened(logs, calibration.rows), alone, count)
        for (part, (_, count, _)), value, (logs, alone) in zip(seen, values, found, strict=True)
    ]


def _alike(name: str, one: Profile, other: Profile) -> bool:
    return name in one.groups and name in other.groups and one.groups[name].streams == other.groups[name].streams


def _between(one: _Logs, two: _Logs, share: float) -> _Logs:
    return (1 - share) * one[0] + share * two[0], (1 - share) * one[1] + share * two[1]


def widened(logs: Logs, rows: int) -> Logs:
    """The same, for what a finite baseline and a finite number of draws get wrong.

    A null distribution drawn from r rows knows nothing of rows that r rows do not show. Without this the false alarms
    on real clean windows were 1.4, 2.4 and 3 times the rate asked for at 2,000, 500 and 200 rows (benchmarks/drift.py).
    """
    result: Logs = np.minimum(logs * max(1 - _FINITE / rows**0.5, 0.5) + _CAREFUL, 0.0)
    return result


def complete_rows(profile: Profile) -> dict[str, Floats]:
    """The rows of a profile that still has all of them, or else nothing."""
    if profile.rows is None or profile.rows.n > profile.rows.size:
        return {}
    return profile.rows.data


def _means(part: Part, window: Profile, rows: Mapping[str, Floats]) -> tuple[Floats, int, float] | None:
    """Mean features of the window, its rows, and the standard deviation of what sketches get wrong."""
    group = window.groups.get(part.group)
    if group is None:
        return None
    kept = rows.get(part.rows)
    known = part.block.known(group) if kept is None or part.block.kind == "kernel" else None  # which is exact
    if known is not None:
        return *known, rank_spread(group) if part.block.kind == "distributions" else 0.0
    if kept is None:
        return None
    usable = measured(part.rows, kept)
    kept = np.clip(kept if usable.all() else kept[usable], -LARGEST, LARGEST)
    return (part.block.mean(kept), len(kept), 0.0) if len(kept) else None


def _values(part: Part, mean: Floats, m: int, error: float) -> Floats:
    scale = np.array((1 / m + 1 / part.n + 4 * error**2) ** -0.5, np.float32)
    try:
        return part.block.compare(part.mean, mean, scale)
    except np.linalg.LinAlgError as problem:
        raise FormatError(
            f"group {part.group!r} cannot be compared: the baseline's calibration or the window's sketches hold numbers"
            f" that cannot be ({problem}); run `lensai calibrate` on the baseline"
        ) from problem


def _adjusted(parts: list[Part], values: list[Floats], size: int) -> list[_Logs]:
    """Logarithms of p-values held against windows of one size: adjusted for everything, and of each statistic alone.

    Statistics of little weight are as if their p-values were larger.
    """
    weights = [np.log(part.block.weights)[:, None] for part in parts]
    own = [part.null.log_p(part.null.standard(v, size), size) for part, v in zip(parts, values, strict=True)]
    drawn = [part.null.log_p(part.null.largest[size], size) for part in parts]
    least = np.sort(-np.min([np.min(d - w, axis=0) for d, w in zip(drawn, weights, strict=True)], axis=0))
    return [(log_p(least, w - each), each.min(axis=1)) for each, w in zip(own, weights, strict=True)]
