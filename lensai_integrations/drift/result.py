"""What a comparison says, as plain frozen data: for people as text, for programs as JSON, for the HTML report as is.

Nothing here decides anything. Everything is sorted worst first when it is made, so that no reader has to. As text it is
the verdict, then what moved in words, then the numbers by group; without colours and within a width, for terminals, log
files and e-mails.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from lensai_integrations.drift.accuracy import AccuracyEstimate
from lensai_integrations.drift.kernel import KernelTest
from lensai_integrations.drift.labelled import Confusion, Labelled
from lensai_integrations.drift.text import (
    certainty,
    decimals_for,
    describe_quantiles,
    describe_shares,
    number,
    p_text,
    percent,
    percents,
    two_decimals,
)
from lensai_integrations.profiles.names import OUTPUTS, is_labels, is_outputs

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

#: Findings listed at the top; the groups' tables show all.
_HEADLINES = 10
#: Classes, and confusions, told in a sentence.
_CLASSES = 3
#: Characters of a segment's name.
_NAME = 24
#: What the statistics of rows as vectors are called.
STATISTICS = {
    "mmd": "MMD",
    "mahalanobis": "Mahalanobis distance of means",
}
_COLUMNS = ("stream", "baseline", "window", "effect", "W1/sd", "PSI", "p")

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
        drift: `p_value` below the report's false_alarm_rate and `effect` at least its `min_effect`.
        p_value: Of the statistic that says most, corrected for every other test of the report.
        test: The MMD, its effect in standard deviations, its own p-value and how that was found; None if there is none.
        statistics: Names of the calibrated statistics and their corrected p-values, the one that says most first.
        windows: How many clean windows these were found by.
        effect: A share of the rows, 0 to 1: the largest of the Kolmogorov-Smirnov distances of the group's own streams,
            of the share that the distance of means stands for where that is calibrated (`share_of_shift`), and of the
            least share that the MMD needs (`kernel.least_share`); where none of them reaches `min_effect` and the rows
            moved for certain, of what a closer look at kept rows finds (`joint.changed_share`). NaN if none was looked
            for.
    """

    drift: bool
    p_value: float
    test: KernelTest | None
    statistics: tuple[tuple[str, float], ...] = ()
    windows: int = 0
    effect: float = math.nan


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
        effective_rows: As how many independent rows the window's count, if they depend on each other; NaN if they do
            not, as far as is known.
        accuracies: By group of outputs, the model's on the baseline, and on the window by its labels, with the estimate
            beside it, or, without, estimated from the confidences; as far as they are known.

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
    effective_rows: float = math.nan

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
        of_window = [note.removeprefix(OF_WINDOW) for note in self.notes if note.startswith(OF_WINDOW)]
        of_baseline = [note.removeprefix(OF_BASELINE) for note in self.notes if note.startswith(OF_BASELINE)]
        return tuple(note for note in of_window if note not in of_baseline and any(name in note for name in moved))

    @property
    def missing(self) -> tuple[str, ...]:
        """The groups of the baseline that the window has no rows of, but for labels, which production mostly lacks."""
        lists = (note.removeprefix(ONLY_BASELINE) for note in self.notes if note.startswith(ONLY_BASELINE))
        return tuple(name for names in lists for name in names.split(", ") if not is_labels(name))

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
        p_values = [stream.p_value for group in groups for stream in group.streams]
        p_values += [group.vectors.p_value for group in groups if group.vectors is not None]
        return min((p for p in p_values if not math.isnan(p)), default=1.0)

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
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {"groups": [_group_dict(group) for group in self.groups]}
        values |= {"segments": [_segment_dict(segment) for segment in self.segments]}
        values |= {"accuracies": {name: _accuracy_dict(estimate) for name, estimate in self.accuracies}}
        values |= {"accuracy": self.accuracy and _accuracy_dict(self.accuracy)}
        values |= {"harm": self.harm, "p_value": self.p_value, "causes": self.causes}
        return _plain({"drift": self.drift, **values})  # type: ignore[no-any-return]

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON text; the same two profiles always give the same text."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)


def p_value_of(groups: Iterable[GroupDrift], min_effect: float) -> float:
    """The smallest corrected p-value of what moved far enough to count, streams and rows as vectors; 1 if nothing did.

    What differs by less is no drift, however certain, and its certainty is no evidence.

    Args:
        groups: Of a report.
        min_effect: Of the report.

    Example:
        >>> p_value_of([GroupDrift("inputs", 100, 50, 0, 0)], 0.05)
        1.0
    """
    found = [stream for group in groups for stream in (*group.streams, group.vectors) if stream is not None]
    return min((each.p_value for each in found if each.effect >= min_effect and each.p_value <= 1), default=1.0)


