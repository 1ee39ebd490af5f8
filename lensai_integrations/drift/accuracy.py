"""How accurate a model is on a window: by its labels where it has some, and by average thresholded confidence.

On the baseline, whose labels are known, a threshold is chosen so that the model is surer than it on as large a share
of the rows as it is right about. The share of a window's rows above the same threshold then estimates the accuracy
there (S. Garg et al., Leveraging unlabeled data to predict out-of-distribution performance, ICLR 2022). It follows
shifts that make a model unsure. Of one that it is confidently wrong about it sees nothing, but such a model mostly
answers other classes than before: so an estimate's interval reaches the further down the more these moved. By how
much is measured over the shifts of a corruption suite (`benchmarks/drift/accuracy.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.features import rank_spread
from lensai_integrations.drift.labelled import NORMAL_95, Labelled, labelled, pairs, rights, wilson
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import is_outputs
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.sketches.weighted import cdf

#: The stream that says how sure a model is: 0 is surest.
CONFIDENCE = "least_confidence"
#: The categories of what it answers.
_ANSWERS = "top_class"
#: Fewer labelled rows settle no threshold.
_FEWEST = 50
#: What an estimate may be off under shift, measured by `benchmarks/drift/accuracy.py`: too low by this share of its
#: distance from the baseline's accuracy, too high by so many times the share of the answers that moved.
TOO_LOW, TOO_HIGH = 0.6, 1.3
#: Rows that one side is expected to have at least of classes, or of several together, that are told apart.
_FEWEST_OF_CELL = 5
#: More classes than these are not told apart.
_MOST_CLASSES = 4096


@dataclass(frozen=True)
class Confidence:
    """A threshold of a baseline.

    Attributes:
        threshold: Of the stream `outputs/least_confidence`; rows below it count as right.
        accuracy: The model's on the baseline's kept rows, 0 to 1.
        rows: How many these were.
        tied: As what share of a right one a row at the threshold counts, 0 to 1; models are often equally sure of many.
        wrong: The share of those rows that were counted as right and are not, or the reverse, 0 to 1.
        low: Threshold and `tied` at the lower end of the 95% interval that so many rows settle them to; None in
            calibrations of earlier releases.
        high: The same at the upper end.
    """

    threshold: float
    accuracy: float
    rows: int
    tied: float = 1.0
    wrong: float = 0.0
    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None


@dataclass(frozen=True)
class AccuracyEstimate:
    """How accurate a model is on the baseline, and on a window; shares, 0 to 1.

    Attributes:
        baseline: By its labels; NaN if it has none and the window does.
        window: By its labels if `by_labels`, else estimated from the confidences.
        low: Lower end of the 95% interval of `window`. Of an estimate it allows for the rows of the window, for those
            of the baseline that settled the threshold, and for what the method itself was measured to get wrong
            under shift.
        high: Upper end.
        by_labels: Whether the window had labels.
        moved: What share of the answers would have to be of other classes than they are for these to be as frequent as
            in the baseline, beyond what chance does; 0 where it is not known. Not told with labels.
        ceiling: The largest accuracy there can be, but for chance, if the classes are as frequent as in the baseline:
            `sum(min(labels, answers))` over their shares. 1 where nothing is known. Not told with labels.
        labelled: What the labels say beyond that: recall by class, confusions. None without labels.
        estimated: With labels, what would have been estimated without them.
        mistaken: By how much that is wrong here, if the labels contradict it: they differ by more than the finite
            number of rows explains. 0 if they do not; below 0 if it is too low.

    Example:
        >>> AccuracyEstimate(0.9, 0.4, 0.2, 0.6).by_labels
        False
    """

    baseline: float
    window: float
    low: float
    high: float
    by_labels: bool = False
    moved: float = 0.0
    ceiling: float = 1.0
    labelled: Labelled | None = None
    estimated: AccuracyEstimate | None = None
    mistaken: float = 0.0


def confidences_of(profile: Profile) -> dict[str, Confidence]:
    """The thresholds of a labelled profile by group of outputs, of those that have labels, classes and rows enough.

    Example:
        >>> confidences_of(Profile())
        {}
    """
    confidences = {name: _confidence_of(profile, name) for name in profile.groups if is_outputs(name)}
    return {name: confidence for name, confidence in confidences.items() if confidence is not None}


def _confidence_of(profile: Profile, outputs: str) -> Confidence | None:
    group, right = profile.groups[outputs], rights(profile, outputs)
    if right is None or CONFIDENCE not in group.streams or profile.rows is None:
        return None
    unsure = profile.rows.data[outputs][:, group.streams.index(CONFIDENCE)]
    finite = np.isfinite(unsure) & np.isfinite(right)
    return _threshold(unsure[finite], right[finite] > 0) if finite.sum() >= _FEWEST else None


def _threshold(unsure: NDArray[Any], right: NDArray[np.bool_]) -> Confidence:
    """The threshold, and between which it lies by so many rows.

    Where the threshold is drawn from n rows, the share of all rows below it differs from the accuracy by the mean over
    the n of (counted as right - right), whose variance is `wrong` / n. So it lies between the thresholds at so much
    smaller and larger shares: what a bootstrap over the rows gives too, without its noise.
    """
    rows, count = len(right), int(right.sum())
    ordered = np.sort(unsure)
    threshold, tied = _at(ordered, count)
    counted = (unsure < threshold) + tied * (unsure == threshold)
    wrong = float(np.mean((counted - right) ** 2))
    spread = NORMAL_95 * (wrong * rows) ** 0.5
    ends = _at(ordered, count - spread), _at(ordered, count + spread)
    return Confidence(threshold, count / rows, rows, tied, wrong, *ends)


def _at(ordered: NDArray[Any], count: float) -> tuple[float, float]:
    """The threshold that counts so many of some rows as right, and as what share those that are at it."""
    threshold = ordered[min(max(math.ceil(count), 1), len(ordered)) - 1]
    below, within = (float(np.searchsorted(ordered, threshold, side=side)) for side in ("left", "right"))
    return float(threshold), min(max((count - below) / (within - below), 0.0), 1.0)


def accuracies(
    thresholds: Mapping[str, Confidence], reference: Profile, window: Profile
) -> dict[str, AccuracyEstimate]:
    """What is known of the accuracy of each answer on a window, by its group.

    Args:
        thresholds: The baseline's.
        reference: The baseline's profile.
        window: The window's.

    Example:
        >>> accuracies({}, Profile(), Profile())
        {}
    """
    found = {}
    for outputs in (name for name in reference.groups if is_outputs(name)):
        confidence = thresholds.get(outputs)
        estimate = None if confidence is None else estimate_accuracy(confidence, window, outputs, reference)
        by_labels = _by_labels(confidence, reference, window, outputs)
        if by_labels is not None and estimate is not None and confidence is not None:
            by_labels = _beside(
                by_labels, estimate, sampling_error(confidence, window.groups[outputs], estimate.window)
            )
        best = by_labels or estimate
        if best is not None:
            found[outputs] = best
    return found


def _beside(by_labels: AccuracyEstimate, estimate: AccuracyEstimate, errors: tuple[float, float]) -> AccuracyEstimate:
    """What the labels say, with what would have been estimated, and by how much that is wrong."""
    less, more = errors
    agree = estimate.window - less <= by_labels.high and by_labels.low <= estimate.window + more
    return replace(by_labels, estimated=estimate, mistaken=0.0 if agree else estimate.window - by_labels.window)


def _by_labels(
    confidence: Confidence | None, reference: Profile, window: Profile, outputs: str
) -> AccuracyEstimate | None:
    labels = labelled(reference, window, outputs)
    if labels is None:
        return None
    truths, answers = pairs(window, outputs)
    share = float(np.mean(truths == answers))
    before = confidence.accuracy if confidence is not None else _share(pairs(reference, outputs))
    return AccuracyEstimate(before, share, *wilson(share, len(truths)), by_labels=True, labelled=labels)


def _share(of: tuple[NDArray[Any], NDArray[Any]]) -> float:
    return float(np.mean(of[0] == of[1])) if len(of[0]) else math.nan


def estimate_accuracy(
    confidence: Confidence, window: Profile, outputs: str = "outputs", reference: Profile | None = None
) -> AccuracyEstimate | None:
    """What it probably is on a window, of one group of outputs; None if the window does not have it.

    Args:
        confidence: The baseline's threshold.
        window: The window's profile.
        outputs: The group of the answer.
        reference: The baseline's profile: without it nothing is known of how the answers moved, and the interval is as
            wide as without shift.
    """
    group = window.groups.get(outputs)
    if group is None or group.bank is None or not group.n or CONFIDENCE not in group.streams:
        return None
    share = _surer(group, confidence.threshold, confidence.tied)
    less, more = sampling_error(confidence, group, share)
    moved, ceiling = (0.0, 1.0) if reference is None else _answers(reference, window, outputs)
    low = share - math.hypot(less, TOO_HIGH * moved)
    high = share + math.hypot(more, TOO_LOW * (share - confidence.accuracy))
    return AccuracyEstimate(confidence.accuracy, share, max(low, 0.0), min(high, 1.0), moved=moved, ceiling=ceiling)


def _surer(group: Group, threshold: float, tied: float) -> float:
    """The share of a window's rows that a threshold counts as right."""
    assert group.bank is not None
    value, view = np.float32(threshold), group.bank.sorted_view([group.streams.index(CONFIDENCE)])
    below, within = cdf(*view, [np.nextafter(value, np.float32(-np.inf)), value])[0].tolist()
    return float(below + tied * (within - below))


