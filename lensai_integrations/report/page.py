"""What a page says, before it is marked up: facts, sections, definitions. Templates only arrange it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

from lensai_integrations.measures.definitions import Definition
from lensai_integrations.report.classes import ClassChart
from lensai_integrations.report.embeddings import Fan
from lensai_integrations.report.pixels import PixelChart
from lensai_integrations.report.segments import SegmentTable
from lensai_integrations.report.streams import StreamRow


@dataclass(frozen=True)
class Fact:
    """A key fact: a term and what there is to say, a line each."""

    term: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """The answer of a comparison; `tone` is `"good"` or `"bad"`."""

    tone: str
    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Commands:
    """Lines to copy."""

    summary: str
    text: str


@dataclass(frozen=True)
class Column:
    """A further column of a table of streams: its heading, and on hovering what it means."""

    label: str
    title: str


@dataclass(frozen=True)
class Folded:
    """A table that is unfolded on demand."""

    summary: str
    note: str
    rows: tuple[StreamRow, ...]


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        title: Its heading.
        lead: Sentences above all else.
        points: A list below them.
        legend: Colour number and text of each source.
        legend_note: A remark on the numbers.
        columns: What the `extra` texts of the rows are.
        rows: A table of streams.
        pixels: Pixel distributions.
        charts: Bars of classes.
        charts_title: What stands above them.
        fans: Overviews of layers.
        folded: Further tables, unfolded on demand.
        segments: A table of segments.
    """

    title: str
    lead: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    legend: tuple[tuple[int, str], ...] = ()
    legend_note: str = ""
    columns: tuple[Column, ...] = ()
    rows: tuple[StreamRow, ...] = ()
    pixels: tuple[PixelChart, ...] = ()
    charts: tuple[ClassChart, ...] = ()
    charts_title: str = "Classes"
    fans: tuple[Fan, ...] = ()
    folded: tuple[Folded, ...] = ()
    segments: SegmentTable | None = None


@dataclass(frozen=True)
class Page:
    """Everything the template needs."""

    kind: str
    headline: str
    made: str
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]
    definitions: tuple[Definition, ...]
    use_title: str
    use: str
    commands: tuple[Commands, ...] = ()
    warnings: tuple[str, ...] = ()
    warning_noun: str = "warning"
    verdict: Verdict | None = None
    footer: str = f"Made by lensai-integrations {version('lensai-integrations')}. Sketches only: no image is kept."


def when(text: str) -> str:
    """An ISO time as people write it, to the minute; anything else as it is.

    Example:
        >>> when("2026-03-01T09:05:59+00:00"), when("yesterday")
        ('2026-03-01 09:05 UTC', 'yesterday')
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".strip()
