"""Segments as a compact table: rows, and of the main measures the median and the middle 90%, on one axis per measure.

A reader looks down a column to see the class that is darker than the others, and along a row to see what is odd about
one class. Works for the sources of a baseline and for the two sides of a comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from lensai_integrations.profiles.conventions import input_of, is_images
from lensai_integrations.profiles.names import LABEL, OTHER_SEGMENT, label_names, shown
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.report.plots import bar_svg, ranges_svg
from lensai_integrations.report.streams import Source
from lensai_integrations.report.words import count, interval, number, percent, significant_decimals

#: Segments with a row of their own, beside `OTHER_SEGMENT`.
MOST_ROWS = 20
#: Measures with a column: these, as far as they are there.
MAIN = ("brightness", "contrast", "sharpness", "saturation", "margin_confidence")
#: And where none of these is, the first few streams there are.
_FIRST = 4
#: Where there is nothing to say.
_NONE = "\N{EN DASH}"
_RANKS = np.array([0.05, 0.5, 0.95])

#: Quantiles 5%, 50% and 95% of a segment's streams by full name.
Quantiles = Mapping[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Measure:
    """A column: the stream, a short name, its unit, what it tells, and the ends of its axis in words."""

    stream: str
    name: str
    unit: str
    title: str
    ends: str


@dataclass(frozen=True)
class MeasureCell:
    """A measure of one segment: the medians by source number, and the ranges drawn."""

    medians: tuple[tuple[int, str], ...]
    chart: Markup | None


@dataclass(frozen=True)
class SegmentRow:
    """A segment: its rows by source number, their shares drawn, a cell per measure; what moved, where that was asked.

    Attributes:
        tag: A word beside the name.
        note: A remark below it.
        words: A sentence across the table.
    """

    name: str
    rows: tuple[tuple[int, str], ...]
    chart: Markup
    cells: tuple[MeasureCell, ...]
    tag: str = ""
    note: str = ""
    words: str = ""


@dataclass(frozen=True)
class SegmentTable:
    """All segments.

    Attributes:
        by: What they are by.
        legend: Colour number and text of each source.
        columns: The measures.
        rows: A row per segment.
        rest: What was left out, in words.
    """

    by: str
    legend: tuple[tuple[int, str], ...]
    columns: tuple[Measure, ...]
    rows: tuple[SegmentRow, ...]
    rest: str = ""


def segment_table(sources: Sequence[Source], order: Sequence[str] | None = None) -> SegmentTable | None:
    """The segments of all sources that are segmented as the first one that is; None without any.

    Args:
        sources: What is on the page.
        order: Names in the order of the rows; by default numbers ascending, else largest first; `OTHER_SEGMENT` last.

    Example:
        >>> segment_table([Source(0, "production", Profile())]) is None
        True
    """
    having = [source for source in sources if source.profile.segments]
    if not having:
        return None
    by = str(having[0].profile.info.get("segment_by"))
    having = [source for source in having if str(source.profile.info.get("segment_by")) == by]
    names = list(_ordered(having) if order is None else order)
    shown = names[:MOST_ROWS] + [name for name in names[MOST_ROWS:] if name == OTHER_SEGMENT]
    streams = _main_streams(having[0].profile)
    by_source = {(s.number, name): _quantiles(s.profile.segments.get(name), streams) for s in having for name in shown}
    spans = {stream: _span(by_source, stream) for stream in streams}
    return SegmentTable(
        by=by,
        legend=tuple((s.number, f"{s.name}, {count(s.profile.n, 'row')}") for s in having),
        columns=tuple(_measure(stream, having[0].profile, spans[stream]) for stream in streams),
        rows=tuple(_row(name, having, streams, by_source, spans) for name in shown),
        rest=f"{count(len(names) - len(shown), 'more segment')} in profile.npz." if len(names) > len(shown) else "",
    )


def _ordered(sources: Sequence[Source]) -> list[str]:
    sizes: dict[str, int] = {}
    for source in sources:
        for name, segment in source.profile.segments.items():
            sizes[name] = sizes.get(name, 0) + segment.n
    named = sorted((name for name in sizes if name != OTHER_SEGMENT), key=lambda name: (-sizes[name], name))
    if len(named) <= MOST_ROWS and all(name.isdecimal() for name in named):
        named.sort(key=int)
    return [*named, *([OTHER_SEGMENT] if OTHER_SEGMENT in sizes else [])]


def _main_streams(profile: Profile) -> list[str]:
    """The streams with a column, by full name."""
    in_segments = {name for segment in profile.segments.values() for name in segment.groups}
    plain = [
        group for name, group in profile.groups.items() if name in in_segments and not name.startswith("embeddings/")
    ]
    every = [(group.name, stream) for group in plain if group.bank is not None for stream in group.streams]
    images = [name for name in dict.fromkeys(name for name, _ in every) if is_images(name)]
    first = {input_of(name): name for name in reversed(images)}
    further = {"raw", *images} - set(first.values()) if images else set()
    groups = {name for name, _ in every} - further
    of_images = len(MAIN) - 1
    wanted_streams = (*MAIN[: max(1, of_images // max(1, len(first)))], *MAIN[of_images:])  # of each image input
    main = [
        (name, stream) for wanted in wanted_streams for name, stream in every if stream == wanted and name in groups
    ]
    return [f"{name}/{stream}" for name, stream in main or every[:_FIRST]]


def _quantiles(segment: Profile | None, streams: Sequence[str]) -> Quantiles:
    quantiles: dict[str, tuple[float, float, float]] = {}
    for group in segment.groups.values() if segment is not None else ():
        names = [f"{group.name}/{stream}" for stream in group.streams]
        if group.bank is None or not group.bank.n or not set(names) & set(streams):
            continue
        values = group.bank.quantiles(_RANKS)
        quantiles |= {name: tuple(map(float, row)) for name, row in zip(names, values, strict=True) if name in streams}  # type: ignore[misc]
    return quantiles


def _span(by_source: Mapping[tuple[int, str], Quantiles], stream: str) -> tuple[float, float]:
    ends = [quantiles[stream] for quantiles in by_source.values() if stream in quantiles]
    return min((low for low, _, _ in ends), default=0.0), max((high for *_, high in ends), default=0.0)


def _measure(stream: str, profile: Profile, span: tuple[float, float]) -> Measure:
    groups = (group for group in profile.groups.values() if stream.startswith(f"{group.name}/"))
    group = max(groups, key=lambda candidate: len(candidate.name), default=None)
    short = stream if group is None else stream.removeprefix(f"{group.name}/")
    camera = "" if group is None else input_of(group.name)
    definition = group.definition(group.definition_of(short)) if group is not None else None
    unit = definition.unit if definition is not None and definition.unit != "1" else ""
    title = f"{stream}: {definition.description}" if definition is not None else stream
    return Measure(
        stream,
        f"{camera} {short.replace('_', ' ')}".strip(),
        unit,
        title,
        interval(*span, significant_decimals(span[1] - span[0])),
    )


def _row(
    name: str,
    sources: Sequence[Source],
    streams: Sequence[str],
    by_source: Mapping[tuple[int, str], Quantiles],
    spans: Mapping[str, tuple[float, float]],
) -> SegmentRow:
    sizes = {s.number: s.profile.segments[name].n if name in s.profile.segments else 0 for s in sources}
    shares = {s.number: sizes[s.number] / max(s.profile.n, 1) for s in sources}
    top = max(
        (segment.n / max(s.profile.n, 1) for s in sources for segment in s.profile.segments.values()), default=1.0
    )
    called = name_shown(name, sources)
    title = f"{called}: " + "; ".join(f"{percent(shares[s.number])} of the rows of {s.name}" for s in sources)
    first, *others = sources
    marks = [(s.number, shares[s.number]) for s in others if sizes[s.number]]
    chart = bar_svg(shares[first.number], marks, top, title, first.number)
    cells = tuple(_cell(name, stream, sources, by_source, spans[stream]) for stream in streams)
    return SegmentRow(called, tuple((s.number, _rows(s.profile, name)) for s in sources), chart, cells)


def name_shown(name: str, sources: Sequence[Source]) -> str:
    """What people call a segment: a class by its name."""
    if sources[0].profile.info.get("segment_by") != LABEL:
        return name
    return shown(name, label_names(*(source.profile.groups for source in sources)))


def _rows(profile: Profile, name: str) -> str:
    """How many rows a segment has; a dash where they would be among those of `OTHER_SEGMENT`."""
    if name in profile.segments:
        return count(profile.segments[name].n)
    return _NONE if OTHER_SEGMENT in profile.segments else "0"


def _cell(
    name: str,
    stream: str,
    sources: Sequence[Source],
    by_source: Mapping[tuple[int, str], Quantiles],
    span: tuple[float, float],
) -> MeasureCell:
    quantiles = [(s, by_source[s.number, name].get(stream)) for s in sources]
    decimals = significant_decimals(span[1] - span[0])
    medians = tuple((s.number, number(q[1], decimals) if q else _NONE) for s, q in quantiles)
    present = [(s, q) for s, q in quantiles if q]
    if not present:
        return MeasureCell(medians, None)
    texts = [f"{s.name} {number(q[1], decimals)} ({interval(q[0], q[2], decimals)})" for s, q in present]
    title = f"{stream} of {name_shown(name, sources)}, median and middle 90%: {'; '.join(texts)}"
    lanes = [(s.number, q) for s, q in quantiles]
    return MeasureCell(medians, ranges_svg(lanes, span, title))
