"""What a comparison says, as plain frozen data: for people as text, for programs as JSON, for the HTML report as is.

Nothing here decides anything. Everything is sorted worst first when it is made, so that no reader has to.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import Any

from lensai_integrations.drift.accuracy import AccuracyEstimate
from lensai_integrations.drift.kernel import KernelTest
from lensai_integrations.drift.text import describe_stream, render
from lensai_integrations.heads import is_labels, is_outputs

#: Ranks of the quantiles that are kept of numeric streams: the middle 90% and the median.
RANKS = (0.05, 0.5, 0.95)
#: A group of more streams is summed up: how many moved, and the worst few.
LISTED = 40
#: Streams shown of a group that is summed up.
WORST = 5

NAN3 = (math.nan, math.nan, math.nan)

#: How notes begin that are warnings of one of the profiles.
OF_BASELINE, OF_WINDOW = "baseline: ", "window: "
#: How notes begin that name the groups that only one of them has.
ONLY_BASELINE, ONLY_WINDOW = "only in the baseline, not compared: ", "only in the window, not compared: "

#: Why a segment was not compared.
REMAINDER, NEW, GONE, FEW = "not one population", "new", "gone", "too few rows"


@dataclass(frozen=True)
class StreamDrift:
    """How far one stream moved.

    Attributes:
        stream: Full name, e.g. `"inputs/brightness"`.
        kind: `"numbers"`, `"categories"`, `"pixels"`, or `"invalid"` (share of rows left out as not finite).
        definition: Definition id of the measure.
        drift: Whether it moved: `p_value` below the report's false_alarm_rate and `effect` at least its `min_effect`.
        effect: Kolmogorov-Smirnov distance for numbers and pixels, total variation for categories and invalid rows;
            both are a share of the rows, 0 to 1.
        p_value: Corrected for every other test of the report; NaN for pixels, which are not tested.
        raw_p_value: Of the Kolmogorov-Smirnov or chi-square test alone, by its formula; NaN where `p_value` is by clean
            windows, which need no formula.
        wasserstein: In standard deviations of the baseline; infinite if that never varied.
        psi: Population stability index, smoothed.
        jensen_shannon: 0 to 1.
        hellinger: 0 to 1.
        baseline: Quantiles at `RANKS`; NaN for categories.
        window: The same of the window.
        shares: Categories whose share changed most, with their shares before and after, largest change first.
        statistic: Name of the statistic that `p_value` is of.
        windows: How many clean windows `p_value` was found by; smaller ones than 1 / windows are extrapolated. 0 for
            formulas.
        energy: Energy distance, `sqrt(2 * integral of (F - G)^2)`, of values in standard deviations of the baseline;
            infinite if that never varied.
        label: The name of the class that it is of, of `outputs/softmax/3`; empty where there is none.
    """

    stream: str
    kind: str
    definition: str
    drift: bool
    effect: float
    p_value: float
    raw_p_value: float
    wasserstein: float = math.nan
    psi: float = math.nan
    jensen_shannon: float = math.nan
    hellinger: float = math.nan
    baseline: tuple[float, float, float] = NAN3
    window: tuple[float, float, float] = NAN3
    shares: tuple[tuple[str, float, float], ...] = ()
    statistic: str = ""
    windows: int = 0
    energy: float = math.nan
    label: str = ""

    @property
    def title(self) -> str:
        """What people call it: its name, and that of its class."""
        return f"{self.stream} ({self.label})" if self.label else self.stream

    @property
    def words(self) -> str:
        """What changed, as a person would say it: `"fell: median 131 -> 71"`."""
        return describe_stream(self)


@dataclass(frozen=True)
class VectorDrift:
    """Whether a group's rows moved as vectors.

    Attributes:
        drift: `p_value` below the report's false_alarm_rate; without calibration also `test.effect` at least its
            `min_effect`.
        p_value: Of the statistic that says most, corrected for every other test of the report.
        test: The MMD, its effect in standard deviations, its own p-value and how that was found; None if there is none.
        statistics: Names of the calibrated statistics and their corrected p-values, the one that says most first.
        windows: How many clean windows these were found by.
    """

    drift: bool
    p_value: float
    test: KernelTest | None
    statistics: tuple[tuple[str, float], ...] = ()
    windows: int = 0


@dataclass(frozen=True)
class GroupDrift:
    """What moved of the streams that are measured together.

    Attributes:
        name: The group.
        n_baseline: Rows of the baseline.
        n_window: Rows of the window.
        invalid_baseline: Further rows of the baseline that were left out because a value was not finite.
        invalid_window: The same of the window.
        streams: All that were compared, worst first.
        vectors: The MMD of whole rows, where both sides keep a kernel mean.
        notes: What a reader should know of this group.
    """

    name: str
    n_baseline: int
    n_window: int
    invalid_baseline: int
    invalid_window: int
    streams: tuple[StreamDrift, ...] = ()
    vectors: VectorDrift | None = None
    notes: tuple[str, ...] = ()

    @property
    def drift(self) -> bool:
        """Whether a stream moved, or the rows as vectors."""
        return bool(self.moved) or (self.vectors is not None and self.vectors.drift)

    @property
    def moved(self) -> tuple[StreamDrift, ...]:
        """The streams that moved, worst first."""
        return tuple(stream for stream in self.streams if stream.drift)

    @property
    def tested(self) -> int:
        """Streams that could have moved: all but the pixels'."""
        return sum(stream.kind != "pixels" for stream in self.streams)

    @property
    def summed_up(self) -> bool:
        """Whether there are too many streams to list."""
        return len(self.streams) > LISTED

    @property
    def listed(self) -> tuple[StreamDrift, ...]:
        """The streams to show, worst first: all, or the `WORST` of a group that is summed up."""
        return self.streams[:WORST] if self.summed_up else self.streams