def p_value_of_report(report: DriftReport) -> float:
    """The same of a whole report, its segments included.

    Example:
        >>> p_value_of_report(DriftReport(0.01, 0.05, 0, "validation", "production", 2000, 200))
        1.0
    """
    groups = [*report.groups, *(group for segment in report.segments for group in segment.groups)]
    return p_value_of(groups, report.min_effect)


def badness(stream: StreamDrift) -> tuple[bool, bool, float, float, str]:
    """Sort key that puts the worst stream first: what moved, then by effect; pixels, which are not tested, last."""
    certain = 1.0 if math.isnan(stream.raw_p_value) else stream.raw_p_value
    return (not stream.drift, stream.kind == "pixels", -stream.effect, certain, stream.stream)


def _group_dict(group: GroupDrift) -> dict[str, Any]:
    listed = [{**_fields(stream), "words": stream.words} for stream in group.listed]
    test = group.vectors and group.vectors.test
    vectors = group.vectors and {
        **(_fields(test) if test is not None else {}),
        "mmd_effect": test.effect if test is not None else None,
        "effect": group.vectors.effect,
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


def _accuracy_dict(estimate: AccuracyEstimate) -> dict[str, Any]:
    """An estimate as it is; what the labels say of it only where there are some."""
    values = _fields(estimate)
    labels, guess = values.pop("labelled"), values.pop("estimated")
    mistaken = values.pop("mistaken")
    if labels is None:
        return values
    del values["moved"], values["ceiling"]
    recalls = [{**_fields(recall), "moved": recall.moved} for recall in labels.recalls]
    confusions = [_fields(confusion) for confusion in labels.confusions]
    told = {**_fields(labels), "recalls": recalls, "confusions": confusions}
    return {**values, "labelled": told, "estimated": guess and _accuracy_dict(guess), "mistaken": mistaken}


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


def render(report: DriftReport, width: int) -> str:
    """The whole report, no line wider than `width`."""
    lines = [
        line for text in (verdict(report), *meaning(report), _conditions(report)) for line in _wrapped(text, width)
    ]
    findings = list(_findings(report))
    lines += [""] if findings else []
    for finding in findings[:_HEADLINES]:
        lines += _wrapped(finding, width, "  - ")
    if len(findings) > _HEADLINES:
        lines.append(f"  ... and {len(findings) - _HEADLINES} more, below")
    for group in report.groups:
        lines += ["", *_section(group, width)]
    lines += ["", *_segments(report, width)] if report.segments else []
    lines += [""] if report.notes else []
    for note in report.notes:
        lines += _wrapped(note, width, "note: ")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def verdict(report: DriftReport) -> str:
    """The report in one line.

    Example:
        >>> verdict(DriftReport(0.01, 0.1, 0, "validation", "production", 2000, 200))
        'NO DRIFT: 0 of 0 streams moved'
    """
    moved = f"{len(report.moved):,} of {report.tested:,} streams moved"
    vectors = [group.name for group in report.groups if group.vectors is not None and group.vectors.drift]
    joint = f", and {', '.join(vectors)} as a whole" if vectors else ""
    of_segments = f", and {count_segments(report)}" if report.segment_families else ""
    return f"{'DRIFT' if report.drift else 'NO DRIFT'}: {moved}{joint}{of_segments}"


def meaning(report: DriftReport) -> list[str]:
    """What the drift is due to, where the window was read otherwise than the baseline; else what it means for the
    model's answers, as far as that can be told without labels.
    """
    harms = {
        "harmful": "Harmful: what the model answers moved too.",
        "benign": "Benign so far: what the model is shown moved, what it answers did not.",
    }
    lines = [f"Look here first: {cause}." for cause in report.causes]
    lines += [harms[report.harm]] if report.harm and not lines else []
    for name, estimate in report.accuracies:
        lines += describe_accuracy(estimate, "" if name == OUTPUTS else f" of {name}")
    return lines


def describe_accuracy(estimate: AccuracyEstimate, of: str = "") -> list[str]:
    """What is known of the accuracy in words: by labels, with what they say of classes, or as the estimate it is.

    Example:
        >>> describe_accuracy(AccuracyEstimate(0.75, 0.19, 0.0, 0.5))[0]
        'Accuracy: 75% on the baseline; on the window an estimate of 19% (95% interval 0% to 50%), without labels.'
    """
    unknown = math.isnan(estimate.baseline)
    before, after = ("", percent(estimate.window)) if unknown else percents(estimate.baseline, estimate.window)
    first = "the baseline has no labels" if unknown else f"{before} on the baseline"
    if estimate.labelled is None:
        text = f"an estimate of {after} ({_interval(estimate)}), without labels"
        return [f"Accuracy{of}: {first}; on the window {text}.", *_ceiling(estimate)]
    labels = estimate.labelled
    kept = f"{labels.rows:,}" if labels.rows == labels.of else f"{labels.rows:,} of {labels.of:,}"
    text = f"{after} by the labels of {kept} rows ({_interval(estimate)})"
    return [f"Accuracy{of}: {first}; on the window {text}{_changed(labels)}.", *_told_by_labels(estimate, labels)]


def _interval(estimate: AccuracyEstimate) -> str:
    return f"95% interval {percent(estimate.low)} to {percent(estimate.high)}"


def _ceiling(estimate: AccuracyEstimate) -> list[str]:
    """What the answers' classes alone tell, where that is less than the estimate."""
    if estimate.ceiling >= min(estimate.window, estimate.baseline):
        return []
    most = percent(estimate.ceiling)
    return [f"If classes are as frequent as in the baseline, at most {most} of its answers can be right."]


def _changed(labels: Labelled) -> str:
    ends = labels.change_low, labels.change_high
    if math.isnan(labels.change):
        return ""
    if ends[0] <= 0 <= ends[1]:
        return ", no change beyond chance"
    size, *between = (f"{abs(100 * end):.0f}" for end in (labels.change, *sorted(ends, key=abs)))
    return f": {size} points {'higher' if labels.change > 0 else 'lower'} ({' to '.join(between)})"


def _told_by_labels(estimate: AccuracyEstimate, labels: Labelled) -> Iterator[str]:
    guess = estimate.estimated
    if guess is not None and estimate.mistaken:
        off = f"{abs(100 * estimate.mistaken):.0f} points too {'high' if estimate.mistaken > 0 else 'low'}"
        yield (
            f"The estimate without labels, {percent(guess.window)} ({_interval(guess)}), is wrong here: {off}. "
            "Trust the labels."
        )
    elif guess is not None:
        yield f"The estimate without labels would be {percent(guess.window)} ({_interval(guess)}); the labels agree."
    if labels.fell:
        told = [f"{r.name} {' -> '.join(percents(r.baseline, r.window))}" for r in labels.fell[:_CLASSES]]
        more = f" and {len(labels.fell) - len(told)} more" if len(labels.fell) > len(told) else ""
        yield f"Found less often, beyond chance: {', '.join(told)}{more} (recall)."
    worst = [confusion for confusion in labels.confusions[:_CLASSES] if confusion.rows > 1]
    if worst:
        yield f"Confused most: {'; '.join(map(describe_confusion, worst))}."


def describe_confusion(confusion: Confusion) -> str:
    """A confusion in words.

    Example:
        >>> describe_confusion(Confusion("cat", "dog", 12, 0.24, 0.05))
        'cat taken for dog in 12 rows (24% of its rows, 5% in the baseline)'
    """
    before = "" if math.isnan(confusion.baseline) else f", {percent(confusion.baseline)} in the baseline"
    rows = f"{confusion.rows:,} {'row' if confusion.rows == 1 else 'rows'}"
    return f"{confusion.truth} taken for {confusion.answer} in {rows} ({percent(confusion.share)} of its rows{before})"


def count_segments(report: DriftReport) -> str:
    """How many of the segments that were compared moved, in words.

    Example:
        >>> count_segments(DriftReport(0.01, 0.1, 0, "validation", "production", 2000, 200))
        '0 of 0 segments'
    """
    compared = sum(bool(segment.groups) for segment in report.segments)
    return f"{sum(segment.drift for segment in report.segments)} of {compared} segments"


def describe_stream(stream: StreamDrift) -> str:
    """What changed in a stream, without its name."""
    if stream.kind == "categories":
        shares = [share for share in stream.shares if len(set(percents(*share[1:]))) > 1] or stream.shares[:1]
        return "; ".join(f"{name} {describe_shares(before, after)}" for name, before, after in shares[:3])
    if stream.kind == "invalid":
        images = stream.stream.split("/")[0] in ("inputs", "raw")
        which = "rows with pixels out of range or not finite" if images else "rows with a value that is not finite"
        return f"{which} {describe_shares(*stream.shares[0][1:])}" if stream.shares else ""
    return describe_quantiles(stream.baseline, stream.window)


def _conditions(report: DriftReport) -> str:
    return (
        f"{report.n_window:,} rows of {report.source} against {report.n_baseline:,} of {report.against}. Chance of a "
        f"false alarm: {report.false_alarm_rate:g} for the whole report ({_families(report)}). Drift needs an effect "
        f"of {report.min_effect:g}, a share of the rows: Kolmogorov-Smirnov distance, rows in another category, or of "
        "rows as vectors the least that must have changed."
    )


def _families(report: DriftReport) -> str:
    if report.clean_windows:
        how = f"by {report.clean_windows:,} clean windows drawn from the baseline"
        rest = f"; {report.families} of its families of tests by formulas" if report.families else ""
        return f"{how}{rest}" + ("; half of it for segments" if report.segment_families else "")
    whole, of_segments = (
        f"{n} {'family' if n == 1 else 'families'}" for n in (report.families, report.segment_families)
    )
    halves = f"half of it for {whole} of tests, half for {of_segments} of tests of segments, in each half"
    return f"{halves if report.segment_families else f'{whole} of tests,'} an equal share each"


def _findings(report: DriftReport) -> Iterator[str]:
    """What moved, worst first: streams by name; of a group that is summed up one line; rows as vectors."""
    findings: list[tuple[float, str]] = []
    for group in report.groups:
        moved = group.moved
        if moved and group.summed_up:
            findings.append((moved[0].effect, f"{group.name}: {_count(group)}, {_worst(group)}"))
        else:
            findings += [(stream.effect, f"{stream.title} {stream.words} ({_evidence(stream)})") for stream in moved]
        if group.vectors is not None and group.vectors.drift:
            effect = 0.0 if math.isnan(group.vectors.effect) else group.vectors.effect
            findings.append((effect, f"{group.name} moved as a whole: {sum_up_vectors(group.vectors)}"))
    for segment in report.segments:
        if segment.drift:
            findings.append(
                (segment.effect, f"segment {_short_name(segment.title or segment.name)}: {_worst_of(segment)}")
            )
    return (text for _, text in sorted(findings, key=lambda entry: -entry[0]))


def _worst_of(segment: SegmentDrift) -> str:
    worst, more = segment.moved[0], len(segment.moved) - 1
    return f"{worst.title} {worst.words} ({_evidence(worst)}){f', and {more} more' if more else ''}"


def _segments(report: DriftReport, width: int) -> Iterator[str]:
    """A line or two per segment: its name, rows before and after, and what moved."""
    yield from _wrapped(f"segments by {report.segment_by}: {count_segments(report)} moved", width)
    heads = [_short_name(segment.title or segment.name) for segment in report.segments]
    counts = [(f"{segment.n_baseline:,}", f"{segment.n_window:,}") for segment in report.segments]
    sizes = [max(map(len, column)) for column in zip(*[("baseline", "window"), *counts], strict=True)]
    wide = max(map(len, [*heads, "segment"]))
    yield f"  {'segment'.ljust(wide)}  {'baseline'.rjust(sizes[0])}  {'window'.rjust(sizes[1])}"
    for segment, name, (before, after) in zip(report.segments, heads, counts, strict=True):
        mark = "*" if segment.drift else " "
        first = f"{mark} {name.ljust(wide)}  {before.rjust(sizes[0])}  {after.rjust(sizes[1])}  "
        text = _worst_of(segment) if segment.drift else segment.verdict
        yield from textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * len(first))


