"""How accurate a model is where labels came with the rows: its accuracy, which classes fell, what is taken for what.

Counted on the rows a profile keeps, for only there an answer and its label stand side by side. Intervals are Wilson's,
changes are held against chance by Fisher's exact test, and of several classes it is allowed for how many they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from lensai_integrations.drift.significance import Floats, holm
from lensai_integrations.profiles.names import class_names, partner_of, shown
from lensai_integrations.profiles.profile import Profile

NORMAL_95 = 1.96
#: A class moved if so large a change of any class's recall were no likelier by chance.
CHANCE = 0.05
#: Classes listed, and confusions.
MOST_RECALLS, MOST_CONFUSIONS = 40, 10
#: More classes than these make no table that a person reads.
MOST_IN_MATRIX = 12

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True)
class ClassRecall:
    """What share of a class the model finds; shares, 0 to 1.

    Attributes:
        name: The class, by its name where it has one.
        baseline: On the baseline.
        window: On the window.
        low: Lower end of the 95% interval of `window`.
        high: Upper end.
        n_baseline: Labelled rows of the class in the baseline.
        n_window: The same of the window.
        p_value: Of the change, by Fisher's exact test of both sides, corrected for the number of classes (Holm).
    """

    name: str
    baseline: float
    window: float
    low: float
    high: float
    n_baseline: int
    n_window: int
    p_value: float

    @property
    def moved(self) -> bool:
        """Whether the change is beyond chance, at 5% for all classes together."""
        return self.p_value < CHANCE

    @property
    def fell(self) -> bool:
        """Whether it fell beyond chance."""
        return self.moved and self.window < self.baseline


@dataclass(frozen=True)
class Confusion:
    """A class that is taken for another.

    Attributes:
        truth: By the labels.
        answer: What the model said.
        rows: In the window.
        share: Of the window's labelled rows of the class.
        baseline: The same share in the baseline; NaN if that has no row of the class.
    """

    truth: str
    answer: str
    rows: int
    share: float
    baseline: float


@dataclass(frozen=True)
class Labelled:
    """What the labels of a window say.

    Attributes:
        rows: With an answer and a label, of those that the profile keeps.
        of: Rows of the window, kept or not.
        change: Of the accuracy since the baseline, -1 to 1; NaN if that has no labels.
        change_low: Lower end of its 95% interval (R. G. Newcombe, Interval estimation for the difference between
            independent proportions, 1998).
        change_high: Upper end.
        recalls: By class, of those that both sides have: those that moved beyond chance first, then by how far they
            fell; 40 at most.
        confusions: The most frequent ones of the window, 10 at most.
        classes: Of `matrix`.
        matrix: Rows of the window by label and answer, where there are at most 12 classes; else empty.
        moved: How many classes' recall moved beyond chance.

    Example:
        >>> Labelled(rows=100, of=100).recalls
        ()
    """

    rows: int
    of: int
    change: float = float("nan")
    change_low: float = float("nan")
    change_high: float = float("nan")
    recalls: tuple[ClassRecall, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    classes: tuple[str, ...] = ()
    matrix: tuple[tuple[int, ...], ...] = ()
    moved: int = 0

    @property
    def fell(self) -> tuple[ClassRecall, ...]:
        """The classes whose recall fell beyond chance, worst first."""
        return tuple(recall for recall in self.recalls if recall.fell)


def rights(profile: Profile, outputs: str) -> NDArray[Any] | None:
    """Which of the rows a profile keeps an answer is right of, 1 or 0, NaN where the label or the answer is missing.

    None where there are no classes to be right of, or labels go beyond them.

    Args:
        profile: A profile.
        outputs: The group of the answer; its labels are those of the same head.

    Example:
        >>> rights(Profile(), "outputs") is None
        True
    """
    columns = _columns(profile, outputs)
    if columns is None:
        return None
    truths, answers = columns
    return np.where((truths >= 0) & (answers >= 0), answers == truths, np.nan)


def _columns(profile: Profile, outputs: str) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Labels and answers of the rows a profile keeps; below 0 or NaN is none."""
    data = profile.rows.data if profile.rows is not None else {}
    names = (partner_of(outputs), f"{outputs}/top_class")
    labels = profile.groups.get(names[0])
    if (
        outputs not in profile.groups
        or not {outputs, *names} <= data.keys()
        or labels is None
        or labels.streams
        or not labels.categories
    ):
        return None
    truths, answers = (data[name][:, 0] for name in names)
    columns = int(profile.groups[outputs].info.get("columns") or 0)
    if columns and np.nanmax(truths, initial=-1) >= max(columns, 2):
        return None
    return truths, answers


def pairs(profile: Profile, outputs: str) -> Pairs:
    """Label and answer, intp `[n]` each, of the rows that have both; of none where `rights` is None.

    Example:
        >>> [len(each) for each in pairs(Profile(), "outputs")]
        [0, 0]
    """
    columns = _columns(profile, outputs)
    if columns is None:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    truths, answers = columns
    both = (truths >= 0) & (answers >= 0)
    return truths[both].astype(np.intp), answers[both].astype(np.intp)


def labelled(reference: Profile, window: Profile, outputs: str) -> Labelled | None:
    """What the labels of a window say of an answer; None if it has none.

    Args:
        reference: The baseline's profile.
        window: The window's.
        outputs: The group of the answer.

    Example:
        >>> labelled(Profile(), Profile(), "outputs") is None
        True
    """
    before, after = pairs(reference, outputs), pairs(window, outputs)
    if not len(after[0]):
        return None
    groups = (each.groups.get(name) for name in (outputs, partner_of(outputs)) for each in (reference, window))
    names = class_names(*groups)
    recalls = _recalls(before, after, names)
    return Labelled(
        len(after[0]),
        window.rows.n if window.rows is not None else len(after[0]),
        *_change(before, after),
        recalls[:MOST_RECALLS],
        _confusions(before, after, names),
        *_matrix(before, after, names),
        sum(recall.moved for recall in recalls),
    )


