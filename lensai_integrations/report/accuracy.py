"""How accurate a model is, as a section of a page: on both sides with intervals, by class, and what is taken for what.

By the labels of the window where it has some, with the estimate beside it; else the estimate alone, called one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from lensai_integrations.drift.accuracy import AccuracyEstimate
from lensai_integrations.drift.labelled import ClassRecall, Labelled
from lensai_integrations.drift.result import describe_confusion
from lensai_integrations.drift.text import percent, percents
from lensai_integrations.report.plots import bar_svg
from lensai_integrations.report.words import count

#: Classes that a table lists; the JSON report has more.
_MOST = 20


@dataclass(frozen=True)
class ShareRow:
    """A share with its interval: what it is, drawn from 0 to 1, as numbers, and a word beside the name."""

    name: str
    chart: Markup
    texts: tuple[str, ...]
    tag: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix: rows, their share of the class, whether answer and label agree, all in words."""

    text: str
    share: str
    right: bool
    title: str


@dataclass(frozen=True)
class AccuracyTable:
    """What there is to show of one answer.

    Attributes:
        shares: Accuracy on the baseline, on the window, and the estimate.
        recalls: By class.
        rest: What was left out of them, in words.
        classes: Heads of the matrix.
        matrix: A name and cells per class by its labels, as many cells as classes.
        confusions: In words, where there are too many classes for a matrix.
    """

    shares: tuple[ShareRow, ...]
    recalls: tuple[ShareRow, ...] = ()
    rest: str = ""
    classes: tuple[str, ...] = ()
    matrix: tuple[tuple[str, tuple[Cell, ...]], ...] = ()
    confusions: tuple[str, ...] = ()


def accuracy_table(estimate: AccuracyEstimate) -> AccuracyTable:
    """The tables of one answer.

    Example:
        >>> [row.name for row in accuracy_table(AccuracyEstimate(0.9, 0.4, 0.2, 0.6)).shares]
        ['baseline, by its labels', 'window, an estimate']
    """
    labels = estimate.labelled
    if labels is None:
        return AccuracyTable(tuple(_shares(estimate)))
    left = len(labels.recalls) - _MOST
    return AccuracyTable(
        tuple(_shares(estimate)),
        tuple(map(_recall, labels.recalls[:_MOST])),
        f"{count(left, 'more class', 'more classes')} in the report as JSON." if left > 0 else "",
        labels.classes,
        tuple(_matrix(labels)),
        () if labels.matrix else tuple(f"{describe_confusion(confusion)}." for confusion in labels.confusions),
    )


def _shares(estimate: AccuracyEstimate) -> Iterator[ShareRow]:
    if not math.isnan(estimate.baseline):
        yield _share("baseline, by its labels", 0, estimate.baseline, None)
    if estimate.labelled is None:
        yield _share("window, an estimate", 1, estimate.window, (estimate.low, estimate.high))
        return
    rows = f"window, by {count(estimate.labelled.rows, 'label')}"
    yield _share(rows, 1, estimate.window, (estimate.low, estimate.high))
    guess = estimate.estimated
    if guess is not None:
        tag = "wrong here" if estimate.mistaken else ""
        yield _share("window, estimated without them", 1, guess.window, (guess.low, guess.high), tag)


def _share(name: str, source: int, value: float, ends: tuple[float, float] | None, tag: str = "") -> ShareRow:
    between = f"{percent(ends[0])} \N{EN DASH} {percent(ends[1])}" if ends is not None else ""
    title = f"{name}: {percent(value)}" + (f" ({between})" if between else "")
    marks = [(source, value)] if source else []
    ranges = [(source, *ends)] if ends is not None else []
    chart = bar_svg(0.0 if source else value, marks, 1.0, title, ranges=ranges)
    return ShareRow(name, chart, (percent(value), between), tag)


def _recall(recall: ClassRecall) -> ShareRow:
    before, after = percents(recall.baseline, recall.window)
    between = f"{percent(recall.low)} \N{EN DASH} {percent(recall.high)}"
    title = (
        f"{recall.name}: {before} of {count(recall.n_baseline, 'row')} in the baseline, "
        f"{after} ({between}) of {count(recall.n_window, 'row')} in the window"
    )
    chart = bar_svg(recall.baseline, [(1, recall.window)], 1.0, title, ranges=[(1, recall.low, recall.high)])
    tag = "" if not recall.moved else "fell" if recall.fell else "rose"
    return ShareRow(recall.name, chart, (before, after, between, count(recall.n_window)), tag)


def _matrix(labels: Labelled) -> Iterator[tuple[str, tuple[Cell, ...]]]:
    for truth, (name, rows) in enumerate(zip(labels.classes, labels.matrix, strict=True)):
        total = sum(rows)
        cells = [
            Cell(
                count(n) if n else "", f"{n / total:.2f}" if n else "0", truth == answer,
                f"{name} answered as {labels.classes[answer]}: {count(n, 'row')}"
                + (f", {percent(n / total)} of the class" if total else ""),
            )
            for answer, n in enumerate(rows)
        ]  # fmt: skip
        yield name, tuple(cells)
