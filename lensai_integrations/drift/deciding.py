"""From evidence to decisions: corrected p-values, and what is drift.

By calibration: the p-values of a window held against clean windows are corrected for everything that was drawn with
them. By formulas: every family of tests gets an equal share of the rate; the streams of each group are a family, and
each group's rows as vectors are another, so that 512 embedding streams do not drown twenty image measures, or the one
test that looks at all of them together. Within a family Holm's correction holds for any dependence. What a calibration
does not know, such as labels, is judged by formulas, and the rate is shared between both by their numbers of families.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lensai_integrations.drift.adjusted import Judged
from lensai_integrations.drift.kernel import KernelTest
from lensai_integrations.drift.result import GroupDrift, StreamDrift, VectorDrift, badness
from lensai_integrations.drift.significance import holm
from lensai_integrations.profile import Profile

#: Blocks that are about single streams.
_OF_STREAMS = ("distributions", "classes")


@dataclass(frozen=True)
class Limits:
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


def by_formulas(groups: Sequence[GroupDrift], families: int, limits: Limits) -> list[GroupDrift]:
    """Decide groups by their own p-values, each family for its share of the rate."""
    return [_decided(group, holm_of(group, families * limits.shares), limits) for group in groups]


def by_false_discoveries(groups: Sequence[GroupDrift], limits: Limits) -> list[GroupDrift]:
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
    groups: Sequence[GroupDrift], judged: Sequence[Judged], window: Profile, limits: Limits, windows: int = 0
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
    if group.vectors is not None and group.vectors.test is not None:
        found[""] = min(1.0, families * group.vectors.test.p_value)
    return found


def _decided(
    group: GroupDrift,
    p_values: Mapping[str, float],
    limits: Limits,
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


def _with_p(stream: StreamDrift, p: float, limits: Limits, statistic: str, windows: int) -> StreamDrift:
    if math.isnan(p):
        return stream
    drift = limits.drift(p, stream.effect)
    return replace(stream, p_value=p, drift=drift, statistic=statistic, windows=windows)


def is_of_rows(judged: Judged) -> bool:
    """Whether it is about whole rows, and not about each stream by itself."""
    return judged.part.block.kind not in _OF_STREAMS


def judged_streams(judged: Judged, window: Profile) -> list[str]:
    """The full names of the streams that each of its statistics is of, which is not of whole rows."""
    group = judged.part.group
    names = ("top_class",) if judged.part.block.kind == "classes" else window.groups[group].streams
    return [f"{group}/{name}" for name in names]


def _known(group: str, judged: Sequence[Judged], window: Profile) -> dict[str, tuple[str, float]]:
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


def _with_rows(group: GroupDrift, judged: Sequence[Judged], part: float, limits: Limits, windows: int) -> GroupDrift:
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
