"""What a page says, before it is marked up: facts, sections, definitions. Templates only arrange it.

The sections that both pages share are made here: inputs, outputs with labels, embeddings, metadata that came with
delivered images (numbers as rows of a table, categories as bars), and whatever other groups there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from lensai_integrations.measures.definitions import Definition
from lensai_integrations.measures.outputs import PER_IMAGE
from lensai_integrations.profiles.archive import RELEASE
from lensai_integrations.profiles.conventions import is_images, kept_apart, title_of
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import LABELS, OUTPUTS, group_of, head_of, is_labels, is_outputs
from lensai_integrations.profiling.raw_rows import METADATA
from lensai_integrations.profiling.sampling import SAMPLED
from lensai_integrations.report.accuracy import AccuracyTable
from lensai_integrations.report.segments import SegmentTable, segment_table
from lensai_integrations.report.streams import (
    NOTABLE_GAP,
    ClassChart,
    Fan,
    PixelChart,
    Series,
    Source,
    SourceShare,
    StreamRow,
    class_charts,
    class_series,
    fan,
    gap_sentence,
    parts_of,
    pixel_charts,
    stream_rows,
)
from lensai_integrations.report.words import count


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
        accuracy: Tables of how accurate an answer is.
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
    accuracy: AccuracyTable | None = None


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
    footer: str = f"Made by lensai-integrations {RELEASE}. Sketches only: no image is kept."


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
        sketches = [(share, sketch) for share in parts for sketch in share.group.categories.values() if sketch.n]
        series = [Series(share.source, share.source, share.number, sketch) for share, sketch in sketches]
        charts += [replace(chart, noun=short) for chart in class_charts(series)]
    if not rows and not charts:
        return None
    lead = ("What came with the images, where it was known: a file's, or what functions of yours gave.",)
    legend = tuple((source.number, source.name) for source in sources) if rows else ()
    return Section("Metadata", lead, legend=legend, rows=tuple(rows), charts=tuple(charts), charts_title="")


#: Streams per class or value that are shown without being unfolded, and at all.
MOST_OPEN, MOST_FOLDED = 6, 50
#: Streams of outputs that come one per class or column.
_PER_COLUMN = ("softmax/", "probability/", "value/")
#: What outputs are, in words.
KINDS = {
    "multilabel_logits": "logits of several labels at once",
    "multilabel_probabilities": "probabilities of several labels at once",
}
_EACH = {"softmax": "Probability of each class", "probability": "Probability of each label"}
_EMBEDDINGS = "embeddings/"
_GAP = Column("gap", "Largest distance of the two cumulative distributions (Kolmogorov-Smirnov): 0 the same, 1 apart")


def data_sections(sources: Sequence[Source]) -> list[Section]:
    """The sections of everything the sources hold: inputs, outputs, labels, embeddings, then what else there is."""
    names = list(dict.fromkeys(name for source in sources for name in source.profile.groups))
    apart = (_EMBEDDINGS, METADATA)
    answers = {name for name in names if is_labels(name) or (is_outputs(name) and not _of_device(sources, name))}
    plain = [name for name in names if name not in answers and not name.startswith(apart)]
    heads = dict.fromkeys(head_of(name) for name in names if name in answers)
    sections = [stream_section(sources, name) for name in plain]
    sections += [metadata_section(sources, names)]
    sections += [outputs_section(sources, head) for head in heads]
    sections += [embeddings_section(sources, names), segments_section(sources)]
    return [section for section in sections if section is not None]


def stream_section(sources: Sequence[Source], name: str) -> Section | None:
    """A group as a table of its streams, and its pixel distributions."""
    parts = parts_of(sources, name)
    rows, pixels = stream_rows(parts), pixel_charts(parts)
    if not rows and not pixels:
        return None
    lead = _nonempty((_note(parts), *_gap_sentences(rows, sources)))
    base = Section(
        title_of(name, [share.group for share in parts]),
        lead,
        legend=legend(parts),
        rows=tuple(rows),
        pixels=tuple(pixels),
    )
    return _with_gaps(base, rows)


def _of_device(sources: Sequence[Source], name: str) -> bool:
    return any(kept_apart(share.group) for share in parts_of(sources, name))


def outputs_section(sources: Sequence[Source], head: str = "") -> Section | None:
    """Confidences, predicted classes and labels, and on demand the probability of each class."""
    parts, labels = (parts_of(sources, group_of(kind, head)) for kind in (OUTPUTS, LABELS))
    charts = class_charts(class_series(sources, head))
    if not parts and not charts and not labels:
        return None
    names = list(dict.fromkeys(stream for share in parts for stream in share.group.streams))
    per_column = [name for name in names if name.startswith(_PER_COLUMN)]
    span = axis(parts)
    main = stream_rows(parts, set(names) - set(per_column), span)
    shown = stream_rows(parts, set(_first_columns(parts, per_column)), span)
    label_rows = [replace(row, name=f"labels/{row.name}") for row in stream_rows(labels)]
    named = [*parts] if parts else [*labels]
    unnamed = {cell.number for row in label_rows for cell in row.cells} - {share.number for share in named}
    named += [share for share in labels if share.number in unnamed]
    folded = _folded_columns(shown, len(per_column)) if len(per_column) > MOST_OPEN else ()
    if len(label_rows) > MOST_OPEN:
        many = label_rows[:MOST_FOLDED]
        folded = (*folded, Folded("Each value of the labels", count(len(label_rows), "stream"), tuple(many)))
        label_rows = []
    rows = (*main, *([] if folded else shown), *label_rows)
    base = Section(
        title=title_of(group_of(OUTPUTS if parts else LABELS, head)),
        lead=_nonempty((_outputs_read(parts), *_gap_sentences([*rows, *shown], sources))),
        legend=legend(named),
        rows=rows,
        charts=tuple(charts),
        folded=folded,
    )
    return _with_gaps(base, [*rows, *shown])


def embeddings_section(sources: Sequence[Source], names: Iterable[str]) -> Section | None:
    """One fan per layer."""
    fans = [fan(parts_of(sources, name)) for name in names if name.startswith(_EMBEDDINGS)]
    if not fans:
        return None
    lead = [
        "Each layer's dimensions side by side, sorted by their median. "
        "The bands hold 50%, 90% and 98% of the rows; the line is the median."
    ]
    if any(name.startswith(_EMBEDDINGS) and len(parts_of(sources, name)) > 1 for name in names):
        lead.append(f"The lines over them are the 5%, 50% and 95% quantiles of {sources[1].name}.")
    return Section("Embeddings", tuple(lead), fans=tuple(fans))


def segments_section(sources: Sequence[Source]) -> Section | None:
    """A table of the segments."""
    table = segment_table(sources)
    return None if table is None else Section("Segments", (segments_read(table),), segments=table)


def segments_read(table: SegmentTable) -> str:
    """How to read the table, in a sentence or two."""
    marks = ", as marks those of the other source" if len(table.legend) > 1 else ""
    ranges = " Under each median lies the middle 90% of the rows, on one axis per column." if table.columns else ""
    return f"The same rows by {table.by}. Bars are shares of all rows{marks}.{ranges}"


def definitions_used(sources: Sequence[Source]) -> tuple[Definition, ...]:
    """The definitions behind all streams, in the order of their first use; unknown ones by their id alone."""
    groups = [group for source in sources for group in source.profile.groups.values()]
    definitions: dict[str, Definition | None] = {}
    for group in groups:
        definitions |= group.known(id for id in group.definitions.values() if definitions.get(id) is None)
    return tuple(definition or _unknown(id) for id, definition in definitions.items())


def rows_noun(groups: Iterable[str]) -> str:
    """What a row is: an image where images were measured, else a row.

    Example:
        >>> rows_noun(["inputs", "outputs"]), rows_noun(["outputs"])
        ('image', 'row')
    """
    return "image" if any(name == "raw" or is_images(name) for name in groups) else "row"


def _unknown(id: str) -> Definition:
    try:
        return Definition(id, id.rpartition("/")[2].partition("@")[0], "", "", "", "declared elsewhere")
    except ValueError:
        return Definition("unknown/unknown@1", id, "", "", "", "not a definition id")


def _nonempty(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text for text in texts if text)


def axis(parts: Sequence[SourceShare]) -> tuple[float, float] | None:
    """Ends of a group's histograms: probabilities and confidences are all drawn from 0 to 1, so that they compare."""
    sure = parts and all("top_class" in p.group.categories or PER_IMAGE in p.group.streams for p in parts)
    return (0.0, 1.0) if sure and all(is_outputs(share.group.name) for share in parts) else None


