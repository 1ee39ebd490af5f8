"""From evidence to decisions: corrected p-values, and what is drift.

By calibration: each statistic of a window is held against those of clean windows, and the p-values are corrected for
everything that was drawn with them. By formulas: every family of tests gets an equal share of the rate; the streams of
each group are a family, and each group's rows as vectors are another, so that 512 embedding streams do not drown twenty
image measures, or the one test that looks at all of them together. Within a family Holm's correction holds for any
dependence. What a calibration does not know, such as labels, is judged by formulas, and the rate is shared between both
by their numbers of families.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.calibrate import LARGEST, Calibration, Part, measured
from lensai_integrations.drift.features import Floats, rank_spread
from lensai_integrations.drift.kernel import KernelTest
from lensai_integrations.drift.null import log_p
from lensai_integrations.drift.result import GroupDrift, StreamDrift, VectorDrift, badness
from lensai_integrations.drift.significance import holm
from lensai_integrations.profiles.profile import Profile

Logs: TypeAlias = NDArray[np.float64]
_Logs: TypeAlias = tuple[Logs, Logs]

#: Logarithms of p-values are made smaller by this over the root of the baseline's rows, and then shifted by the next.
_FINITE, _CAREFUL = 6.0, 0.5
#: Blocks that are about single streams.
_OF_STREAMS = ("distributions", "classes")


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
    """

    part: Part
    values: Floats
    log_p: Logs
    alone: Logs
    m: int


def corrected_statistics(
    calibration: Calibration, window: Profile, reference: Profile | None = None
) -> list[CorrectedBlock]:
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
        CorrectedBlock(part, value, widened(logs, calibration.rows), alone, count)
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
    return part.block.compare(part.mean, mean, np.array((1 / m + 1 / part.n + 4 * error**2) ** -0.5, np.float32))


def _adjusted(parts: list[Part], values: list[Floats], size: int) -> list[_Logs]:
    """Logarithms of p-values held against windows of one size: adjusted for everything, and of each statistic alone.

    Statistics of little weight are as if their p-values were larger.
    """
    weights = [np.log(part.block.weights)[:, None] for part in parts]
    own = [part.null.log_p(part.null.standard(v, size), size) for part, v in zip(parts, values, strict=True)]
    drawn = [part.null.log_p(part.null.largest[size], size) for part in parts]
    least = np.sort(-np.min([np.min(d - w, axis=0) for d, w in zip(drawn, weights, strict=True)], axis=0))
    return [(log_p(least, w - each), each.min(axis=1)) for each, w in zip(own, weights, strict=True)]


@dataclass(frozen=True)
class DriftLimits:
    """What counts as drift.

    Attributes:
        false_alarm_rate: Chance of a false alarm of the whole report.
        min_effect: Smallest effect that counts.
        shares: 2 if one half of the rate is kept for something else, else 1.
    """

    false_alarm_rate: float
    min_effect: float
    shares: int = 1

    def drift(self, p_value: float, effect: float) -> bool:
        """Whether it is."""
        return p_value < self.false_alarm_rate and effect >= self.min_effect


def count_families(groups: Sequence[GroupDrift]) -> int:
    """How many families of tests there are."""
    return sum(bool(group.tested) + (group.vectors is not None) for group in groups)


def by_formulas(groups: Sequence[GroupDrift], families: int, limits: DriftLimits) -> list[GroupDrift]:
    """Decide groups by their own p-values, each family for its share of the rate."""
    return [_decided(group, holm_of(group, families * limits.shares), limits) for group in groups]


def by_false_discoveries(groups: Sequence[GroupDrift], limits: DriftLimits) -> list[GroupDrift]:
    """Decide all streams and vectors together by Benjamini and Hochberg's procedure.

    Of those that are said to have moved at most that share is false on average, for tests that are independent or
    positively dependent (Controlling the false discovery rate, 1995).
    """
    from scipy.stats import false_discovery_control  # most of a second, which nobody else should wait for

    keys = [(group.name, s.stream, s.raw_p_value) for group in groups for s in group.streams]
    keys += [(g.name, "", g.vectors.test.p_value) for g in groups if g.vectors is not None and g.vectors.test]
    keys = [key for key in keys if not math.isnan(key[2])]
    adjusted = false_discovery_control([key[2] for key in keys]) * limits.shares
    found = {(group, stream): min(float(p), 1.0) for (group, stream, _), p in zip(keys, adjusted, strict=True)}
    own: dict[str, dict[str, float]] = {group.name: {} for group in groups}
    for (group_name, stream), p in found.items():
        own[group_name][stream] = p
    return [_decided(group, own[group.name], limits) for group in groups]