@dataclass(frozen=True)
class SegmentDrift:
    """What moved of the rows of one value.

    Attributes:
        name: The value.
        n_baseline: Rows of the baseline, invalid ones included.
        n_window: The same of the window.
        groups: What was compared, in the baseline's order; empty if nothing was.
        reason: Why not: `"new"` in the window, `"gone"` from it, `"too few rows"`, or `"not one population"` for the
            rows that are in no segment; else empty.
        title: What people call it: the name of the class, where it has one; empty for its own.
    """

    name: str
    n_baseline: int
    n_window: int
    groups: tuple[GroupDrift, ...] = ()
    reason: str = ""
    title: str = ""

    @property
    def drift(self) -> bool:
        """Whether a stream of the segment moved."""
        return any(group.drift for group in self.groups)

    @property
    def streams(self) -> tuple[StreamDrift, ...]:
        """All that were compared, worst first."""
        return tuple(sorted((stream for group in self.groups for stream in group.streams), key=badness))

    @property
    def moved(self) -> tuple[StreamDrift, ...]:
        """The streams that moved, worst first."""
        return tuple(stream for stream in self.streams if stream.drift)

    @property
    def effect(self) -> float:
        """Of the worst stream; -1 if nothing was compared."""
        return max((stream.effect for stream in self.moved or self.streams), default=-1.0)

    @property
    def verdict(self) -> str:
        """`"drift"`, `"no drift"`, or why there is none."""
        return self.reason or ("drift" if self.drift else "no drift")