def legend(parts: Sequence[SourceShare]) -> tuple[tuple[int, str], ...]:
    """Colour number, name and rows of each source."""
    return tuple((share.number, f"{share.source}, {_rows(share.group)}") for share in parts)


def _rows(group: Group) -> str:
    left_out = f", {count(group.invalid)} left out" if group.invalid else ""
    noun = rows_noun([group.name])
    if group.info.get(SAMPLED):
        return f"{count(group.n)} of {count(group.seen, noun)}{left_out}"
    return count(group.n, noun) + left_out


def _with_gaps(section: Section, rows: Sequence[StreamRow]) -> Section:
    """The section with a column for gaps, if there are any."""
    if all(row.gap is None for row in rows):
        return section
    note = f"gap: Kolmogorov–Smirnov distance, 0 to 1, bold from {NOTABLE_GAP}"
    return replace(section, legend_note=note, columns=(_GAP,))


def _note(parts: Sequence[SourceShare]) -> str:
    """How batches were read, where the sources differ in it."""
    notes = {str(share.group.info["note"]): share.source for share in parts if share.group.info.get("note")}
    if len(notes) <= 1:
        return ""
    return "Read as " + "; ".join(f"{note} ({source})" for note, source in notes.items()) + "."


def _outputs_read(parts: Sequence[SourceShare]) -> str:
    if not parts:
        return ""
    info = parts[0].group.info
    if not info.get("kind"):
        return ""
    layer = f"of layer {info['layer']} " if info.get("layer") else ""
    why = f": {info['why']}" if info.get("why") else ""
    text = str(info.get("found", "")).rstrip(".")
    evidence = f" {text[:1].upper()}{text[1:]}." if text else ""
    return f"Outputs {layer}read as {KINDS.get(info['kind'], info['kind'])}{why}.{evidence}"


def _gap_sentences(rows: Sequence[StreamRow], sources: Sequence[Source]) -> list[str]:
    return [gap_sentence(rows, sources[0].name, sources[1].name)] if len(sources) > 1 else []


def _first_columns(parts: Sequence[SourceShare], names: Sequence[str]) -> list[str]:
    """The streams of the most often predicted classes, as many as are shown, in their own order."""
    if len(names) <= MOST_FOLDED:
        return list(names)
    sketch = parts[0].group.categories.get("top_class")
    frequent = [f"softmax/{name}" for name, _ in sketch.top(MOST_FOLDED)] if sketch is not None else []
    chosen = set(dict.fromkeys([*(name for name in frequent if name in set(names)), *names][:MOST_FOLDED]))
    return [name for name in names if name in chosen]


def _folded_columns(rows: Sequence[StreamRow], total: int) -> tuple[Folded, ...]:
    if not rows:
        return ()
    what = _EACH.get(rows[0].name.partition("/")[0], "Each value")
    note = count(total, "stream")
    if total > len(rows):
        first = "the classes predicted most often" if rows[0].name.startswith("softmax/") else "the first"
        note = f"{count(len(rows))} of {note}, {first}; all are in streams.csv"
    return (Folded(what, note, tuple(rows)),)
