"""Hold a window against a baseline: what moved, by how much, and whether that is more than chance.

The chance of a false alarm, `false_alarm_rate`, is that of the whole report: all streams, groups and statistics
together. How p-values are made and corrected for that is in `deciding.py`; what clean windows look like was found out
when the baseline was made, see `calibration.py`.

Being certain is not enough: of a million rows, every stream differs from its baseline certainly. So drift is also an
effect of at least `min_effect`, a share of the rows: 0.1 is the Kolmogorov-Smirnov distance of a shift by a quarter of
a standard deviation, or a tenth of the rows in another category.

Images that were measured by several conventions are compared convention by convention (`conventions.py`), whatever
their groups are called on the two sides; the report has the baseline's names.

Where both profiles have segments, these are compared too (`segments.py`): one half of the rate is theirs then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from lensai_integrations.drift.accuracy import accuracies
from lensai_integrations.drift.calibrate import Calibration, calibration_of
from lensai_integrations.drift.deciding import (
    CorrectedBlock,
    DriftLimits,
    by_calibration,
    by_false_discoveries,
    by_formulas,
    corrected_statistics,
    count_families,
    is_of_rows,
    judged_streams,
)
from lensai_integrations.drift.evidence import ROWS, Side, compare_group, rounded_apart
from lensai_integrations.drift.result import (
    OF_BASELINE,
    OF_WINDOW,
    ONLY_BASELINE,
    ONLY_WINDOW,
    DriftReport,
    GroupDrift,
    SegmentDrift,
    StreamDrift,
    VectorDrift,
)
from lensai_integrations.drift.segments import SegmentsEvidence, compare_segments
from lensai_integrations.errors import InputError
from lensai_integrations.profiles.alike import unlike_in
from lensai_integrations.profiles.conventions import paired
from lensai_integrations.profiles.profile import Baseline, Profile

__all__ = ["DriftReport", "GroupDrift", "SegmentDrift", "StreamDrift", "VectorDrift", "compare"]

#: Below this many rows a report says that only drastic changes can show.
FEW_ROWS = 20
CORRECTIONS = ("auto", "holm", "benjamini-hochberg")


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
        min_effect: Smallest effect that counts as drift, 0 to 1: Kolmogorov-Smirnov distance of a stream, total
            variation of categories; without calibration also the MMD of rows as vectors, in standard deviations.
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
    ours, theirs = _sides(reference, "baseline"), _sides(window, "window")
    calibration = calibration_of(baseline) if correction == "auto" and against == "reference" else None
    judged = _judged(calibration, reference, window)
    found = _evidence(ours, theirs, {name: _calibrated(name, judged, window) for name in ours})
    segments = compare_segments(reference, window)
    limits = replace(limits, shares=2 if segments.families else 1)
    usable = [group for group in found if group.streams or group.vectors]
    decided = _decided(usable, window, limits, judged, correction)
    groups = sorted(decided.groups, key=lambda g: (not g.drift, -max((s.effect for s in g.streams), default=0.0)))
    n, m = (max(side.n + side.invalid for side in sides.values()) for sides in (ours, theirs))
    known = calibration.confidences if calibration is not None else {}
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
        accuracies=tuple(accuracies(known, reference, window).items()),
    )
    skipped = [group for group in found if not (group.streams or group.vectors)]
    notes = [*_notes(report, reference, window, skipped), *([segments.note] if segments.note else [])]
    notes += calibration.notes if calibration is not None else ()
    return _with_segments(replace(report, notes=tuple(notes)), segments, limits)


def _judged(calibration: Calibration | None, reference: Profile, window: Profile) -> list[CorrectedBlock]:
    """What clean windows say of this one; not of rows as wholes whose pixels are rounded on one side only."""
    if calibration is None:
        return []
    judged = corrected_statistics(calibration, window, reference)
    return [each for each in judged if not (is_of_rows(each) and rounded_apart(each.part.group, reference, window))]


def _calibrated(name: str, judged: list[CorrectedBlock], window: Profile) -> set[str]:
    """The streams of a group that clean windows say something of, `ROWS` among them for its rows as vectors."""
    of_group = [each for each in judged if each.part.group == name]
    streams = {stream for each in of_group if not is_of_rows(each) for stream in judged_streams(each, window)}
    return streams | ({ROWS} if any(map(is_of_rows, of_group)) else set())


def _evidence(
    ours: Mapping[str, Side], theirs: Mapping[str, Side], calibrated: Mapping[str, set[str]]
) -> list[GroupDrift]:
    """What is found in the groups of both sides, nothing decided.

    Raises:
        InputError: If they have nothing in common.
        DefinitionError: If a stream was measured differently on the two sides.
    """
    found = [compare_group(side, theirs[name], calibrated[name]) for name, side in ours.items() if name in theirs]
    if not count_families(found):
        why = f"; {_all_notes(found)}" if found else ""
        raise InputError(
            f"nothing to compare: the baseline has the groups {sorted(ours)}, the window {sorted(theirs)}{why}"
        )
    return found


@dataclass(frozen=True)
class _Decided:
    groups: list[GroupDrift]
    families: int
    correction: str
    clean_windows: int = 0


def _decided(
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


def _with_segments(report: DriftReport, found: SegmentsEvidence, limits: DriftLimits) -> DriftReport:
    """The report with what was found in segments, judged for the half of the rate that is theirs."""
    judged = found.judged(lambda group: by_formulas([group], found.families, limits)[0])
    return replace(report, segments=judged, segment_by=found.by, segment_families=found.families)


def _check_choices(against: str, correction: str) -> None:
    for name, value, known in (
        ("against", against, ("reference", "training")),
        ("correction", correction, CORRECTIONS),
    ):
        if value not in known:
            raise InputError(f"{name}={value!r} is unknown: pass {', '.join(map(repr, known[:-1]))} or {known[-1]!r}")


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


def _sides(profile: Profile, name: str) -> dict[str, Side]:
    """The groups of a profile, which has rows."""
    rows = profile.rows.data if profile.rows is not None else {}
    sides = {group.name: Side.of(group, rows.get(group.name)) for group in profile.groups.values()}
    if not any(side.n or side.invalid for side in sides.values()):
        raise InputError(f"the {name} has seen no rows: profile at least one batch before comparing")
    return sides


def _notes(report: DriftReport, reference: Profile, window: Profile, skipped: list[GroupDrift]) -> Iterator[str]:
    """What a reader should know that no group of the report says."""
    if report.n_window < FEW_ROWS:
        yield f"a window of {report.n_window} rows shows drastic changes only"
    for one, other, note in ((reference, window, ONLY_BASELINE), (window, reference, ONLY_WINDOW)):
        if names := [name for name in one.groups if name not in other.groups]:
            yield f"{note}{', '.join(names)}"
    if skipped:
        yield f"not compared: {_all_notes(skipped)}"
    yield from (f"{OF_BASELINE}{warning}" for warning in reference.warnings)
    of_window = window.warnings + unlike_in(window.groups, reference.groups.get, window.warnings)
    yield from (f"{OF_WINDOW}{warning}" for warning in of_window)


def _all_notes(groups: list[GroupDrift]) -> str:
    return "; ".join(f"{group.name} ({', '.join(group.notes) or 'nothing in common'})" for group in groups)