def _short_name(name: str) -> str:
    text = " ".join(name.split())
    return text if len(text) <= _NAME else text[: _NAME - 2] + ".."


def _evidence(stream: StreamDrift) -> str:
    name = "KS" if stream.kind == "numbers" else "share moved"
    return f"{name} {stream.effect:.2f}, {certainty(stream.p_value, stream.windows)}"


def describe_vectors(vectors: VectorDrift) -> str:
    """What is known of rows as vectors: the effect, the MMD, and the corrected p-values of all statistics."""
    test = vectors.test
    mmd = [] if math.isnan(vectors.effect) else [f"effect {vectors.effect:.2f}"]
    mmd += [f"MMD {test.mmd:.3f} ({test.effect:.2f} sd)"] if test is not None else []
    if not vectors.statistics:
        method = f" ({test.method})" if test is not None else ""
        return ", ".join([*mmd, f"p {p_text(vectors.p_value)}{method}"])
    named = [f"{STATISTICS.get(name, name)} {p_text(p, vectors.windows)}" for name, p in vectors.statistics]
    return "; ".join([*mmd, f"p by {', '.join(named)}"])


def sum_up_vectors(vectors: VectorDrift) -> str:
    """The statistic that says most of rows as vectors, and how certain it is."""
    if not vectors.statistics:
        return describe_vectors(vectors)
    name, p = vectors.statistics[0]
    of_rows = f"effect {vectors.effect:.2f}, seen" if not math.isnan(vectors.effect) else "seen"
    return f"{of_rows} best by the {STATISTICS.get(name, name)}, {certainty(p, vectors.windows)}"


