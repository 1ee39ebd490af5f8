"""Hold a window against a baseline: what moved, by how much, and whether that is more than chance.

The chance of a false alarm, `false_alarm_rate`, is that of the whole report: all streams, groups, segments and
statistics together. Being certain is not enough: of a million rows, every stream differs from its baseline certainly.
So drift is also an effect of at least `min_effect`, a share of the rows: 0.1 is the Kolmogorov-Smirnov distance of a
shift by a quarter of a standard deviation, or a tenth of the rows in another category.

By calibration, each statistic of a window is held against those of clean windows (`calibration.py`), and p-values are
corrected for everything that was drawn with them. By formulas, every family of tests gets an equal share of the rate:
the streams of each group are a family, and each group's rows as vectors are another, so that 512 embedding streams do
not drown twenty image measures, or the one test that looks at all of them together. Within a family Holm's correction
holds for any dependence. What a calibration does not know, such as labels, is judged by formulas, and the rate is
shared between both by their numbers of families.

Where both profiles have segments, the same rows are looked at value by value, by classes or by sites, for a class that
only one camera sees can change completely and hardly move the whole. That is many more tests, and they must not drown
those of the whole: half of the rate is the whole's then, the other half is shared equally by the families of the
segments, a family being the streams of one group in one segment. So the chance of a false alarm is still that of
everything together (Bonferroni's inequality, weighted). What is in `OTHER_SEGMENT` is a remainder, not a population,
and is not compared. Segments without rows on one side are listed and decide nothing: a small window lacks rare classes
by chance, and whether classes became more or less frequent is tested in the stream of labels itself.

Images that were measured by several conventions are compared convention by convention, whatever their groups are
called on the two sides; the report has the baseline's names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.accuracy import accuracies
from lensai_integrations.drift.calibration import LARGEST, Calibration, Part, calibration_of, measured
from lensai_integrations.drift.evidence import ROWS, Side, compare_group, rounded_apart
from lensai_integrations.drift.features import Distributions, Floats, Kernel, Principal, rank_spread, shares_at_or_below
from lensai_integrations.drift.joint import changed_share
from lensai_integrations.drift.kernel import KernelTest
from lensai_integrations.drift.null import log_p
from lensai_integrations.drift.result import (
    FEW,
    GONE,
    NEW,
    OF_BASELINE,
    OF_WINDOW,
    ONLY_BASELINE,
    ONLY_WINDOW,
    REMAINDER,
    DriftReport,
    GroupDrift,
    SegmentDrift,
    StreamDrift,
    VectorDrift,
    badness,
)
from lensai_integrations.drift.rounding import Rounding, is_of_layer
from lensai_integrations.drift.significance import holm
from lensai_integrations.errors import InputError
from lensai_integrations.profiles.alike import unlike_in
from lensai_integrations.profiles.conventions import paired
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import LABEL, OTHER_SEGMENT, is_labels, label_names, shown
from lensai_integrations.profiles.profile import Baseline, Profile

__all__ = ["DriftReport", "GroupDrift", "SegmentDrift", "StreamDrift", "VectorDrift", "compare"]

Logs: TypeAlias = NDArray[np.float64]
_Logs: TypeAlias = tuple[Logs, Logs]

CORRECTIONS = ("auto", "holm", "benjamini-hochberg")
#: Below this many rows a report says that only drastic changes can show.
FEW_ROWS = 20
#: A segment with fewer rows on either side is not compared.
ENOUGH_ROWS: Final = 20
#: Logarithms of p-values are made smaller by this over the root of the baseline's rows, and then shifted by the next.
_FINITE, _CAREFUL = 4.0, 0.4
#: Blocks that are about single streams.
_OF_STREAMS = ("distributions", "class_shares")


def compare(
    baseline: Baseline | Profile,
    window: Profile,
    *,
    false_alarm_rate: float = 0.01,
    min_effect: float = 0.05,
    against: str = "reference",
    correction: str = "auto",
) -> DriftReport:
    """Say which streams of a window moved away from a baseline, and by how much.

    Args:
        baseline: What to hold the window against.
        window: Profile of some consecutive rows of production, one or more; or of a device (`edge.read_stats`).
        false_alarm_rate: Chance of a false alarm of the whole report, 0 to 1.
        min_effect: Smallest effect that counts as drift, a share of the rows, 0 to 1: Kolmogorov-Smirnov distance of a
            stream, total variation of categories, the share that must have changed of rows as vectors
            (`VectorDrift.effect`).
        against: `"reference"`, or `"training"` for the training profile of a baseline.
        correction: How the rate is held for many streams. `"auto"`: by clean windows drawn from the baseline where it
            is calibrated (Westfall and Young's max-T), else as `"holm"`. `"holm"`: by formulas, each group for an equal
            share, any false alarm counts. `"benjamini-hochberg"`: by formulas, the share of false ones among the
            streams that are said to have moved, at most `false_alarm_rate` on average.

    Raises:
        InputError: If an argument is out of range, a side has no rows, or the two have nothing in common.
        DefinitionError: If a stream was measured differently on the two sides; the message names both ways.

    Example:
        >>> import numpy as np
        >>> from lensai_integrations import Profiler
        >>> images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
        >>> baseline, window = Profiler(source="validation"), Profiler()
        >>> baseline.update(inputs=images)
        >>> window.update(inputs=images // 2)
        >>> report = compare(baseline.profile(), window.profile())
        >>> report.drift, report.moved[0].effect
        (True, 1.0)
    """
    _check_choices(against, correction)
    limits = _checked_limits(false_alarm_rate, min_effect)
    reference = _reference(baseline, window, against)
    window = paired(window, reference)
    kept, seen = ({} if profile.rows is None else profile.rows.data for profile in (reference, window))
    ours, theirs = _sides(reference, kept, "baseline"), _sides(window, seen, "window")
    calibration = calibration_of(baseline) if correction == "auto" and against == "reference" else None
    judged = _judged(calibration, reference, window)
    evidence = _evidence(ours, theirs, {name: _calibrated(name, judged, window) for name in ours})
    segments = compare_segments(reference, window)
    limits = replace(limits, shares=2 if segments.families else 1)
    usable = [group for group in evidence if group.streams or group.vectors]
    decided = _decided_groups(usable, window, limits, judged, correction)
    closer = [look_closer(group, kept, reference, seen, judged, limits) for group in decided.groups]
    groups = sorted(closer, key=lambda g: (not g.drift, -max((s.effect for s in g.streams), default=0.0)))
    n, m = (max(side.n + side.invalid for side in sides.values()) for sides in (ours, theirs))
    confidences = calibration.confidences if calibration is not None else {}
    report = DriftReport(
        false_alarm_rate,
        min_effect,
        decided.families,
        reference.source,
        window.source,
        n,
        m,
        tuple(groups),
        correction=decided.correction,
        clean_windows=decided.clean_windows,
        accuracies=tuple(accuracies(confidences, reference, window).items()),
    )
    skipped = [group for group in evidence if not (group.streams or group.vectors)]
    notes = [*_notes(report, reference, window, skipped), *([segments.note] if segments.note else [])]
    notes += calibration.notes if calibration is not None else ()
    return _with_segments(replace(report, notes=tuple(notes)), segments, limits)


def _check_choices(against: str, correction: str) -> None:
    for name, value, choices in (
        ("against", against, ("reference", "training")),
        ("correction", correction, CORRECTIONS),
    ):
        if value not in choices:
            raise InputError(
                f"{name}={value!r} is unknown: pass {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}"
            )


def _checked_limits(false_alarm_rate: float, min_effect: float) -> DriftLimits:
    if not 0 < false_alarm_rate < 1:
        raise InputError(
            f"false_alarm_rate={false_alarm_rate!r} is the chance of a false alarm: "
            "pass a number between 0 and 1, e.g. 0.01"
        )
    if not 0 <= min_effect <= 1:
        raise InputError(f"min_effect={min_effect!r} is a share of the rows: pass a number from 0 to 1, e.g. 0.05")
    return DriftLimits(false_alarm_rate, min_effect)


def _reference(baseline: Baseline | Profile, window: Profile, against: str) -> Profile:
    """The profile to hold the window against."""
    if not isinstance(window, Profile):
        raise InputError(f"window is a {type(window).__name__}: pass a Profile, e.g. what Profiler.profile() returns")
    if not isinstance(baseline, Baseline | Profile):
        raise InputError(f"baseline is a {type(baseline).__name__}: pass a Baseline or a Profile")
    reference = baseline if isinstance(baseline, Profile) else getattr(baseline, against)
    if reference is None or (isinstance(baseline, Profile) and against == "training"):
        raise InputError("against='training', but the baseline holds no training profile: leave `against` away")
    return reference


def _sides(profile: Profile, rows: Mapping[str, Floats], name: str) -> dict[str, Side]:
    """The groups of a profile, which has rows."""
    sides = {group.name: Side.of(group, rows.get(group.name)) for group in profile.groups.values()}
    if not any(side.n or side.invalid for side in sides.values()):
        raise InputError(f"the {name} has seen no rows: profile at least one batch before comparing")
    return sides


def _evidence(
    ours: Mapping[str, Side], theirs: Mapping[str, Side], calibrated: Mapping[str, set[str]]
) -> list[GroupDrift]:
    """What is found in the groups of both sides, nothing decided.

    Raises:
        InputError: If they have nothing in common.
        DefinitionError: If a stream was measured differently on the two sides.
    """
    groups = [compare_group(side, theirs[name], calibrated[name]) for name, side in ours.items() if name in theirs]
    if not count_families(groups):
        why = f"; {_all_notes(groups)}" if groups else ""
        raise InputError(
            f"nothing to compare: the baseline has the groups {sorted(ours)}, the window {sorted(theirs)}{why}"
        )
    return groups


def _notes(report: DriftReport, reference: Profile, window: Profile, skipped: list[GroupDrift]) -> Iterator[str]:
    """What a reader should know that no group of the report says."""
    if report.n_window < FEW_ROWS:
        yield f"a window of {report.n_window} rows shows drastic changes only"
    for having, lacking, note in ((reference, window, ONLY_BASELINE), (window, reference, ONLY_WINDOW)):
        if names := [name for name in having.groups if name not in lacking.groups]:
            yield f"{note}{', '.join(names)}"
    if skipped:
        yield f"not compared: {_all_notes(skipped)}"
    yield from (f"{OF_BASELINE}{warning}" for warning in reference.warnings)
    of_window = window.warnings + unlike_in(window.groups, reference.groups.get, window.warnings)
    yield from (f"{OF_WINDOW}{warning}" for warning in of_window)


def _all_notes(groups: list[GroupDrift]) -> str:
    return "; ".join(f"{group.name} ({', '.join(group.notes) or 'nothing in common'})" for group in groups)


# -- deciding: corrected p-values, and what is drift


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


@dataclass(frozen=True)
class _Decided:
    groups: list[GroupDrift]
    families: int
    correction: str
    clean_windows: int = 0


def _decided_groups(
    groups: list[GroupDrift], window: Profile, limits: DriftLimits, judged: list[CorrectedBlock], correction: str
) -> _Decided:
    if judged:
        windows = judged[0].part.null.largest.shape[-1]
        decided, families = by_calibration(groups, judged, window, limits, windows)
        return _Decided(decided, families, "max-t", windows)
    if correction == "benjamini-hochberg":
        return _Decided(by_false_discoveries(groups, limits), 1, correction)
    families = count_families(groups)
    return _Decided(by_formulas(groups, families, limits), families, "holm")


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
    p_values = {(group, stream): min(float(p), 1.0) for (group, stream, _), p in zip(keys, adjusted, strict=True)}
    by_group: dict[str, dict[str, float]] = {group.name: {} for group in groups}
    for (group_name, stream), p in p_values.items():
        by_group[group_name][stream] = p
    return [_decided(group, by_group[group.name], limits) for group in groups]


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
    by_windows = {group.name: _strongest(group.name, judged, window) for group in groups}
    whole = {
        group.name: [block for block in judged if block.part.group == group.name and is_of_rows(block)]
        for group in groups
    }
    rest = {group.name: _without(group, by_windows[group.name]) for group in groups}
    ours = sum(bool(by_windows[group.name]) + bool(whole[group.name]) for group in groups)
    theirs = sum(
        bool(rest[group.name].tested) + (group.vectors is not None and not whole[group.name]) for group in groups
    )
    factor = limits.shares * (ours + theirs) / max(ours, 1)
    result = []
    for group in groups:
        by_stream = holm_of(rest[group.name], (ours + theirs) * limits.shares)
        by_stream |= {stream: min(p * factor, 1.0) for stream, (_, p) in by_windows[group.name].items()}
        named = {stream: (statistic, windows) for stream, (statistic, _) in by_windows[group.name].items()}
        decided = _decided(group, by_stream, limits, named)
        result.append(_with_rows(decided, whole[group.name], factor, limits, windows) if whole[group.name] else decided)
    return result, theirs


def _strongest(group: str, judged: Sequence[CorrectedBlock], window: Profile) -> dict[str, tuple[str, float]]:
    """Of each stream the statistic that says most, and its corrected p-value."""
    strongest: dict[str, tuple[str, float]] = {}
    for block in judged:
        if block.part.group == group and not is_of_rows(block):
            most = np.argmin(block.log_p, axis=0)
            p_values = np.exp(block.log_p.min(axis=0)).tolist()
            statistics = (block.part.block.statistics[row] for row in most)
            strongest |= {
                n: (s, p) for n, s, p in zip(judged_streams(block, window), statistics, p_values, strict=True)
            }
    return strongest


def _without(group: GroupDrift, streams: Mapping[str, object]) -> GroupDrift:
    """The group with the streams that nothing is known of."""
    return replace(group, streams=tuple(stream for stream in group.streams if stream.stream not in streams))


def _with_rows(
    group: GroupDrift, judged: Sequence[CorrectedBlock], factor: float, limits: DriftLimits, windows: int
) -> GroupDrift:
    """The group with what the statistics of whole rows say."""
    p_values = [
        (statistic, min(math.exp(float(log)) * factor, 1.0))
        for block in judged
        for statistic, log in zip(block.part.block.statistics, block.log_p[:, 0], strict=True)
    ]
    p_values.sort(key=lambda entry: entry[1])
    p, test = p_values[0][1], group.vectors.test if group.vectors is not None else None
    own = [stream for stream in group.streams if stream.statistic]  # a custom measure is in no row
    effect = effect_of_rows(own, test, judged)
    vectors = VectorDrift(limits.drift(p, effect), p, test, tuple(p_values), windows, effect)
    return replace(group, vectors=vectors)


def effect_of_rows(
    streams: Iterable[StreamDrift], test: KernelTest | None, judged: Iterable[CorrectedBlock] = ()
) -> float:
    """How much rows as vectors changed, as a share of them: the largest of what several ways of looking show.

    Args:
        streams: Those that the rows consist of.
        test: The MMD, if there is one.
        judged: The calibrated statistics of whole rows.

    Example:
        >>> effect_of_rows([StreamDrift("a", "numbers", "", False, 0.2, 0.5, 0.5)], None)
        0.2
    """
    shares = [stream.effect for stream in streams if stream.kind == "numbers" and not math.isnan(stream.effect)]
    shares += [test.share] if test is not None else []
    shares += [share_of_shift(beyond_chance(block)) for block in judged if block.part.block.kind == Principal.kind]
    return max(shares, default=0.0)


def look_closer(
    group: GroupDrift,
    baseline_rows: Mapping[str, Floats],
    reference: Profile,
    window_rows: Mapping[str, Floats],
    judged: Sequence[CorrectedBlock],
    limits: DriftLimits,
) -> GroupDrift:
    """The group, its effect looked for among the rows that both sides keep if all that lacks for drift is an effect.

    That takes longer than all else, and is worth it where rows certainly moved, and no stream nor the MMD tells how
    much: `joint.changed_share`.

    Args:
        group: Decided.
        baseline_rows: Rows that the baseline keeps, by name.
        reference: The baseline's profile.
        window_rows: Rows that the window keeps, by name.
        judged: The calibrated statistics.
        limits: What counts as drift.
    """
    vectors, ours, theirs = group.vectors, baseline_rows.get(group.name), window_rows.get(group.name)
    if vectors is None or vectors.drift or ours is None or theirs is None or ours.shape[1:] != theirs.shape[1:]:
        return group
    if math.isnan(vectors.effect) or not limits.drift(vectors.p_value, 1.0):
        return group
    blocks = (block.part.block for block in judged if block.part.group == group.name)
    axes = next((block for block in blocks if isinstance(block, Principal)), None)
    effect = max(vectors.effect, changed_share(ours, theirs, reference.groups[group.name].kernel_mean, axes))
    drift = limits.drift(vectors.p_value, effect)
    return replace(group, vectors=replace(vectors, effect=effect, drift=drift))


def share_of_shift(squared: float) -> float:
    """The share of rows that a shift of the means stands for: `2 Phi(d / 2) - 1`.

    It is the Kolmogorov-Smirnov distance of a normal distribution and the same shifted by d standard deviations.

    Args:
        squared: d squared.

    Example:
        >>> round(share_of_shift(0.25**2), 2), share_of_shift(0.0)
        (0.1, 0.0)
    """
    return math.erf((max(squared, 0.0) / 8) ** 0.5)


def beyond_chance(judged: CorrectedBlock) -> float:
    """The squared distance of a block of whole rows, in its own units, less what chance hardly ever exceeds.

    The statistic is the cube root of the squared distance over 1/n + 1/m, and in clean windows nearly normal: beyond
    its mean and two of its spreads lies 1 in 40.
    """
    null, spread_of_means = judged.part.null, 1 / judged.m + 1 / judged.part.n
    centre, spread = (float(array[judged.size, 0, 0]) for array in (null.centre, null.spread))
    return (float(judged.values[0, 0]) ** 3 - (centre + 2 * spread) ** 3) * spread_of_means


def holm_of(group: GroupDrift, families: int) -> dict[str, float]:
    """Corrected p-values by stream; the rows as vectors have the name `""`."""
    tested = [stream for stream in group.streams if not math.isnan(stream.raw_p_value)]
    adjusted = np.minimum(families * holm(np.array([stream.raw_p_value for stream in tested])), 1.0).tolist()
    p_values = {stream.stream: p for stream, p in zip(tested, adjusted, strict=True)}
    test = group.vectors.test if group.vectors is not None else None
    if test is not None and not math.isnan(test.p_value):
        p_values[""] = min(1.0, families * test.p_value)
    return p_values


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
    streams = [
        _with_p(stream, p_values.get(stream.stream, math.nan), limits, *(named or {}).get(stream.stream, ("", 0)))
        for stream in group.streams
    ]
    vectors = group.vectors
    if vectors is not None and vectors.test is not None and "" in p_values:
        own = [stream for stream in group.streams if not stream.definition.startswith("custom/")]  # these are in no row
        p, effect = p_values[""], effect_of_rows(own, vectors.test)
        vectors = replace(vectors, p_value=p, drift=limits.drift(p, effect), effect=effect)
    return replace(group, streams=tuple(sorted(streams, key=badness)), vectors=vectors)


def _with_p(stream: StreamDrift, p: float, limits: DriftLimits, statistic: str, windows: int) -> StreamDrift:
    if math.isnan(p):
        return stream
    drift = limits.drift(p, stream.effect)
    decided = {"p_value": p, "drift": drift, "statistic": statistic, "windows": windows}
    return StreamDrift(**(vars(stream) | decided))  # `replace` takes half as long again, and there are many


# -- held against clean windows


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
    """

    part: Part
    values: Floats
    log_p: Logs
    alone: Logs
    m: int
    size: int = 0


def _judged(calibration: Calibration | None, reference: Profile, window: Profile) -> list[CorrectedBlock]:
    """What clean windows say of this one; not of rows as wholes whose pixels are rounded on one side only."""
    if calibration is None:
        return []
    judged = corrected_statistics(calibration, window, reference)
    return [block for block in judged if not (is_of_rows(block) and rounded_apart(block.part.group, reference, window))]


def _calibrated(name: str, judged: list[CorrectedBlock], window: Profile) -> set[str]:
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
    calibration: Calibration, window: Profile, reference: Profile | None = None
) -> list[CorrectedBlock]:
    """All statistics that the window has something for, held against clean windows of about its size.

    Args:
        calibration: Of the baseline.
        window: Of the same measures.
        reference: The baseline's; groups whose streams differ from the window's are left out. Without it all are alike.
    """
    rows = complete_rows(window)
    sample = rows or ({} if window.rows is None else window.rows.data)
    parts = [part for part in calibration.parts if reference is None or _alike(part.group, window, reference)]
    rounded = _rounded(parts, window, reference)
    present = [(part, mean) for part in parts if (mean := _means(part, window, rows, sample, rounded)) is not None]
    if not present:
        return []
    parts, values = [part for part, _ in present], [_values(part, *means) for part, means in present]
    counts = [rows for _, (_, rows, _) in present]
    size = float(np.interp(np.log(max(counts)), np.log(calibration.sizes), np.arange(len(calibration.sizes))))
    low, share = int(size), size - int(size)
    adjusted = _adjusted(parts, values, counts, low)
    if share:
        above = _adjusted(parts, values, counts, low + 1)
        adjusted = [_between(lower, upper, share) for lower, upper in zip(adjusted, above, strict=True)]
    return [
        CorrectedBlock(part, value, widened(logs, calibration.rows), alone, count, round(size))
        for (part, (_, count, _)), value, (logs, alone) in zip(present, values, adjusted, strict=True)
    ]


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


def _values(part: Part, mean: Floats, m: int, error: float) -> Floats:
    return part.block.compare(part.mean, mean, np.array((1 / m + 1 / part.n + 4 * error**2) ** -0.5, np.float32))


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


# -- segments


@dataclass(frozen=True)
class SegmentsEvidence:
    """The evidence of all segments, nothing decided yet.

    Attributes:
        by: What they are by; empty if they could not be compared.
        segments: All, in the baseline's order, the new ones last.
        families: How many families of tests there are.
        note: Why nothing could be compared; empty if it could.
    """

    by: str = ""
    segments: tuple[SegmentDrift, ...] = ()
    families: int = 0
    note: str = ""

    def judged(self, judge: Callable[[GroupDrift], GroupDrift]) -> tuple[SegmentDrift, ...]:
        """The segments with decisions, those that moved first, the larger effect first.

        Args:
            judge: Corrects and decides a group.
        """
        decided = (replace(segment, groups=tuple(map(judge, segment.groups))) for segment in self.segments)
        return tuple(sorted(decided, key=_badness))


def compare_segments(baseline: Profile, window: Profile) -> SegmentsEvidence:
    """What is found in the segments of two profiles.

    Raises:
        DefinitionError: If a stream was measured differently on the two sides.

    Example:
        >>> compare_segments(Profile(), Profile()).by
        ''
    """
    if not (baseline.segments or window.segments):
        return SegmentsEvidence()
    by, theirs = (profile.info.get("segment_by") for profile in (baseline, window))
    if by != theirs or not isinstance(by, str):
        mine = f"by {by!r} in the baseline" if by else "not in the baseline"
        return SegmentsEvidence(
            note=f"segments were not compared: {mine}, {f'by {theirs!r}' if theirs else 'not'} in the window"
        )
    names = list(dict.fromkeys([*baseline.segments, *window.segments]))
    called = label_names(baseline.groups, window.groups) if by == LABEL else ()
    compared = (_segment(name, baseline.segments.get(name), window.segments.get(name), by) for name in names)
    segments = tuple(replace(segment, title=shown(segment.name, called)) for segment in compared)
    families = sum(bool(group.tested) for segment in segments for group in segment.groups)
    return SegmentsEvidence(by, segments, families, _doubt(baseline, window, segments))


def _segment(name: str, before: Profile | None, after: Profile | None, by: str) -> SegmentDrift:
    n, m = (0 if profile is None else profile.n for profile in (before, after))
    reason = (
        REMAINDER
        if name == OTHER_SEGMENT
        else NEW
        if not n
        else GONE
        if not m
        else FEW
        if min(n, m) < ENOUGH_ROWS
        else ""
    )
    if reason or before is None or after is None:
        return SegmentDrift(name, n, m, (), reason)
    return SegmentDrift(name, n, m, tuple(_groups(before, after, by)))


def _groups(before: Profile, after: Profile, by: str) -> Iterator[GroupDrift]:
    for name in before.groups:
        if name in after.groups and not (
            is_labels(name) if by == LABEL else name == f"metadata/{by}"
        ):  # one value in a segment
            group = compare_group(Side.of(before.groups[name]), Side.of(after.groups[name]))
            if group.tested:
                yield group


def _doubt(baseline: Profile, window: Profile, segments: tuple[SegmentDrift, ...]) -> str:
    """What may look new or gone because the other side has no segment for it."""
    sides = ((NEW, baseline, "baseline"), (GONE, window, "window"))
    unsure = [
        f"{reason} may be among the rows of {OTHER_SEGMENT!r} in the {side}"
        for reason, profile, side in sides
        if OTHER_SEGMENT in profile.segments and any(segment.reason == reason for segment in segments)
    ]
    return f"segments that are {' and those that are '.join(unsure)}; profile with like=baseline" if unsure else ""


def _badness(segment: SegmentDrift) -> tuple[bool, bool, float, int, int, str]:
    """Sort key: what moved, the larger effect first; then what was not compared by its rows, `OTHER_SEGMENT` last."""
    remainder = segment.reason == REMAINDER
    return not segment.drift, remainder, -segment.effect, -segment.n_window, -segment.n_baseline, segment.name


def _with_segments(report: DriftReport, segments: SegmentsEvidence, limits: DriftLimits) -> DriftReport:
    """The report with what was found in segments, judged for the half of the rate that is theirs."""
    judged = segments.judged(lambda group: by_formulas([group], segments.families, limits)[0])
    return replace(report, segments=judged, segment_by=segments.by, segment_families=segments.families)
