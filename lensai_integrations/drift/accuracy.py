"""How accurate a model is on a window: by its labels where it has some, else by average thresholded confidence.

On the baseline, whose labels are known, a threshold is chosen so that the model is surer than it on as large a share
of the rows as it is right about. The share of a window's rows above the same threshold then estimates the accuracy
there (S. Garg et al., Leveraging unlabeled data to predict out-of-distribution performance, ICLR 2022). It follows
shifts that make a model unsure; one that it is confidently wrong about it cannot see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.features import rank_spread
from lensai_integrations.profiles.names import is_outputs, partner_of
from lensai_integrations.profiles.profile import Profile

#: The stream that says how sure a model is: 0 is surest.
CONFIDENCE = "least_confidence"
#: Fewer labelled rows settle no threshold.
_FEWEST = 50
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Confidence:
    """A threshold of a baseline.

    Attributes:
        threshold: Of the stream `outputs/least_confidence`; rows below it count as right.
        accuracy: The model's on the baseline's kept rows, 0 to 1.
        rows: How many these were.
        tied: As what share of a right one a row at the threshold counts, 0 to 1; models are often equally sure of many.
        wrong: The share of those rows that were counted as right and are not, or the reverse, 0 to 1.
    """

    threshold: float
    accuracy: float
    rows: int
    tied: float = 1.0
    wrong: float = 0.0


@dataclass(frozen=True)
class AccuracyEstimate:
    """How accurate a model is on the baseline, and on a window; shares, 0 to 1.

    Attributes:
        baseline: By its labels.
        window: By its labels if `by_labels`, else estimated from the confidences.
        low: Lower end of a 95% interval for the finite number of rows on both sides; what the method itself gets wrong
            is not in it.
        high: Upper end.
        by_labels: Whether the window had labels.
    """

    baseline: float
    window: float
    low: float
    high: float
    by_labels: bool = False


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
    data = profile.rows.data if profile.rows is not None else {}
    names = (f"{outputs}/top_class", partner_of(outputs))
    labels = profile.groups.get(names[1])
    if (
        outputs not in profile.groups
        or not {outputs, *names} <= data.keys()
        or labels is None
        or labels.streams
        or not labels.categories
    ):
        return None
    answers, truths = (data[name][:, 0] for name in names)
    columns = int(profile.groups[outputs].info.get("columns") or 0)
    if columns and np.nanmax(truths, initial=-1) >= max(columns, 2):
        return None
    answered = (truths >= 0) & (answers >= 0)  # a label below 0 says that there is none
    return np.where(answered, answers == truths, np.nan)


def _threshold(unsure: NDArray[Any], right: NDArray[np.bool_]) -> Confidence:
    rows, count = len(right), int(right.sum())
    threshold = np.sort(unsure)[max(count, 1) - 1]
    below, tied = unsure < threshold, unsure == threshold
    share = float(count - below.sum()) / float(tied.sum())
    wrong = float(np.mean((below + share * tied - right) ** 2))
    return Confidence(float(threshold), count / rows, rows, share, wrong)


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
    estimates = {}
    for outputs in (name for name in reference.groups if is_outputs(name)):
        confidence = thresholds.get(outputs)
        before = confidence.accuracy if confidence is not None else _share(rights(reference, outputs))[0]
        estimate = _by_labels(before, rights(window, outputs))
        if estimate is None and confidence is not None:
            estimate = estimate_accuracy(confidence, window, outputs)
        if estimate is not None:
            estimates[outputs] = estimate
    return estimates


def _share(right: NDArray[Any] | None) -> tuple[float, int]:
    finite = right[np.isfinite(right)] if right is not None else np.empty(0)
    return (float(finite.mean()) if len(finite) else math.nan), len(finite)


def _by_labels(before: float, right: NDArray[Any] | None) -> AccuracyEstimate | None:
    share, n = _share(right)
    if not n or math.isnan(before):
        return None
    low, high = _wilson(share, n)
    return AccuracyEstimate(before, share, max(low, 0.0), min(high, 1.0), by_labels=True)


def estimate_accuracy(confidence: Confidence, window: Profile, outputs: str = "outputs") -> AccuracyEstimate | None:
    """What it probably is on a window, of one group of outputs; None if the window does not have it."""
    group = window.groups.get(outputs)
    if group is None or group.bank is None or not group.n or CONFIDENCE not in group.streams:
        return None
    column = group.streams.index(CONFIDENCE)
    threshold = np.float32(confidence.threshold)
    below, within = group.bank.cdf([np.nextafter(threshold, np.float32(-np.inf)), threshold])[column].tolist()
    share = below + confidence.tied * (within - below)
    low, high = _wilson(share, group.n)
    spread = _NORMAL_95 * np.hypot((confidence.wrong / confidence.rows) ** 0.5, rank_spread(group))
    less, more = np.hypot(share - low, spread), np.hypot(high - share, spread)
    return AccuracyEstimate(confidence.accuracy, share, max(share - float(less), 0.0), min(share + float(more), 1.0))


def _wilson(share: float, n: int) -> tuple[float, float]:
    """The 95% interval of a share of n rows (E. B. Wilson, 1927)."""
    squared = _NORMAL_95**2
    middle = (share + squared / (2 * n)) / (1 + squared / n)
    half = _NORMAL_95 / (1 + squared / n) * (share * (1 - share) / n + squared / (4 * n * n)) ** 0.5
    return middle - half, middle + half
