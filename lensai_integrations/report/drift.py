"""The page of a drift report: the verdict, what moved worst first with both distributions, then group by group.

All numbers that decide come from the report. The drawings come from the two profiles, so a reader sees with their own
eyes what the numbers say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lensai_integrations.drift.result import (
    DriftReport,
    GroupDrift,
    SegmentDrift,
    StreamDrift,
    count_segments,
    describe_vectors,
    meaning,
    sum_up_vectors,
    verdict,
)
from lensai_integrations.drift.text import certainty, p_text
from lensai_integrations.profiles.conventions import paired, title_of
from lensai_integrations.profiles.names import OUTPUTS
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.profiling.sampling import measured_lines
from lensai_integrations.report.accuracy import accuracy_table
from lensai_integrations.report.pages import (
    Column,
    Fact,
    Folded,
    Page,
    Section,
    Verdict,
    axis,
    definitions_used,
    legend,
    rows_noun,
    segments_read,
    when,
)
from lensai_integrations.report.segments import SegmentRow, name_shown, segment_table
from lensai_integrations.report.streams import (
    ClassChart,
    Series,
    Source,
    SourceShare,
    StreamRow,
    class_charts,
    fan,
    parts_of,
    pixel_charts,
    stream_rows,
)
from lensai_integrations.report.words import count, number

#: Streams at the top of the page; the groups show the others.
MOST_FINDINGS = 6
_COLUMNS = (
    Column("effect", "Kolmogorov-Smirnov distance of the two distributions: 0 the same, 1 apart"),
    Column("p", "Chance of such an effect without drift, corrected for all tests of the report"),
)
_BY_LABELS = "Lines are 95% intervals. The estimate is what would have been said without labels."
_ESTIMATED = (
    "The window has no labels: its accuracy is estimated from how sure the model is. The line is a 95% interval, which "
    "allows for what such estimates were measured to get wrong under shift; the truth may lie outside."
)
_USE = (
    "A stream moved when its p is below the false-alarm rate and its effect is at least the smallest that counts. The "
    "effect is a share of the rows: the Kolmogorov-Smirnov distance for numbers, the share of rows in another category "
    "for categories. p is corrected for all tests of the report. Pixel distributions are shown and not tested, since "
    "the pixels of an image are not independent."
)


def drift_page(report: DriftReport, baseline: Baseline | Profile, window: Profile) -> Page:
    """Everything the page of a drift report says."""
    reference = baseline.sources().get(report.against, next(iter(baseline.sources().values())))
    window = paired(window, reference)
    sources = [Source(0, "baseline", reference), Source(1, "window", window)]
    sections = [_moved_section(report, sources)] if report.moved or _points(report) else []
    sections += _accuracy_sections(report)
    sections += _segment_sections(report, sources)
    sections += [_group_section(group, sources) for group in report.groups]
    made = window.info.get("created")
    return Page(
        kind="Drift report",
        headline=_headline(report, sources),
        made=f"Window made {when(str(made))}" if made else "",
        verdict=_verdict(report),
        warnings=report.notes,
        warning_noun="note",
        facts=tuple(_facts(report, sources, baseline)),
        sections=tuple(sections),
        definitions=definitions_used(sources),
        use_title="How to read it",
        use=_USE,
    )


def _headline(report: DriftReport, sources: Sequence[Source]) -> str:
    before, after = (rows_noun(source.profile.groups) for source in sources)
    return (
        f"{count(report.n_window, f'{report.source} {after}')}, held against "
        f"{count(report.n_baseline, f'{report.against} {before}')}"
    )


def _verdict(report: DriftReport) -> Verdict:
    title = verdict(report)
    worst = [f"{stream.title} {_words(stream)}" for stream in report.moved[:1]]
    segments = [segment for segment in report.segments if segment.drift][:1]
    worst += [
        f"of segment {segment.title or segment.name}, {segment.moved[0].title} {_words(segment.moved[0])}"
        for segment in segments
    ]
    lines = (*(f"Worst: {text}." for text in worst), *meaning(report))
    return Verdict("bad" if report.drift else "good", title, lines)


def _facts(report: DriftReport, sources: Sequence[Source], baseline: Baseline | Profile) -> Iterator[Fact]:
    for source, name in zip(sources, (report.against, report.source), strict=True):
        lines = [f"{name}, {count(source.profile.n, rows_noun(source.profile.groups))}"]
        epoch = baseline.info.get("epoch") if source.number == 0 else None
        lines += [f"epoch {epoch}"] if epoch is not None else []
        yield Fact(source.name.capitalize(), (*lines, *measured_lines(source.profile)))
    yield Fact(
        "Test",
        (
            f"false alarms: {number(100 * report.false_alarm_rate)}% for the whole report",
            f"smallest effect that counts: {number(report.min_effect)}",
            _held(report),
        ),
    )
    yield Fact("Groups", tuple(f"{group.name}: {_counted(group)}" for group in report.groups))


def _held(report: DriftReport) -> str:
    """How the false-alarm rate is held."""
    if report.clean_windows:
        return f"held by {report.clean_windows:,} clean windows drawn from the baseline"
    halves = f", half of it by {count(report.segment_families)} of segments" if report.segment_families else ""
    return f"shared by {count(report.families, 'family', 'families')} of tests{halves}"


def _counted(group: GroupDrift) -> str:
    return f"{count(len(group.moved))} of {count(group.tested, 'stream')} moved"


def _moved_section(report: DriftReport, sources: Sequence[Source]) -> Section:
    """What moved, worst first; groups of many streams and categories in a sentence each."""
    listed = [(s, group.name) for group in report.groups if not group.summed_up for s in group.moved]
    worst = sorted([entry for entry in listed if entry[0].kind == "numbers"], key=lambda entry: -entry[0].effect)
    rows = [row for stream, name in worst[:MOST_FINDINGS] for row in _full_rows(stream, name, sources)]
    left = len(worst) - MOST_FINDINGS
    return Section(
        title="What moved",
        points=(*_points(report), *([f"{count(left, 'more stream')} moved, listed below."] if left > 0 else [])),
        legend=tuple((s.number, f"{s.name}, {count(s.profile.n, 'row')}") for s in sources) if rows else (),
        columns=_COLUMNS,
        rows=tuple(rows),
    )


def _points(report: DriftReport) -> tuple[str, ...]:
    """What moved and has no row of its own."""
    points: list[tuple[float, str]] = []
    for group in report.groups:
        texts = [_counted(group)] if group.summed_up and group.moved else []
        if group.vectors is not None and group.vectors.drift:
            texts.append(f"moved as a whole: {_minus(sum_up_vectors(group.vectors))}")
        if texts:
            worst = max((stream.effect for stream in group.streams), default=0.0)
            points.append((worst, f"{group.name}: {'; '.join(texts)}."))
        unlisted = [] if group.summed_up else [stream for stream in group.moved if stream.kind != "numbers"]
        points += [(stream.effect, f"{stream.stream}: {_words(stream)} ({_evidence(stream)}).") for stream in unlisted]
    return tuple(text for _, text in sorted(points, key=lambda entry: -entry[0]))


def _full_rows(stream: StreamDrift, group: str, sources: Sequence[Source]) -> list[StreamRow]:
    """The stream's row under its full name, with words."""
    return [replace(row, name=stream.stream, tag="", words=_words(stream)) for row in _rows(group, [stream], sources)]