@dataclass(frozen=True)
class DriftReport:
    """What `compare` returns.

    Attributes:
        false_alarm_rate: Chance that the report says drift where there is none.
        min_effect: Smaller effects are no drift, however certain.
        families: Over how many families of tests false_alarm_rate was shared.
        against: What the baseline is a profile of, e.g. `"validation"`.
        source: What the window is a profile of, e.g. `"production"`.
        n_baseline: Rows of the baseline.
        n_window: Rows of the window.
        groups: What was compared, worst first.
        notes: What a reader should know: what was not compared and why, windows too small to tell.
        segments: Of profiles that are segmented by the same, every value of either, those that moved first.
        segment_by: What the segments are by; empty without.
        segment_families: Over how many families of tests of segments one half of that chance was shared; the other half
            is the whole's. With 0 all of it is.
        correction: How p-values were corrected: `"max-t"` (by clean windows drawn from the baseline), `"holm"` or
            `"benjamini-hochberg"`.
        clean_windows: How many clean windows of each size were drawn for that; 0 without.
        accuracies: By group of outputs, the model's on the baseline, and on the window by its labels or, without,
            estimated from the confidences; as far as they are known.

    Example:
        >>> DriftReport(0.01, 0.1, 0, "validation", "production", 2000, 200).drift
        False
    """

    false_alarm_rate: float
    min_effect: float
    families: int
    against: str
    source: str
    n_baseline: int
    n_window: int
    groups: tuple[GroupDrift, ...] = ()
    notes: tuple[str, ...] = ()
    segments: tuple[SegmentDrift, ...] = ()
    segment_by: str = ""
    segment_families: int = 0
    correction: str = "holm"
    clean_windows: int = 0
    accuracies: tuple[tuple[str, AccuracyEstimate], ...] = ()

    @property
    def accuracy(self) -> AccuracyEstimate | None:
        """The accuracy of the answer, of several of the first; None if it is not known."""
        return self.accuracies[0][1] if self.accuracies else None

    @property
    def drift(self) -> bool:
        """The verdict: whether anything moved, of the whole or of a segment."""
        return any(group.drift for group in self.groups) or any(segment.drift for segment in self.segments)

    @property
    def causes(self) -> tuple[str, ...]:
        """What is said of how the window was read, and not of the baseline, of groups that moved or are missing.

        Where this is not empty, drift is likelier a mistake on the way to the monitor than news of the world.
        """
        moved = {group.name for group in self.groups if group.drift}
        if not moved:
            return ()
        told = [note.removeprefix(OF_WINDOW) for note in self.notes if note.startswith(OF_WINDOW)]
        known = [note.removeprefix(OF_BASELINE) for note in self.notes if note.startswith(OF_BASELINE)]
        return tuple(note for note in told if note not in known and any(name in note for name in moved))

    @property
    def missing(self) -> tuple[str, ...]:
        """The groups of the baseline that the window has no rows of, but for labels, which production mostly lacks."""
        told = (note.removeprefix(ONLY_BASELINE) for note in self.notes if note.startswith(ONLY_BASELINE))
        return tuple(name for names in told for name in names.split(", ") if not is_labels(name))

    @property
    def moved(self) -> tuple[StreamDrift, ...]:
        """All streams that moved in the whole, worst first."""
        return tuple(sorted((stream for group in self.groups for stream in group.moved), key=badness))

    @property
    def tested(self) -> int:
        """Streams that could have moved."""
        return sum(group.tested for group in self.groups)

    @property
    def p_value(self) -> float:
        """Of the report: the smallest of all corrected ones; 1 if there is none."""
        groups = [*self.groups, *(group for segment in self.segments for group in segment.groups)]
        found = [stream.p_value for group in groups for stream in group.streams]
        found += [group.vectors.p_value for group in groups if group.vectors is not None]
        return min((p for p in found if not math.isnan(p)), default=1.0)

    @property
    def harm(self) -> str:
        """`"harmful"` if what the model answers moved too, `"benign"` if only what it is shown did, else `""`.

        Also empty where no outputs were compared. Benign is said of this window: outputs may still move later, or be
        wrong in ways their distribution does not show.
        """
        answers = [group for group in self.groups if is_outputs(group.name)]
        if not self.drift or not answers:
            return ""
        return "harmful" if any(group.drift for group in answers) else "benign"

    def to_text(self, width: int = 100) -> str:
        """The report as plain text, no line wider than `width` characters (60 at the least)."""
        return render(self, max(width, 60))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values: None for what is not a number, and only the worst streams of a long group."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        own |= {"groups": [_group_dict(group) for group in self.groups]}
        own |= {"segments": [_segment_dict(segment) for segment in self.segments]}
        own |= {"accuracies": {name: _fields(each) for name, each in self.accuracies}}
        own |= {"accuracy": self.accuracy and _fields(self.accuracy), "harm": self.harm, "p_value": self.p_value}
        own |= {"causes": self.causes}
        return _plain({"drift": self.drift, **own})  # type: ignore[no-any-return]

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON text; the same two profiles always give the same text."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)


def badness(stream: StreamDrift) -> tuple[bool, bool, float, float, str]:
    """Sort key that puts the worst stream first: what moved, then by effect; pixels, which are not tested, last."""
    certain = 1.0 if math.isnan(stream.raw_p_value) else stream.raw_p_value
    return (not stream.drift, stream.kind == "pixels", -stream.effect, certain, stream.stream)


def _group_dict(group: GroupDrift) -> dict[str, Any]:
    listed = [{**_fields(stream), "words": stream.words} for stream in group.listed]
    test = group.vectors and group.vectors.test
    vectors = group.vectors and {
        **(_fields(test) if test is not None else {}),
        "raw_p_value": test.p_value if test is not None else None,
        "statistics": dict(group.vectors.statistics),
        "p_value": group.vectors.p_value,
        "drift": group.vectors.drift,
    }
    counts = {"tested": group.tested, "moved": len(group.moved)}
    return {**_fields(group), "drift": group.drift, **counts, "vectors": vectors, "streams": listed}


def _segment_dict(segment: SegmentDrift) -> dict[str, Any]:
    counts = {"tested": sum(group.tested for group in segment.groups), "moved": len(segment.moved)}
    listed = [{**_fields(stream), "words": stream.words} for stream in segment.streams[:WORST]]
    about = {
        "name": segment.name,
        "title": segment.title or segment.name,
        "verdict": segment.verdict,
        "drift": segment.drift,
    }
    return {**about, "n_baseline": segment.n_baseline, "n_window": segment.n_window, **counts, "streams": listed}


def _fields(of: Any) -> dict[str, Any]:
    return {field.name: getattr(of, field.name) for field in fields(of)}


def _plain(value: Any) -> Any:
    """The same as JSON knows it."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