def by_calibration(
    groups: Sequence[GroupDrift],
    judged: Sequence[CorrectedBlock],
    window: Profile,
    limits: DriftLimits,
    windows: int = 0,
) -> tuple[list[GroupDrift], int]:
    """Decide by what clean windows look like, and by formulas what that does not know.

    Returns:
        The groups, and how many families were judged by formulas.
    """
    known = {group.name: _known(group.name, judged, window) for group in groups}
    whole = {
        group.name: [each for each in judged if each.part.group == group.name and is_of_rows(each)] for group in groups
    }
    rest = {group.name: _without(group, known[group.name]) for group in groups}
    ours = sum(bool(known[group.name]) + bool(whole[group.name]) for group in groups)
    theirs = sum(
        bool(rest[group.name].tested) + (group.vectors is not None and not whole[group.name]) for group in groups
    )
    part = limits.shares * (ours + theirs) / max(ours, 1)
    result = []
    for group in groups:
        by_stream = holm_of(rest[group.name], (ours + theirs) * limits.shares)
        by_stream |= {stream: min(p * part, 1.0) for stream, (_, p) in known[group.name].items()}
        named = {stream: (statistic, windows) for stream, (statistic, _) in known[group.name].items()}
        decided = _decided(group, by_stream, limits, named)
        result.append(_with_rows(decided, whole[group.name], part, limits, windows) if whole[group.name] else decided)
    return result, theirs


def holm_of(group: GroupDrift, families: int) -> dict[str, float]:
    """Corrected p-values by stream; the rows as vectors have the name `""`."""
    tested = [stream for stream in group.streams if not math.isnan(stream.raw_p_value)]
    adjusted = np.minimum(families * holm(np.array([stream.raw_p_value for stream in tested])), 1.0).tolist()
    found = {stream.stream: p for stream, p in zip(tested, adjusted, strict=True)}
    test = group.vectors.test if group.vectors is not None else None
    if test is not None and not math.isnan(test.p_value):
        found[""] = min(1.0, families * test.p_value)
    return found


def _decided(
    group: GroupDrift,
    p_values: Mapping[str, float],
    limits: DriftLimits,
    named: Mapping[str, tuple[str, int]] | None = None,
) -> GroupDrift:
    """The group with these p-values and decisions, its streams worst first.

    Args:
        group: Not decided.
        p_values: Corrected, by stream; the rows as vectors have the name `""`.
        limits: What counts as drift.
        named: By stream the statistic and the number of clean windows that its p-value is of, if it is of these.
    """
    known = named or {}
    streams = [
        _with_p(stream, p_values.get(stream.stream, math.nan), limits, *known.get(stream.stream, ("", 0)))
        for stream in group.streams
    ]
    vectors = group.vectors
    if vectors is not None and vectors.test is not None and "" in p_values:
        drift = limits.drift(p_values[""], vectors.test.effect)
        vectors = replace(vectors, p_value=p_values[""], drift=drift)
    return replace(group, streams=tuple(sorted(streams, key=badness)), vectors=vectors)


def _with_p(stream: StreamDrift, p: float, limits: DriftLimits, statistic: str, windows: int) -> StreamDrift:
    if math.isnan(p):
        return stream
    drift = limits.drift(p, stream.effect)
    return replace(stream, p_value=p, drift=drift, statistic=statistic, windows=windows)


def is_of_rows(judged: CorrectedBlock) -> bool:
    """Whether it is about whole rows, and not about each stream by itself."""
    return judged.part.block.kind not in _OF_STREAMS


def judged_streams(judged: CorrectedBlock, window: Profile) -> list[str]:
    """The full names of the streams that each of its statistics is of, which is not of whole rows."""
    group = judged.part.group
    names = ("top_class",) if judged.part.block.kind == "classes" else window.groups[group].streams
    return [f"{group}/{name}" for name in names]


def _known(group: str, judged: Sequence[CorrectedBlock], window: Profile) -> dict[str, tuple[str, float]]:
    """Of each stream the statistic that says most, and its corrected p-value."""
    found: dict[str, tuple[str, float]] = {}
    for each in judged:
        if each.part.group == group and not is_of_rows(each):
            most = np.argmin(each.log_p, axis=0)
            p_values = np.exp(each.log_p.min(axis=0)).tolist()
            statistics = (each.part.block.statistics[place] for place in most)
            found |= {n: (s, p) for n, s, p in zip(judged_streams(each, window), statistics, p_values, strict=True)}
    return found


def _without(group: GroupDrift, known: Mapping[str, object]) -> GroupDrift:
    """The group with the streams that nothing is known of."""
    return replace(group, streams=tuple(stream for stream in group.streams if stream.stream not in known))


def _with_rows(
    group: GroupDrift, judged: Sequence[CorrectedBlock], part: float, limits: DriftLimits, windows: int
) -> GroupDrift:
    """The group with what the statistics of whole rows say."""
    found = [
        (statistic, min(math.exp(float(log)) * part, 1.0))
        for each in judged
        for statistic, log in zip(each.part.block.statistics, each.log_p[:, 0], strict=True)
    ]
    found.sort(key=lambda entry: entry[1])
    test: KernelTest | None = group.vectors.test if group.vectors is not None else None
    drift = found[0][1] < limits.false_alarm_rate
    return replace(group, vectors=VectorDrift(drift, found[0][1], test, tuple(found), windows))
