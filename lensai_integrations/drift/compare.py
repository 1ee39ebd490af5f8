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
from typing import Final

import numpy as np

from lensai_integrations.drift.accuracy import accuracies
from lensai_integrations.drift.calibration import Calibration, calibration_of
from lensai_integrations.drift.dependence import INDEPENDENT, Inflation, in_time, learned, said_of, visible
from lensai_integrations.drift.evidence import Side, compare_group
from lensai_integrations.drift.features import Floats, Principal
from lensai_integrations.drift.joint import changed_share
from lensai_integrations.drift.kernel import KernelTest
from lensai_integrations.drift.max_t import CorrectedBlock, is_of_rows, judged_blocks, judged_names, judged_streams
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
from lensai_integrations.drift.significance import holm
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.profiles.alike import unlike_in
from lensai_integrations.profiles.conventions import paired
from lensai_integrations.profiles.names import LABEL, OTHER_SEGMENT, is_labels, label_names, shown
from lensai_integrations.profiles.profile import Baseline, Profile

__all__ = ["DriftReport", "GroupDrift", "SegmentDrift", "StreamDrift", "VectorDrift", "compare"]

CORRECTIONS = ("auto", "holm", "benjamini-hochberg")
#: Below this many rows a report says that only drastic changes can show.
FEW_ROWS = 20
#: A segment with fewer rows on either side is not compared.
ENOUGH_ROWS: Final = 20


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
    before, after = ({} if profile.rows is None else profile.rows.data for profile in (reference, window))
    ours, theirs = _sides(reference, before, "baseline"), _sides(window, after, "window")
    known = _known(baseline, correction) if against == "reference" else None
    calibration = known if correction == "auto" else None
    n, m = (max(side.n + side.invalid for side in sides.values()) for sides in (ours, theirs))
    seen, inflation = _inflations(known, (reference, before), window, m)
    judged = judged_blocks(calibration, reference, window, inflation)
    evidence = _evidence(ours, theirs, {name: judged_names(name, judged, window) for name in ours}, inflation)
    segments = compare_segments(reference, window, inflation)
    limits = replace(limits, shares=2 if segments.families else 1)
    usable = [group for group in evidence if group.streams or group.vectors]
    decided = _decided_groups(usable, window, limits, judged, correction)
    closer = [look_closer(group, before, reference, after, judged, limits) for group in decided.groups]
    groups = sorted(closer, key=lambda g: (not g.drift, -max((s.effect for s in g.streams), default=0.0)))
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
        effective_rows=math.nan if inflation is INDEPENDENT else inflation.effective_rows(m),
    )
    skipped = [group for group in evidence if not (group.streams or group.vectors)]
    notes = [*_notes(report, reference, window, skipped), *([segments.note] if segments.note else [])]
    notes += calibration.notes if calibration is not None else ()
    notes += [] if seen is INDEPENDENT else [said_of(seen, m, allowed=seen is inflation)]
    return _with_segments(replace(report, notes=tuple(notes)), segments, limits)


def _known(baseline: Baseline | Profile, correction: str) -> Calibration | None:
    """The baseline's calibration, of which other corrections need only what was learned, if it can be read."""
    try:
        return calibration_of(baseline)
    except FormatError:
        if correction == "auto":
            raise
        return None


def _inflations(
    calibration: Calibration | None, baseline: tuple[Profile, Mapping[str, Floats]], window: Profile, m: int
) -> tuple[Inflation, Inflation]:
    """By how much more the window varies than independent rows would: as far as is known, and what is allowed for."""
    if calibration is not None and calibration.learned is not None:
        known = learned(calibration, baseline[0], m)
        return known, known
    seen = visible(window, calibration, baseline[1])
    return seen, seen if in_time(window) else INDEPENDENT


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
    ours: Mapping[str, Side], theirs: Mapping[str, Side], calibrated: Mapping[str, set[str]], inflation: Inflation
) -> list[GroupDrift]:
    """What is found in the groups of both sides, nothing decided.

    Raises:
        InputError: If they have nothing in common.
        DefinitionError: If a stream was measured differently on the two sides.
    """
    both = [name for name in ours if name in theirs]
    groups = [compare_group(ours[name], theirs[name], calibrated[name], inflation) for name in both]
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
    return (float(judged.values[0, 0]) ** 3 - (centre + 2 * spread) ** 3) * spread_of_means * judged.inflation


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


def compare_segments(baseline: Profile, window: Profile, inflation: Inflation = INDEPENDENT) -> SegmentsEvidence:
    """What is found in the segments of two profiles.

    Args:
        baseline: One of them.
        window: The other.
        inflation: Of the window, if its rows depend on each other.

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
    sides = ((name, baseline.segments.get(name), window.segments.get(name)) for name in names)
    compared = (_segment(*side, by, inflation) for side in sides)
    segments = tuple(replace(segment, title=shown(segment.name, called)) for segment in compared)
    families = sum(bool(group.tested) for segment in segments for group in segment.groups)
    return SegmentsEvidence(by, segments, families, _doubt(baseline, window, segments))


def _segment(name: str, before: Profile | None, after: Profile | None, by: str, inflation: Inflation) -> SegmentDrift:
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
    return SegmentDrift(name, n, m, tuple(_groups(before, after, by, inflation)))


def _groups(before: Profile, after: Profile, by: str, inflation: Inflation) -> Iterator[GroupDrift]:
    for name in before.groups:
        if name in after.groups and not (
            is_labels(name) if by == LABEL else name == f"metadata/{by}"
        ):  # one value in a segment
            group = compare_group(Side.of(before.groups[name]), Side.of(after.groups[name]), (), inflation)
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
