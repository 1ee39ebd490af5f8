"""The rows of a table of streams: name, histogram, median, range, and how far the second source is from the first.

Works on groups of any profiles: validation and training in a baseline's report, baseline and window in a drift report.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from lensai_integrations.measures.outputs import PER_IMAGE
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import class_names, name_of
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.report.histogram import Distribution, Histogram, bank_distributions, gap, histogram
from lensai_integrations.report.plots import histogram_svg
from lensai_integrations.report.words import interval, listing, number, percent, significant_decimals

#: From here on a gap is printed in bold: well above what two samples of a few hundred rows differ by.
NOTABLE_GAP = 0.1
#: Colours of the channels 0, 1, 2 by convention.
CHANNELS = {"lensai": ("red", "green", "blue"), "lensai-edge": ("blue", "green", "red")}


@dataclass(frozen=True)
class Source:
    """A profile on a page.

    Attributes:
        number: 0 is drawn filled, 1 as an outline.
        name: What the reader calls it, e.g. `"validation"`.
        profile: What it holds.
    """

    number: int
    name: str
    profile: Profile

    def group(self, name: str) -> SourceShare | None:
        """This source's group of that name, if it has one."""
        group = self.profile.groups.get(name)
        return None if group is None else SourceShare(self.number, self.name, group)


@dataclass(frozen=True)
class SourceShare:
    """One source's share of a section."""

    number: int
    source: str
    group: Group


@dataclass(frozen=True)
class Cell:
    """The numbers of one source in a row."""

    number: int
    source: str
    median: str
    range: str


@dataclass(frozen=True)
class StreamRow:
    """A row of the table: texts and a finished drawing.

    Attributes:
        name: The stream.
        note: A channel's colour.
        unit: Of the numbers; empty for pure ones.
        description: What the measure tells.
        chart: The histogram; None without rows.
        low, high: Ends of its axis; empty where the stream is constant.
        cells: The numbers of each source.
        gap: Kolmogorov-Smirnov distance of the first two; None where there is no second.
        notable: Whether the row is worth a second look.
        extra: Texts of further columns.
        tag: A word beside the name.
        words: A sentence below it.
    """

    name: str
    note: str
    unit: str
    description: str
    chart: Markup | None
    low: str
    high: str
    cells: tuple[Cell, ...]
    gap: float | None
    notable: bool
    extra: tuple[str, ...]
    tag: str = ""
    words: str = ""


def parts_of(sources: Sequence[Source], name: str) -> list[SourceShare]:
    """The parts of a group that the sources have."""
    return [part for source in sources if (part := source.group(name)) is not None]


def stream_rows(
    parts: Sequence[SourceShare], wanted: Collection[str] | None = None, span: tuple[float, float] | None = None
) -> list[StreamRow]:
    """One row per stream of the groups' banks, in the order of the first that has it.

    Args:
        parts: The same group of several sources.
        wanted: Streams to show; None shows all.
        span: Ends of every histogram's axis; None decides for each stream.
    """
    found: dict[str, list[tuple[SourceShare, Distribution]]] = {}
    for part in _each_bank(parts):
        if part.group.bank is None:
            continue
        columns = [c for c, stream in enumerate(part.group.streams) if wanted is None or stream in wanted]
        for column, distribution in zip(columns, bank_distributions(part.group.bank, columns), strict=True):
            found.setdefault(part.group.streams[column], []).append((part, distribution))
    return [_row(stream, entries, span) for stream, entries in found.items()]


def _each_bank(parts: Sequence[SourceShare]) -> list[SourceShare]:
    """The parts, and behind each one for every custom measure it has."""
    return [replace(part, group=each) for part in parts for each in (part.group, *part.group.apart.values())]


def gap_sentence(rows: Sequence[StreamRow], first: str, second: str) -> str:
    """Which streams of the second source are off, in words; empty when there is nothing to compare.

    Example:
        >>> gap_sentence([], "validation", "training")
        ''
    """
    compared = sorted((row for row in rows if row.gap is not None), key=lambda row: -(row.gap or 0.0))
    if not compared:
        return ""
    notable = [f"{row.name} ({row.gap:.2f})" for row in compared if row.notable]
    if not notable:
        return f"{second} and {first} look alike: no gap is {NOTABLE_GAP} or more.".capitalize()
    return f"{second} differs from {first} most in {listing(notable, 4)}.".capitalize()


def _row(
    stream: str, entries: Sequence[tuple[SourceShare, Distribution]], span: tuple[float, float] | None
) -> StreamRow:
    part = entries[0][0]
    distributions = [distribution for _, distribution in entries]
    drawn = histogram(distributions, None if stream == PER_IMAGE else span)
    known = part.group.definition(part.group.definition_of(stream))
    decimals = _decimals(distributions)
    cells = tuple(_cell(p, d, decimals) for p, d in entries)
    low, high = ("", "") if drawn is None else _ends(drawn)
    numbers = [part.number for part, _ in entries]
    between = gap(*distributions[:2]) if len(entries) > 1 else None
    return StreamRow(
        name=stream,
        note=_channel(stream, part.group),
        unit=known.unit if known and known.unit != "1" else "",
        description=known.description if known else "",
        chart=None if drawn is None else histogram_svg(drawn, _title(stream, entries, drawn), numbers),
        low=low,
        high=high,
        cells=cells,
        gap=between,
        notable=between is not None and between >= NOTABLE_GAP,
        extra=("" if between is None else f"{between:.2f}",),
    )


def _decimals(distributions: Sequence[Distribution]) -> int | None:
    spreads = [d.quantile(0.95) - d.quantile(0.05) for d in distributions if not d.empty]
    widest = max(spreads, default=0.0)
    return significant_decimals(widest) if widest > 0 else None


def _cell(part: SourceShare, d: Distribution, decimals: int | None) -> Cell:
    if d.empty:
        return Cell(part.number, part.source, "no rows", "")
    middle = number(d.quantile(0.5), decimals)
    return Cell(part.number, part.source, middle, interval(d.quantile(0.05), d.quantile(0.95), decimals))


def _ends(drawn: Histogram) -> tuple[str, str]:
    low, high = drawn.span
    if low == high:
        return "", ""
    decimals = 0 if low.is_integer() and high.is_integer() else max(significant_decimals(high - low) - 1, 0)
    return number(low, decimals), number(high, decimals)


def _title(stream: str, entries: Sequence[tuple[SourceShare, Distribution]], drawn: Histogram) -> str:
    low, high = drawn.span
    outside = [
        f"{part.source}: {percent(below)} of the rows lower, {percent(above)} higher"
        for (part, _), below, above in zip(entries, drawn.below, drawn.above, strict=True)
        if below + above > 0
    ]
    extent = f"always {number(low)}" if low == high else f"drawn from {number(low)} to {number(high)}"
    return "; ".join([f"Histogram of {stream}, {extent}", *outside])


def _channel(stream: str, group: Group) -> str:
    """The colour of a channel's stream such as `mean/0`, the class of one such as `softmax/0`; else empty."""
    if name := name_of(stream, class_names(group)):
        return name
    colours = CHANNELS.get(str(group.info.get("convention")), ())
    measure, _, index = stream.rpartition("/")
    if not measure or f"{measure}/2" not in group.streams or f"{measure}/4" in group.streams:
        return ""
    return dict(zip("012", colours, strict=False)).get(index, "")
