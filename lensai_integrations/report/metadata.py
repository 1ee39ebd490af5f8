"""What came with delivered images, in one section: numbers as rows of a table, categories as bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lensai_integrations.profiling.raw_rows import METADATA
from lensai_integrations.report.classes import ClassChart, Series, class_charts
from lensai_integrations.report.page import Section
from lensai_integrations.report.streams import Source, StreamRow, parts_of, stream_rows


def metadata_section(sources: Sequence[Source], names: Iterable[str]) -> Section | None:
    """The groups of metadata among these, or None.

    Example:
        >>> metadata_section([], ["inputs"]) is None
        True
    """
    rows: list[StreamRow] = []
    charts: list[ClassChart] = []
    for name in names:
        if not name.startswith(METADATA):
            continue
        parts, short = parts_of(sources, name), name.removeprefix(METADATA)
        rows += [replace(row, name=short, extra=()) for row in stream_rows(parts)]
        known = [(part, sketch) for part in parts for sketch in part.group.categories.values() if sketch.n]
        series = [Series(part.source, part.source, part.number, sketch) for part, sketch in known]
        charts += [replace(chart, noun=short) for chart in class_charts(series)]
    if not rows and not charts:
        return None
    lead = ("What came with the images, where it was known: a file's, or what functions of yours gave.",)
    legend = tuple((source.number, source.name) for source in sources) if rows else ()
    return Section("Metadata", lead, legend=legend, rows=tuple(rows), charts=tuple(charts), charts_title="")