def _group_section(group: GroupDrift, sources: Sequence[Source]) -> Section:
    """A group's streams, worst first, with whatever else can be drawn of it. What did not move is folded away."""
    parts = parts_of(sources, group.name)
    rows = _rows(group.name, group.listed, sources)
    moved, others = [row for row in rows if row.notable], [row for row in rows if not row.notable]
    rest = (Folded(_unmoved(group, len(others)), "", tuple(others)),) if others else ()
    embedded = group.name.startswith("embeddings/")
    vectors = [f"Rows as vectors: {_vectors(group)}."] if group.vectors is not None else []
    return Section(
        title=group.name if embedded else title_of(group.name, [share.group for share in parts]),
        lead=(f"{_counted(group)}.", *vectors),
        points=(*_told(group), *group.notes),
        legend=legend(parts),
        columns=_COLUMNS,
        rows=tuple(moved),
        pixels=tuple(pixel_charts(parts)),
        charts=tuple(_class_charts(parts)),
        fans=(fan(parts),) if embedded and parts else (),
        folded=rest,
    )


def _accuracy_sections(report: DriftReport) -> Iterator[Section]:
    """How accurate each answer is, with intervals; by labels also of each class."""
    for name, estimate in report.accuracies:
        title = "Accuracy" if name == OUTPUTS else f"Accuracy of {name}"
        lead = _BY_LABELS if estimate.by_labels else _ESTIMATED
        yield Section(title, (lead,), accuracy=accuracy_table(estimate))


