"""Hold a window against a baseline: what moved, by how much, and whether that is more than chance.

The chance of a false alarm, `false_alarm_rate`, is that of the whole report. It is shared equally by the families of
tests: the streams of each group are one, and each group's rows as vectors (MMD) are another, so that 512 embedding streams do not
drown twenty image measures, or the one test that looks at all of them together. Within a family Holm's correction
holds for any dependence between the streams. The p-values of a report are multiplied accordingly: each is to be held
against that rate itself.

Being certain is not enough: of a million rows, every stream differs from its baseline certainly. So drift is also an
effect of at least `min_effect`, a share of the rows: 0.1 is the Kolmogorov-Smirnov distance of a shift by a quarter of
a standard deviation, or a tenth of the rows in another category.

Where both profiles have segments, these are compared too (`segments.py`): one half of the rate is theirs then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lensai_integrations.drift.evidence import Side, compare_group
from lensai_integrations.drift.result import DriftReport, GroupDrift, SegmentDrift, StreamDrift, VectorDrift, badness
from lensai_integrations.drift.segments import Found, compare_segments
from lensai_integrations.drift.significance import holm
from lensai_integrations.errors import InputError
from lensai_integrations.profile import Baseline, Profile

__all__ = ["DriftReport", "GroupDrift", "SegmentDrift", "StreamDrift", "VectorDrift", "compare"]

#: Below this many rows a report says that only drastic changes can show.
FEW_ROWS = 20


def compare(
    baseline: Baseline | Profile,
    window: Profile,
    *,
    false_alarm_rate: float = 0.01,
    min_effect: float = 0.1,
    against: str = "reference",
) -> DriftReport:
    """Say which streams of a window moved away from a baseline, and by how much.

    Args:
        baseline: What to hold the window against.
        window: Profile of some consecutive rows of production, one or more.
        false_alarm_rate: Chance of a false alarm of the whole report, 0 to 1.
        min_effect: Smallest effect that counts as drift, 0 to 1: Kolmogorov-Smirnov distance of a stream, total
            variation of categories, MMD of rows as vectors in standard deviations of their features.
        against: `"reference"`, or `"training"` for the training profile of a baseline.

    Raises:
        InputError: If an argument is out of range, a side has no rows, or the two have nothing in common.
        DefinitionError: If a stream was measured differently on the two sides; the message names both ways.

    Example:
        >>> from lensai_integrations import Profiler
        >>> images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
        >>> baseline, window = Profiler(source="validation"), Profiler()
        >>> baseline.update(inputs=images)
        >>> window.update(inputs=images // 2)
        >>> report = compare(baseline.profile(), window.profile())
        >>> report.drift, report.moved[0].effect
        (True, 1.0)
    """
    reference = _checked(baseline, window, false_alarm_rate, min_effect, against)
    ours, theirs = _sides(reference, "baseline"), _sides(window, "window")
    found = [compare_group(side, theirs[name]) for name, side in ours.items() if name in theirs]
    families = sum(bool(group.tested) + (group.vectors is not None) for group in found)
    if not families:
        why = f"; {_all_notes(found)}" if found else ""
        raise InputError(
            f"nothing to compare: the baseline has the groups {sorted(ours)}, the window {sorted(theirs)}{why}"
        )
    segments = compare_segments(reference, window)
    shares = 2 if segments.families else 1  # of false_alarm_rate: the whole's, and the segments'
    judged = [
        _judged(group, shares * families, false_alarm_rate, min_effect)
        for group in found
        if group.streams or group.vectors
    ]
    judged.sort(key=lambda group: (not group.drift, -max((s.effect for s in group.streams), default=0.0)))
    n, m = (max(side.n + side.invalid for side in sides.values()) for sides in (ours, theirs))
    report = DriftReport(false_alarm_rate, min_effect, families, reference.source, window.source, n, m, tuple(judged))
    skipped = [group for group in found if not (group.streams or group.vectors)]
    notes = (*_notes(report, reference, window, skipped), *([segments.note] if segments.note else []))
    return _with_segments(replace(report, notes=notes), segments)


def _with_segments(report: DriftReport, found: Found) -> DriftReport:
    """The report with what was found in segments, judged for the half of false_alarm_rate that is theirs."""
    families = 2 * found.families
    judged = found.judged(lambda group: _judged(group, families, report.false_alarm_rate, report.min_effect))
    return replace(report, segments=judged, segment_by=found.by, segment_families=found.families)


def _checked(
    baseline: Baseline | Profile, window: Profile, false_alarm_rate: float, min_effect: float, against: str
) -> Profile:
    """The profile to hold the window against, after all arguments were checked."""
    if not 0 < false_alarm_rate < 1:
        raise InputError(
            f"false_alarm_rate={false_alarm_rate!r} is the chance of a false alarm: "
            "pass a number between 0 and 1, e.g. 0.01"
        )
    if not 0 <= min_effect <= 1:
        raise InputError(f"min_effect={min_effect!r} is a share of the rows: pass a number from 0 to 1, e.g. 0.1")
    if against not in ("reference", "training"):
        raise InputError(f"against={against!r} is unknown: pass 'reference' or 'training'")
    if not isinstance(window, Profile):
        raise InputError(f"window is a {type(window).__name__}: pass a Profile, e.g. what Profiler.profile() returns")
    if not isinstance(baseline, Baseline | Profile):
        raise InputError(f"baseline is a {type(baseline).__name__}: pass a Baseline or a Profile")
    reference = baseline if isinstance(baseline, Profile) else getattr(baseline, against)
    if reference is None or (isinstance(baseline, Profile) and against == "training"):
        raise InputError("against='training', but the baseline holds no training profile: leave `against` away")
    return reference


def _sides(profile: Profile, name: str) -> dict[str, Side]:
    """The groups of a profile, which has rows."""
    rows = profile.rows.data if profile.rows is not None else {}
    sides = {group.name: Side.of(group, rows.get(group.name)) for group in profile.groups.values()}
    if not any(side.n or side.invalid for side in sides.values()):
        raise InputError(f"the {name} has seen no rows: profile at least one batch before comparing")
    return sides


def _judged(group: GroupDrift, families: int, false_alarm_rate: float, min_effect: float) -> GroupDrift:
    """The group with corrected p-values and decisions, its streams worst first."""
    tested = [stream for stream in group.streams if not math.isnan(stream.raw_p_value)]
    others = [stream for stream in group.streams if math.isnan(stream.raw_p_value)]
    adjusted = np.minimum(families * holm(np.array([stream.raw_p_value for stream in tested])), 1.0).tolist()
    streams = [
        replace(stream, p_value=p, drift=p < false_alarm_rate and stream.effect >= min_effect)
        for stream, p in zip(tested, adjusted, strict=True)
    ]
    vectors = group.vectors
    if vectors is not None:
        p = min(1.0, families * vectors.test.p_value)
        vectors = replace(vectors, p_value=p, drift=p < false_alarm_rate and vectors.test.effect >= min_effect)
    return replace(group, streams=tuple(sorted([*streams, *others], key=badness)), vectors=vectors)


def _notes(report: DriftReport, reference: Profile, window: Profile, skipped: list[GroupDrift]) -> Iterator[str]:
    """What a reader should know that no group of the report says."""
    if report.n_window < FEW_ROWS:
        yield f"a window of {report.n_window} rows shows drastic changes only"
    for one, other, side in ((reference, window, "baseline"), (window, reference, "window")):
        if names := [name for name in one.groups if name not in other.groups]:
            yield f"only in the {side}, not compared: {', '.join(names)}"
    if skipped:
        yield f"not compared: {_all_notes(skipped)}"
    for profile, side in ((reference, "baseline"), (window, "window")):
        yield from (f"{side}: {warning}" for warning in profile.warnings)


def _all_notes(groups: list[GroupDrift]) -> str:
    return "; ".join(f"{group.name} ({', '.join(group.notes) or 'nothing in common'})" for group in groups)