def _count(group: GroupDrift) -> str:
    return f"{len(group.moved):,} of {group.tested:,} streams moved"


def _worst(group: GroupDrift) -> str:
    shown = [f"{stream.title.removeprefix(group.name + '/')} ({stream.effect:.2f})" for stream in group.listed]
    return f"worst KS: {', '.join(shown)}"


def _section(group: GroupDrift, width: int) -> Iterator[str]:
    invalid = f", {group.invalid_window:,} more were not finite" if group.invalid_window else ""
    yield from _wrapped(f"{group.name}: {_count(group)} ({group.n_window:,} rows{invalid})", width)
    if group.vectors is not None:
        mark = "*" if group.vectors.drift else " "
        yield from _wrapped(f"rows as vectors: {describe_vectors(group.vectors)}", width, f"{mark} ")
    if group.summed_up:
        yield from _wrapped(_worst(group), width, "  ")
    elif group.streams:
        yield from _table(group, width)
    for note in group.notes:
        yield from _wrapped(note, width, "  note: ")


def _table(group: GroupDrift, width: int) -> Iterator[str]:
    """A line per stream, worst first; names are cut where the width does not suffice, and stay told apart."""
    rows = [_COLUMNS, *(_cells(stream, group.name) for stream in group.streams)]
    names = ["", *(stream.stream.removeprefix(group.name + "/") for stream in group.streams)]
    sizes = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    sizes[0] = min(sizes[0], max(width - sum(sizes[1:]) - 2 * len(sizes), 12))
    marks = [" ", *("*" if stream.drift else " " for stream in group.streams)]
    for mark, row, unlabelled in zip(marks, rows, names, strict=True):
        name = row[0] if len(row[0]) <= sizes[0] else _cut(unlabelled, sizes[0])
        rest = (cell.rjust(size) for cell, size in zip(row[1:], sizes[1:], strict=True))
        yield "  ".join([f"{mark} {name.ljust(sizes[0])}", *rest])[:width]


