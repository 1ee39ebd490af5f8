"""What is drawn of streams, for one source or two: validation and training of a baseline, or baseline and window.

A numeric stream is a row of a table: its histogram, median, range, and how far the second source is from the first.
Pixel values are a small chart per channel in the channel's colour. Classes are bars, of how often each was predicted,
with marks for how often it was the label.

An embedding is one picture, the quantiles of all its dimensions as a fan, for nobody reads 512 histograms. Sorted by
median, the dimensions show at one glance whether a layer is dead, one-sided, saturated, or ruled by a few of its
dimensions; the numbers beside it count those cases.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from lensai_integrations.measures.outputs import PER_IMAGE
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import LABELS as TRUTHS
from lensai_integrations.profiles.names import OUTPUTS, class_names, group_of, name_of, shown
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.report.plots import (
    Distribution,
    Histogram,
    bands_svg,
    bank_distributions,
    bar_svg,
    count_distribution,
    gap,
    histogram,
    histogram_svg,
)
from lensai_integrations.report.words import count, interval, listing, number, percent, significant_decimals
from lensai_integrations.sketches.categories import Categories

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
    return [share for source in sources if (share := source.group(name)) is not None]


def stream_rows(
    parts: Sequence[SourceShare], wanted: Collection[str] | None = None, span: tuple[float, float] | None = None
) -> list[StreamRow]:
    """One row per stream of the groups' banks, in the order of the first that has it.

    Args:
        parts: The same group of several sources.
        wanted: Streams to show; None shows all.
        span: Ends of every histogram's axis; None decides for each stream.
    """
    by_stream: dict[str, list[tuple[SourceShare, Distribution]]] = {}
    for share in _each_bank(parts):
        if share.group.bank is None:
            continue
        columns = [c for c, stream in enumerate(share.group.streams) if wanted is None or stream in wanted]
        for column, distribution in zip(columns, bank_distributions(share.group.bank, columns), strict=True):
            by_stream.setdefault(share.group.streams[column], []).append((share, distribution))
    return [_row(stream, entries, span) for stream, entries in by_stream.items()]


def _each_bank(parts: Sequence[SourceShare]) -> list[SourceShare]:
    """The parts, and behind each one for every custom measure it has."""
    return [replace(share, group=group) for share in parts for group in (share.group, *share.group.apart.values())]


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
    share = entries[0][0]
    distributions = [distribution for _, distribution in entries]
    drawn = histogram(distributions, None if stream == PER_IMAGE else span)
    definition = share.group.definition(share.group.definition_of(stream))
    decimals = _decimals(distributions)
    cells = tuple(_cell(p, d, decimals) for p, d in entries)
    low, high = ("", "") if drawn is None else _ends(drawn)
    numbers = [share.number for share, _ in entries]
    between = gap(*distributions[:2]) if len(entries) > 1 else None
    return StreamRow(
        name=stream,
        note=_channel(stream, share.group),
        unit=definition.unit if definition and definition.unit != "1" else "",
        description=definition.description if definition else "",
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


def _cell(share: SourceShare, d: Distribution, decimals: int | None) -> Cell:
    if d.empty:
        return Cell(share.number, share.source, "no rows", "")
    middle = number(d.quantile(0.5), decimals)
    return Cell(share.number, share.source, middle, interval(d.quantile(0.05), d.quantile(0.95), decimals))


def _ends(drawn: Histogram) -> tuple[str, str]:
    low, high = drawn.span
    if low == high:
        return "", ""
    decimals = 0 if low.is_integer() and high.is_integer() else max(significant_decimals(high - low) - 1, 0)
    return number(low, decimals), number(high, decimals)


def _title(stream: str, entries: Sequence[tuple[SourceShare, Distribution]], drawn: Histogram) -> str:
    low, high = drawn.span
    outside = [
        f"{share.source}: {percent(below)} of the rows lower, {percent(above)} higher"
        for (share, _), below, above in zip(entries, drawn.below, drawn.above, strict=True)
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


#: Drawing height, and bars over the 256 values.
HEIGHT, BARS = 70.0, 64


@dataclass(frozen=True)
class PixelCell:
    """The numbers of one source under a pixel distribution: median, and how much is clipped at either end."""

    number: int
    source: str
    median: str
    at_low: str
    at_high: str


@dataclass(frozen=True)
class PixelChart:
    """The pixel distribution of one channel.

    Attributes:
        name: `"red"`, `"green"`, `"blue"`, `"alpha"` or `"channel 0"`.
        tint: The colour it is drawn in; empty for the usual one.
        chart: The histogram; None without pixels.
        rows: The numbers of each source.
    """

    name: str
    tint: str
    chart: Markup | None
    rows: tuple[PixelCell, ...]


def pixel_charts(parts: Sequence[SourceShare]) -> list[PixelChart]:
    """One chart per channel of the groups' pixel counts; beside these, what a device has sketched of its pixels.

    Example:
        >>> pixel_charts([])
        []
    """
    channels = max((share.group.pixels.channels for share in parts if share.group.pixels is not None), default=0)
    return [_pixel_chart(parts, channel, channels) for channel in range(channels)]


def _pixels(group: Group, channel: int) -> Distribution | None:
    """The pixel values of a channel; None if the group has none."""
    if group.pixels is not None:
        return count_distribution(group.pixels.counts[channel]) if channel < group.pixels.channels else None
    sketched = group.own(f"pixel/{channel}")
    return bank_distributions(sketched.bank)[0] if sketched is not None and sketched.bank is not None else None


def _pixel_chart(parts: Sequence[SourceShare], channel: int, channels: int) -> PixelChart:
    entries = [(share, d) for share in parts if (d := _pixels(share.group, channel)) is not None]
    colours = CHANNELS.get(str(entries[0][0].group.info.get("convention", "lensai")), ())
    tint = colours[channel] if channels in (3, 4) and channel < len(colours) else ""
    name = tint or ("alpha" if channels == 4 else f"channel {channel}")
    drawn = histogram([d for _, d in entries], (-0.5, 255.5), BARS)
    if drawn is None:
        return PixelChart(name, tint, None, tuple(_pixel_cell(*entry) for entry in entries))
    numbers = [share.number for share, _ in entries]
    chart = histogram_svg(drawn, f"Pixel values of {name}, 0 to 255", numbers, HEIGHT, top=_inner_top(drawn))
    return PixelChart(name, tint, chart, tuple(_pixel_cell(*entry) for entry in entries))


def _inner_top(drawn: Histogram) -> float:
    """Height of the axis: clipped pixels pile up in the outer bars, which must not flatten all others."""
    inner = max(float(shares[1:-1].max()) for shares in drawn.shares)
    return 1.15 * inner or max(float(shares.max()) for shares in drawn.shares)


def _pixel_cell(share: SourceShare, d: Distribution) -> PixelCell:
    if d.empty:
        return PixelCell(share.number, share.source, "no pixels", "", "")
    at = [percent(float(d.weights[d.values == value].sum() / d.weights.sum())) for value in (0, 255)]
    return PixelCell(share.number, share.source, number(d.quantile(0.5), 0), *at)


Floats = NDArray[np.float64]

#: Points across a fan; wider embeddings are drawn as means of neighbouring dimensions.
MOST_POINTS = 160
CURVE_HEIGHT = 130.0
_RANKS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_CONSTANT = "Dimensions that had the same value for every row: they carry nothing."
_SPREAD = "Distance from the 5% to the 95% quantile: the narrowest, the widest and the median dimension."
_EFFECTIVE = "Participation ratio of the covariance C, (tr C)² / tr C²: how many dimensions share the variance."
_LOWEST, _LOW, _QUARTER, _MIDDLE, _THREE_QUARTERS, _HIGH, _HIGHEST = range(7)


@dataclass(frozen=True)
class FanFact:
    """A number beside a fan, and on hovering what it means."""

    term: str
    text: str
    title: str = ""


@dataclass(frozen=True)
class Fan:
    """The overview of one layer.

    Attributes:
        name: The layer.
        read: How its output was read, in words.
        chart: The fan, or None when there are no rows.
        low, high: Ends of the y axis.
        caption: What the x axis is.
        facts: What can be counted, e.g. constant dimensions.
    """

    name: str
    read: str
    chart: Markup | None
    low: str
    high: str
    caption: str
    facts: tuple[FanFact, ...]


def fan(parts: Sequence[SourceShare]) -> Fan:
    """The overview of one layer, from its group in every source that has it. The dimensions are sorted by the first."""
    group = parts[0].group
    name = str(group.info.get("layer") or group.name.removeprefix("embeddings/"))
    if group.bank is None or group.bank.n == 0:
        return Fan(name, reading(group), None, "", "", "", (FanFact("rows", "no rows"),))
    quantiles = _quantiles(group)
    order = np.argsort(quantiles[:, _MIDDLE], kind="stable")
    others = [_quantiles(share.group)[order] for share in parts[1:] if _matches(share.group, group)]
    low, high = _axis([quantiles, *others])
    decimals = significant_decimals(high - low)
    width = group.bank.dim
    caption = f"{count(width, 'dimension')}, sorted by median" + _averaged(width)
    return Fan(
        name=name,
        read=reading(group),
        chart=_draw(quantiles[order], others, low, high, f"Quantiles of {caption}: {name}"),
        low=number(low, decimals),
        high=number(high, decimals),
        caption=caption,
        facts=tuple(_facts(parts, quantiles)),
    )


def reading(group: Group) -> str:
    """How a layer's output became rows, in words.

    Example:
        >>> reading(Group("embeddings/conv", info={"width": 512, "reduce": "mean", "axes": 4}))
        '512 wide, reduced by mean'
    """
    info = group.info
    texts = [f"{count(int(info['width']))} wide"] if info.get("width") else []
    texts += [f"reduced by {info['reduce']}"] if info.get("reduce") and info.get("axes") != 2 else []
    if info.get("projected_from"):
        texts.append(f"projected at random from {count(int(info['projected_from']))}, seed {info.get('seed')}")
    return ", ".join(texts)


def _quantiles(group: Group) -> Floats:
    assert group.bank is not None
    return np.asarray(group.bank.quantiles(np.array(_RANKS)), np.float64)


def _matches(group: Group, first: Group) -> bool:
    bank = group.bank
    return bank is not None and bank.n > 0 and group.streams == first.streams


def _averaged(width: int) -> str:
    per_point = -(-width // MOST_POINTS)
    return f"; each point is the mean of {per_point}" if per_point > 1 else ""


def _axis(all_quantiles: Sequence[Floats]) -> tuple[float, float]:
    """Ends of the y axis: dimensions a hundred times as wide as the others are cut off, not the others flattened."""
    low = min(float(np.quantile(q[:, _LOW], 0.01)) for q in all_quantiles)
    high = max(float(np.quantile(q[:, _HIGH], 0.99)) for q in all_quantiles)
    if not high > low:
        return low - 0.5, high + 0.5
    margin = 0.04 * (high - low)
    return (0.0 if 0 <= low < high / 4 else low - margin), high + margin


def _draw(quantiles: Floats, others: Sequence[Floats], low: float, high: float, title: str) -> Markup:
    ys = (_thinned(quantiles) - low) / (high - low)
    pairs = (("f1", _LOWEST, _HIGHEST), ("f2", _LOW, _HIGH), ("f3", _QUARTER, _THREE_QUARTERS))
    bands = [(name, ys[:, a], ys[:, b]) for name, a, b in pairs]
    curves = [("fm", ys[:, _MIDDLE])]
    if low < 0 < high:
        curves.insert(0, ("zero", np.full(2, -low / (high - low))))
    for second in others[:1]:
        over = (_thinned(second) - low) / (high - low)
        curves += [("s1", over[:, column]) for column in (_LOW, _MIDDLE, _HIGH)]
    return bands_svg(bands, curves, title, CURVE_HEIGHT)


def _thinned(quantiles: Floats) -> Floats:
    """At most `MOST_POINTS` rows: means of neighbours."""
    per_point = -(-len(quantiles) // MOST_POINTS)
    starts = np.arange(0, len(quantiles), per_point)
    sums = np.add.reduceat(quantiles, starts, axis=0)
    return sums / np.diff([*starts, len(quantiles)])[:, None]


def _facts(parts: Sequence[SourceShare], quantiles: Floats) -> list[FanFact]:
    group = parts[0].group
    bank = group.bank
    assert bank is not None
    constant = np.flatnonzero(np.asarray(bank.min) == np.asarray(bank.max))
    named = f": {listing([group.streams[i] for i in constant], 6)}" if constant.size else ""
    spread = quantiles[:, _HIGH] - quantiles[:, _LOW]
    ends = interval(float(spread.min()), float(spread.max()))
    facts = [
        FanFact("rows", ", ".join(f"{share.source} {count(share.group.n)}" for share in parts)),
        FanFact("constant dimensions", f"{count(constant.size)} of {count(bank.dim)}{named}", _CONSTANT),
        FanFact("spread", f"{ends}, median {number(float(np.median(spread)))}", _SPREAD),
    ]
    effective = effective_dimensions(group)
    if effective is not None:
        facts.append(FanFact("effective dimensions", f"{number(effective, 1)} of {count(bank.dim)}", _EFFECTIVE))
    return facts


def effective_dimensions(group: Group) -> float | None:
    """Participation ratio of the covariance C, (tr C)^2 / tr C^2: over how many dimensions the variance is spread.

    None where no covariance is kept or nothing varies. Source: Gao et al., A theory of multineuronal dimensionality,
    dynamics and measurement, 2017, equation 3.
    """
    moments = group.moments
    covariance: Any = None if moments is None else moments.covariance
    if covariance is None or not np.isfinite(covariance).all():
        return None
    total = float(np.square(covariance).sum())
    return float(np.trace(covariance)) ** 2 / total if total > 0 else None


#: Classes with a bar of their own.
MOST_CLASSES = 20
#: How many heavy hitters are asked for.
_ASKED = 4096
#: Marks take the colours after the sources' own.
LABELS = 2


@dataclass(frozen=True)
class Series:
    """One sequence of categories.

    Attributes:
        name: Of the sequence.
        heading: A short one.
        colour: Its number.
        sketch: The counts.
        names: What classes are called.
        rows: Of how many rows the counts are, where that is not their sum: a row may have several labels.
    """

    name: str
    heading: str
    colour: int
    sketch: Categories
    names: tuple[str, ...] = ()
    rows: int = 0

    @classmethod
    def of(cls, name: str, heading: str, colour: int, group: Group, stream: str = "") -> Series:
        """The categories of a group."""
        rows = group.n if PER_IMAGE in group.streams else 0
        return cls(name, heading, colour, group.categories[stream], class_names(group), rows)


@dataclass(frozen=True)
class ClassRow:
    """One class: its bar and a percentage per series."""

    name: str
    chart: Markup
    shares: tuple[str, ...]


@dataclass(frozen=True)
class ClassChart:
    """Bars of the first series and marks of the others, over the same classes.

    Attributes:
        legend: Colour number and name of each series.
        columns: A short heading for each series.
        rows: The classes, in numeric order if they are numbers and few, else the most frequent first.
        rest: What was left out, in words.
        noun: What a row is.
    """

    legend: tuple[tuple[int, str], ...]
    columns: tuple[str, ...]
    rows: tuple[ClassRow, ...]
    rest: str
    noun: str = "class"


def class_series(sources: Sequence[Source], head: str = "") -> list[Series]:
    """Predicted classes and labels of the first source, labels of the second."""
    entries: list[Series] = []
    for share in parts_of(sources[:1], group_of(OUTPUTS, head)):
        name = f"predicted, {share.source}"
        entries += [Series.of(name, "predicted", 0, share.group, key) for key in share.group.categories if key]
    for share in parts_of(sources, group_of(TRUTHS, head)):
        colour, heading = (LABELS, "labels") if share.number == 0 else (share.number, f"{share.source} labels")
        name = f"labels, {share.source}"
        entries += [Series.of(name, heading, colour, share.group, key) for key in share.group.categories]
    return [series for series in entries if series.sketch.n]


def class_charts(series: Sequence[Series]) -> list[ClassChart]:
    """One chart; or several, when the predicted classes and the labels have no name in common."""
    tables = [{shown(label, s.names): n for label, n in s.sketch.top(_ASKED)} for s in series]
    charts: list[list[int]] = []
    for position, table in enumerate(tables):
        fitting = next((chart for chart in charts if tables[chart[0]].keys() & table.keys()), None)
        if fitting is None:
            charts.append([position])
        else:
            fitting.append(position)
    return [_chart([series[i] for i in chart], [tables[i] for i in chart]) for chart in charts]


def _chart(series: Sequence[Series], tables: Sequence[Mapping[str, int]]) -> ClassChart:
    totals = [s.rows or max(s.sketch.n, 1) for s in series]
    shares = [{name: n / total for name, n in t.items()} for t, total in zip(tables, totals, strict=True)]
    names = sorted({name for table in tables for name in table}, key=lambda name: (-_largest(shares, name), name))
    listed = names[:MOST_CLASSES]
    places = {shown(str(position), s.names): position for s in series for position in range(len(s.names))}
    places |= {name: int(name) for name in names if name.isdecimal()}
    if len(names) <= MOST_CLASSES and places.keys() >= set(names):
        listed.sort(key=places.__getitem__)
    top = max((_largest(shares, name) for name in listed), default=1.0)
    rows = tuple(_class_row(name, series, shares, top) for name in listed)
    legend = tuple((s.colour, s.name) for s in series)
    columns = tuple(s.heading for s in series)
    return ClassChart(legend, columns, rows, _rest(len(names) - len(listed), listed, shares[0]))


def _largest(shares: Sequence[Mapping[str, float]], name: str) -> float:
    return max(table.get(name, 0.0) for table in shares)


def _class_row(name: str, series: Sequence[Series], shares: Sequence[Mapping[str, float]], top: float) -> ClassRow:
    values = [table.get(name, 0.0) for table in shares]
    texts = tuple(percent(value) for value in values)
    title = "; ".join(f"{s.name} {text}" for s, text in zip(series, texts, strict=True))
    marks = [(s.colour, value) for s, value in zip(series[1:], values[1:], strict=True)]
    return ClassRow(name, bar_svg(values[0], marks, top, f"{name}: {title}", series[0].colour), texts)


def _rest(left: int, shown: Sequence[str], shares: Mapping[str, float]) -> str:
    if left <= 0:
        return ""
    remaining = max(1 - sum(shares.get(name, 0.0) for name in shown), 0.0)
    return f"{count(left, 'more class', 'more classes')} with {percent(remaining)} of the rows."
