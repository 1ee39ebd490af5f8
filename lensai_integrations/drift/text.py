"""A drift report as plain text: the verdict, then what moved in words, then the numbers by group.

Read in a terminal, a log file or an e-mail, so it uses no colours and nothing outside ASCII, and keeps to a width.
Words agree with the numbers beside them: what is said to have risen is shown with as many figures as it takes to see.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lensai_integrations.heads import OUTPUTS

if TYPE_CHECKING:
    from lensai_integrations.drift.accuracy import AccuracyEstimate
    from lensai_integrations.drift.result import DriftReport, GroupDrift, SegmentDrift, StreamDrift, VectorDrift

#: Findings listed at the top; the groups' tables show all.
_HEADLINES = 10
#: Shares that differ by less are the same: what counting leaves of rounding.
_SAME = 1e-9
_MOST_DECIMALS = 6
#: Characters of a segment's name.
_NAME = 24
#: What the statistics of rows as vectors are called.
STATISTICS = {
    "mmd": "MMD",
    "mahalanobis": "Mahalanobis distance of means",
}
_COLUMNS = ("stream", "baseline", "window", "effect", "W1/sd", "PSI", "p")


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
        >>> from lensai_integrations.drift.result import DriftReport
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
    told = {
        "harmful": "Harmful: what the model answers moved too.",
        "benign": "Benign so far: what the model is shown moved, what it answers did not.",
    }
    lines = [f"Look here first: {cause}." for cause in report.causes]
    lines += [told[report.harm]] if report.harm and not lines else []
    return lines + [_accuracy(each, "" if name == OUTPUTS else f" of {name}") for name, each in report.accuracies]


def _accuracy(found: AccuracyEstimate, of: str) -> str:
    (before, after), low, high = percents(found.baseline, found.window), percent(found.low), percent(found.high)
    how = "its labels" if found.by_labels else "its confidences"
    return f"Accuracy{of}: {before} on the baseline; on the window {after} by {how} ({low} to {high})."


def count_segments(report: DriftReport) -> str:
    """How many of the segments that were compared moved, in words.

    Example:
        >>> from lensai_integrations.drift.result import DriftReport
        >>> count_segments(DriftReport(0.01, 0.1, 0, "validation", "production", 2000, 200))
        '0 of 0 segments'
    """
    compared = sum(bool(segment.groups) for segment in report.segments)
    return f"{sum(segment.drift for segment in report.segments)} of {compared} segments"


def describe_stream(stream: StreamDrift) -> str:
    """What changed in a stream, without its name."""
    if stream.kind == "categories":
        shares = [share for share in stream.shares if len(set(percents(*share[1:]))) > 1] or stream.shares[:1]
        return "; ".join(f"{name} {_change(before, after)}" for name, before, after in shares[:3])
    if stream.kind == "invalid":
        images = stream.stream.split("/")[0] in ("inputs", "raw")
        which = "rows with pixels out of range or not finite" if images else "rows with a value that is not finite"
        return f"{which} {_change(*stream.shares[0][1:])}" if stream.shares else ""
    return describe_quantiles(stream.baseline, stream.window)


def describe_quantiles(before: Sequence[float], after: Sequence[float]) -> str:
    """What changed between two triples of quantiles at 5%, 50% and 95%.

    Example:
        >>> describe_quantiles((40, 131, 211), (22, 71, 118))
        'fell: median 131 -> 71'
        >>> describe_quantiles((40, 131, 211), (100, 131, 160))
        'narrowed: middle 90% 40 to 211 -> 100 to 160'
    """
    if any(map(math.isnan, (*before, *after))):
        return "no values to compare"
    (low, middle, high), (low2, middle2, high2) = before, after
    values, spread, spread2 = (*before, *after), high - low, high2 - low2
    if abs(middle2 - middle) > 0.1 * max(spread, 1e-12):
        text = _telling(values, lambda shown: shown[4] - shown[1], middle2 - middle)
        return f"{'rose' if middle2 > middle else 'fell'}: median {text[1]} -> {text[4]}"
    if not 0.85 * spread <= spread2 <= 1.15 * spread:
        text = _telling(values, lambda shown: shown[5] - shown[3] - (shown[2] - shown[0]), spread2 - spread)
        word = "widened" if spread2 > spread else "narrowed"
        return f"{word}: middle 90% {text[0]} to {text[2]} -> {text[3]} to {text[5]}"
    text = _telling(values, lambda _: 0.0, 0.0)
    if tuple(before) == tuple(after):
        return f"as before: median {text[1]}"
    if text[:3] == text[3:]:
        return f"changed shape: median {text[1]} and middle 90% {text[0]} to {text[2]} as before"
    ranges = f"middle 90% {text[0]} to {text[2]} -> {text[3]} to {text[5]}"
    return f"changed shape: {ranges}, median {text[1]} -> {text[4]}"


def _telling(values: Sequence[float], change: Callable[[list[float]], float], actual: float) -> list[str]:
    """Numbers with about three figures of their range, or as many more as it takes to see a change.

    Args:
        values: The numbers.
        change: What changed, computed of the numbers as they are shown.
        actual: The same of the numbers as they are.
    """
    decimals = decimals_for(*values)
    ways: list[Callable[[float], str]] = [
        partial(number, decimals=more) for more in range(decimals, _MOST_DECIMALS + 1)
    ]
    ways += [f"{{:.{figures}g}}".format for figures in range(3, 18)]
    for way in ways:
        text = [way(value) for value in values]
        shown = change([float(each.replace(",", "")) for each in text])
        if (shown > 0) == (actual > 0) and (shown < 0) == (actual < 0):
            break
    return text


def number(value: float, decimals: int) -> str:
    """A number with a fixed number of decimals, in powers of ten where that would be too long.

    Example:
        >>> number(131.2, 0), number(-0.001, 2), number(1234567.0, 0), number(3e12, 0), number(math.nan, 1)
        ('131', '0.00', '1,234,567', '3e+12', '-')
    """
    if math.isnan(value):
        return "-"
    if abs(value) >= 1e7:
        return f"{value:.3g}"
    text = f"{value:,.{decimals}f}"
    return text if text.strip("-0.") else text.lstrip("-")


def decimals_for(*values: float) -> int:
    """Decimals that show about three figures of the range of some values; none for whole numbers.

    Example:
        >>> decimals_for(40, 211), decimals_for(0.1, 0.35), decimals_for(224, 224)
        (0, 3, 0)
    """
    if all(value == round(value) for value in values if math.isfinite(value)):
        return 0
    spread = max(values) - min(values)
    scale = spread if spread > 0 else abs(values[0]) or 1.0
    return min(max(2 - math.floor(math.log10(scale)), 0), _MOST_DECIMALS) if math.isfinite(scale) else 0


def percent(share: float) -> str:
    """A share of rows as a percentage.

    Example:
        >>> percent(0.31), percent(0.0312), percent(0.0)
        ('31%', '3.1%', '0%')
    """
    return f"{100 * share:.0f}%" if share >= 0.0995 or share == 0 else f"{100 * share:.2g}%"


def percents(before: float, after: float) -> tuple[str, str]:
    """Two shares as percentages, with as many figures as it takes to tell them apart.

    Example:
        >>> percents(0.1, 0.31), percents(0.502, 0.498), percents(0.5, 0.5)
        (('10%', '31%'), ('50.2%', '49.8%'), ('50%', '50%'))
    """
    texts, decimals = (percent(before), percent(after)), 0
    while texts[0] == texts[1] and abs(after - before) > _SAME and decimals < 15:
        decimals += 1
        texts = f"{100 * before:.{decimals}f}%", f"{100 * after:.{decimals}f}%"
    return texts


def p_text(p: float, windows: int = 0) -> str:
    """A p-value as people write it; of clean windows none smaller than they can show.

    Example:
        >>> p_text(0.0312), p_text(3.2e-7), p_text(1e-40), p_text(math.nan), p_text(1e-9, 1000)
        ('0.031', '3e-07', '<1e-16', '-', '<0.001')
    """
    if math.isnan(p):
        return "-"
    if windows and p * windows < 1:
        return f"<{1 / windows:.1g}"
    return "<1e-16" if p < 1e-16 else f"{p:.0e}" if p < 1e-3 else f"{p:.2g}"


def _change(before: float, after: float) -> str:
    first, second = percents(before, after)
    if first == second:
        return f"stayed at {first} of rows"
    return f"{'rose' if after > before else 'fell'} from {first} to {second} of rows"


def _conditions(report: DriftReport) -> str:
    return (
        f"{report.n_window:,} rows of {report.source} against {report.n_baseline:,} of {report.against}. Chance of a "
        f"false alarm: {report.false_alarm_rate:g} for the whole report ({_families(report)}). Drift needs an effect "
        f"of {report.min_effect:g}: Kolmogorov-Smirnov distance, or share of the rows in another category."
    )


def _families(report: DriftReport) -> str:
    if report.clean_windows:
        known = f"by {report.clean_windows:,} clean windows drawn from the baseline"
        rest = f"; {report.families} of its families of tests by formulas" if report.families else ""
        return f"{known}{rest}" + ("; half of it for segments" if report.segment_families else "")
    one, two = (f"{n} {'family' if n == 1 else 'families'}" for n in (report.families, report.segment_families))
    halves = f"half of it for {one} of tests, half for {two} of tests of segments, in each half"
    return f"{halves if report.segment_families else f'{one} of tests,'} an equal share each"


def _findings(report: DriftReport) -> Iterator[str]:
    """What moved, worst first: streams by name; of a group that is summed up one line; rows as vectors."""
    found: list[tuple[float, str]] = []
    for group in report.groups:
        moved = group.moved
        if moved and group.summed_up:
            found.append((moved[0].effect, f"{group.name}: {_count(group)}, {_worst(group)}"))
        else:
            found += [(stream.effect, f"{stream.title} {stream.words} ({_evidence(stream)})") for stream in moved]
        if group.vectors is not None and group.vectors.drift:
            effect = group.vectors.test.effect if group.vectors.test is not None else 0.0
            found.append((effect, f"{group.name} moved as a whole: {sum_up_vectors(group.vectors)}"))
    for segment in report.segments:
        if segment.drift:
            found.append(
                (segment.effect, f"segment {_short_name(segment.title or segment.name)}: {_worst_of(segment)}")
            )
    return (text for _, text in sorted(found, key=lambda entry: -entry[0]))


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
    """What is known of rows as vectors: the MMD, and the corrected p-values of all statistics."""
    test = vectors.test
    mmd = [f"MMD {test.mmd:.3f}, effect {test.effect:.2f}"] if test is not None else []
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
    return f"seen best by the {STATISTICS.get(name, name)}, {certainty(p, vectors.windows)}"


def certainty(p: float, windows: int) -> str:
    """How surprising something is, in words.

    Example:
        >>> certainty(0.03, 1000), certainty(1e-9, 1000), certainty(1e-9, 0)
        ('p 0.03', 'beyond anything in 1,000 clean windows', 'p 1e-09')
    """
    return f"beyond anything in {windows:,} clean windows" if p * windows < 1 and windows else f"p {p_text(p)}"


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
    tail = (_two(stream.wasserstein), _two(stream.psi), p_text(stream.p_value, stream.windows))
    if stream.shares:
        label, before, after = stream.shares[0]
        texts = percents(before, after)
        return (name, f"{label}: {texts[0]}", texts[1], _two(stream.effect), *tail)
    decimals = decimals_for(*stream.baseline, *stream.window)
    sides = [[number(value, decimals) for value in side] for side in (stream.baseline, stream.window)]
    return (name, *(f"{middle} ({low} to {high})" for low, middle, high in sides), _two(stream.effect), *tail)


def _two(value: float) -> str:
    return "-" if math.isnan(value) else "inf" if math.isinf(value) else f"{value:.2f}"


def _wrapped(text: str, width: int, first: str = "") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * len(first)) or [first]