def _cut(name: str, size: int) -> str:
    """A name of at most so many characters: what comes after its last "/" tells classes and columns apart.

    Example:
        >>> _cut("probability/17", 13), _cut("entropy_confidence", 13), _cut("custom/entropy_of_everything", 13)
        ('probabil../17', 'entropy_con..', 'custom/entr..')
    """
    if len(name) <= size:
        return name
    head, _, last = name.rpartition("/")
    kept = size - len(last) - 3
    return f"{head[:kept]}../{last}" if head and kept > 0 else name[: size - 2] + ".."


def _cells(stream: StreamDrift, group: str) -> tuple[str, ...]:
    name = stream.title.removeprefix(group + "/")
    tail = (two_decimals(stream.wasserstein), two_decimals(stream.psi), p_text(stream.p_value, stream.windows))
    if stream.shares:
        label, before, after = stream.shares[0]
        texts = percents(before, after)
        return (name, f"{label}: {texts[0]}", texts[1], two_decimals(stream.effect), *tail)
    decimals = decimals_for(*stream.baseline, *stream.window)
    sides = [[number(value, decimals) for value in side] for side in (stream.baseline, stream.window)]
    return (name, *(f"{middle} ({low} to {high})" for low, middle, high in sides), two_decimals(stream.effect), *tail)


def _wrapped(text: str, width: int, first: str = "") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * len(first)) or [first]
