"""How often each class was predicted and how often it was the label, as bars with marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lensai_integrations.measures.outputs import PER_IMAGE
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import LABELS as TRUTHS
from lensai_integrations.profiles.names import OUTPUTS, class_names, group_of, shown
from lensai_integrations.report.plots import bar_svg
from lensai_integrations.report.streams import Source, parts_of
from lensai_integrations.report.words import count, percent
from lensai_integrations.sketches.categories import Categories

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
    found: list[Series] = []
    for part in parts_of(sources[:1], group_of(OUTPUTS, head)):
        name = f"predicted, {part.source}"
        found += [Series.of(name, "predicted", 0, part.group, key) for key in part.group.categories if key]
    for part in parts_of(sources, group_of(TRUTHS, head)):
        colour, heading = (LABELS, "labels") if part.number == 0 else (part.number, f"{part.source} labels")
        name = f"labels, {part.source}"
        found += [Series.of(name, heading, colour, part.group, key) for key in part.group.categories]
    return [series for series in found if series.sketch.n]


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
    places = {shown(str(place), s.names): place for s in series for place in range(len(s.names))}
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