def _segment_sections(report: DriftReport, sources: Sequence[Source]) -> list[Section]:
    """The segments, if they were compared: those that moved first, with what moved most."""
    table = segment_table(sources, [segment.name for segment in report.segments]) if report.segments else None
    if table is None:
        return []
    by_name = {name_shown(segment.name, sources): segment for segment in report.segments}
    table = replace(table, rows=tuple(_with_verdict(row, by_name[row.name]) for row in table.rows))
    return [Section("Segments", (f"{count_segments(report)} moved.", segments_read(table)), segments=table)]


def _with_verdict(row: SegmentRow, segment: SegmentDrift) -> SegmentRow:
    if not segment.drift:
        return replace(row, note=segment.reason)
    worst, more = segment.moved[0], len(segment.moved) - 1
    rest = f"; and {count(more, 'more stream')}" if more else ""
    return replace(row, tag="moved", words=f"{worst.title} {_words(worst)} ({_evidence(worst)}){rest}.")


def _unmoved(group: GroupDrift, shown: int) -> str:
    unmoved = sum(stream.kind == "numbers" and not stream.drift for stream in group.streams)
    which = f"{count(shown)} of the {count(unmoved, 'stream')}" if shown < unmoved else count(shown, "stream")
    return f"{which} that did not move"


def _told(group: GroupDrift) -> list[str]:
    """Categories and rows left out, in words."""
    in_words = [stream for stream in group.listed if stream.kind in ("categories", "invalid")]
    return [f"{_short(stream.stream, group.name)}: {_words(stream)} ({_evidence(stream)})." for stream in in_words]


def _class_charts(parts: Sequence[SourceShare]) -> Iterator[ClassChart]:
    """Shares of the classes, a chart per stream of categories: the baseline as bars, the window as marks."""
    for stream in dict.fromkeys(stream for share in parts for stream in share.group.categories):
        sides = [share for share in parts if stream in share.group.categories and share.group.categories[stream].n]
        series = [Series.of(share.source, share.source, share.number, share.group, stream) for share in sides]
        yield from class_charts(series)


def _short(stream: str, group: str) -> str:
    return stream.removeprefix(f"{group}/")


def _rows(name: str, streams: Sequence[StreamDrift], sources: Sequence[Source]) -> list[StreamRow]:
    """Rows of numeric streams, in the order given."""
    numeric = {_short(stream.stream, name): stream for stream in streams if stream.kind == "numbers"}
    parts = parts_of(sources, name)
    drawn = {row.name: row for row in stream_rows(parts, numeric.keys(), axis(parts))}
    return [
        replace(
            drawn[short],
            notable=stream.drift,
            extra=(f"{stream.effect:.2f}", _p(stream.p_value, stream.windows)),
            tag="moved" if stream.drift else "",
        )
        for short, stream in numeric.items()
        if short in drawn
    ]


def _words(stream: StreamDrift) -> str:
    return stream.words.replace(" -> ", " → ")


def _p(value: float, windows: int = 0) -> str:
    """A p-value with a real minus sign, at which no line is broken."""
    return "" if math.isnan(value) else _minus(p_text(value, windows))


def _minus(text: str) -> str:
    return text.replace("e-", "e\N{MINUS SIGN}")


def _evidence(stream: StreamDrift) -> str:
    return f"effect {stream.effect:.2f}, {_minus(certainty(stream.p_value, stream.windows))}"


def _vectors(group: GroupDrift) -> str:
    assert group.vectors is not None
    return _minus(describe_vectors(group.vectors))