def _matrix(before: Pairs, after: Pairs, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """The classes, and the window's rows by label and answer; nothing of many classes."""
    present = np.unique(np.concatenate([*before, *after]))
    if len(present) > MOST_IN_MATRIX:
        return (), ()
    counts = np.zeros((len(present), len(present)), np.int64)
    np.add.at(counts, tuple(np.searchsorted(present, each) for each in after), 1)
    return tuple(shown(str(number), names) for number in present), tuple(tuple(map(int, row)) for row in counts)


def _change(before: Pairs, after: Pairs) -> tuple[float, float, float]:
    if not len(before[0]):
        return (float("nan"),) * 3
    (p, n), (q, m) = ((float(np.mean(labels == answers)), len(labels)) for labels, answers in (before, after))
    (low, high), (low2, high2) = wilson(p, n), wilson(q, m)
    return q - p, q - p - float(np.hypot(q - low2, high - p)), q - p + float(np.hypot(high2 - q, p - low))


def _recalls(before: Pairs, after: Pairs, names: tuple[str, ...]) -> tuple[ClassRecall, ...]:
    """Of all classes that both sides have: those that moved first, then those that fell furthest."""
    both = np.intersect1d(before[0], after[0])
    if not len(both):
        return ()
    sides = [_of_classes(each, both) for each in (before, after)]
    (right, n), (right2, m) = sides
    p = holm(fisher_p_values(right, n, right2, m))
    recalls = []
    for at, number in enumerate(both):
        share, rows = float(right2[at] / m[at]), int(m[at])
        recall = ClassRecall(
            shown(str(number), names), float(right[at] / n[at]), share, *wilson(share, rows), int(n[at]), rows,
            float(p[at]),
        )  # fmt: skip
        recalls.append(recall)
    return tuple(sorted(recalls, key=lambda recall: (not recall.moved, recall.window - recall.baseline)))


def _of_classes(of: Pairs, classes: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of each class that are right, and all of them."""
    labels, answers = of
    place = np.searchsorted(classes, labels)
    known = np.isin(labels, classes)
    right, n = (np.bincount(place[which], minlength=len(classes)) for which in (known & (labels == answers), known))
    return right, n


def _confusions(before: Pairs, after: Pairs, names: tuple[str, ...]) -> tuple[Confusion, ...]:
    """The most frequent ones of the window."""
    labels, answers = after
    wrong = labels != answers
    kinds, rows = np.unique(np.stack([labels[wrong], answers[wrong]]), axis=1, return_counts=True)
    confusions = []
    for at in np.argsort(-rows, kind="stable")[:MOST_CONFUSIONS]:
        truth, answer = kinds[:, at]
        of_class = before[0] == truth
        baseline = float(np.mean(before[1][of_class] == answer)) if of_class.any() else float("nan")
        texts = shown(str(truth), names), shown(str(answer), names)
        confusions.append(Confusion(*texts, int(rows[at]), float(rows[at] / np.sum(labels == truth)), baseline))
    return tuple(confusions)


def fisher_p_values(right: NDArray[Any], n: NDArray[Any], right2: NDArray[Any], m: NDArray[Any]) -> Floats:
    """Fisher's exact test of two shares, for many classes at once: twice the smaller tail, 1 at most, float64 `[K]`.

    Args:
        right: Rows that are right of the first side, `[K]`.
        n: Rows of the first side, 1 or more.
        right2: Rows that are right of the second.
        m: Rows of the second, 1 or more.

    Example:
        >>> fisher_p_values(*np.array([[8], [10], [1], [6]])).round(4).tolist()
        [0.049]
    """
    starts = np.concatenate([[0], np.cumsum(m + 1)[:-1]])
    of = np.repeat(np.arange(len(m)), m + 1)  # all counts that the second side could have had, class after class
    count = np.arange(len(of)) - starts[of]
    total = right + right2
    possible = (count <= total[of]) & (total[of] - count <= n[of])
    rest = np.where(possible, total[of] - count, 0)
    count = np.where(possible, count, 0)
    logs = _choose(m[of], count) + _choose(n[of], rest) - _choose((n + m)[of], total[of])
    chances = np.where(possible, np.exp(logs), 0.0)
    place = np.arange(len(of)) - starts[of]
    lower = np.add.reduceat(np.where(place <= right2[of], chances, 0.0), starts)
    upper = np.add.reduceat(np.where(place >= right2[of], chances, 0.0), starts)
    p: Floats = np.minimum(2 * np.minimum(lower, upper), 1.0)
    return p


def _choose(n: NDArray[Any], k: NDArray[Any]) -> Floats:
    """The logarithm of how many ways there are."""
    logs: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return logs


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95% interval of a share of n rows (E. B. Wilson, 1927), within 0 and 1.

    Example:
        >>> [round(end, 3) for end in wilson(0.4, 50)]
        [0.276, 0.538]
    """
    squared = NORMAL_95**2
    middle = (share + squared / (2 * n)) / (1 + squared / n)
    half = NORMAL_95 / (1 + squared / n) * (share * (1 - share) / n + squared / (4 * n * n)) ** 0.5
    return max(middle - half, 0.0) if share > 0 else 0.0, min(middle + half, 1.0) if share < 1 else 1.0