def sampling_error(confidence: Confidence, group: Group, share: float) -> tuple[float, float]:
    """By how much an estimate may be too high and too low because the rows of both sides are finite, at 95%.

    Args:
        confidence: The baseline's threshold.
        group: The window's group of outputs.
        share: The estimate.
    """
    n = group.n
    low, high = wilson(share, n)
    alone = NORMAL_95 * (confidence.wrong / n) ** 0.5  # those counted wrongly seldom are as many of both kinds
    if confidence.low is None or confidence.high is None:
        less = more = NORMAL_95 * (confidence.wrong / confidence.rows) ** 0.5
    else:
        less, more = share - _surer(group, *confidence.low), _surer(group, *confidence.high) - share
    sketch = NORMAL_95 * rank_spread(group)
    return math.hypot(max(share - low, alone), less, sketch), math.hypot(max(high - share, alone), more, sketch)


def _answers(reference: Profile, window: Profile, outputs: str) -> tuple[float, float]:
    """Which share of the answers moved to other classes beyond chance, and the largest accuracy if classes did not."""
    before, after = (_counts(profile, outputs) for profile in (reference, window))
    moved = _total_variation(before, after)
    numbers, rows = np.unique(pairs(reference, outputs)[0], return_counts=True)
    labels = dict(zip(map(str, numbers), rows.tolist(), strict=True))
    ceiling = 1 - _total_variation(labels, after)
    return moved, ceiling


def _counts(profile: Profile, outputs: str) -> dict[str, int]:
    group = profile.groups.get(outputs)
    sketch = group.categories.get(_ANSWERS) if group is not None else None
    return dict(sketch.top(_MOST_CLASSES)) if sketch is not None else {}


def _total_variation(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Of two distributions of classes, less what is expected of it by chance; 0 where one has no rows.

    Classes of which the smaller side is expected to have few rows are put together, rarest with rarest, until there
    are five or so: of many classes and few rows nothing would be left beyond chance.
    """
    if not before or not after:
        return 0.0
    classes = sorted({*before, *after})
    counts = np.array([[side.get(name, 0) for name in classes] for side in (before, after)], np.float64)
    n, m = counts.sum(axis=1)
    shares = counts.sum(axis=0) / (n + m)
    order = np.argsort(-shares, kind="stable")
    middles = np.cumsum(shares[order]) - shares[order] / 2
    cells = np.empty(len(order), np.intp)
    cells[order] = middles * max(min(n, m) // _FEWEST_OF_CELL, 1)
    _, cells = np.unique(cells, return_inverse=True)
    p, q, both = (np.bincount(cells, weights) for weights in (counts[0] / n, counts[1] / m, shares))
    both = np.minimum(both, 1.0)  # but for rounding
    chance = np.sqrt(2 / np.pi * both * (1 - both) * (1 / n + 1 / m))  # the mean of |p - q| if both are normal
    return float(max(np.sum(np.abs(p - q) - chance) / 2, 0.0))
