"""How accurate a model probably is on a window, without labels: average thresholded confidence.

On the baseline, whose labels are known, a threshold is chosen so that the model is surer than it on as large a share
of the rows as it is right about. The share of a window's rows above the same threshold then estimates the accuracy
there (S. Garg et al., Leveraging unlabeled data to predict out-of-distribution performance, ICLR 2022). It follows
shifts that make a model unsure; one that it is confidently wrong about it cannot see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.features import rank_spread
from lensai_integrations.profile import Profile

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
    """How accurate a model is on the baseline, and probably is on a window; shares, 0 to 1.

    Attributes:
        baseline: By its labels.
        window: Estimated.
        low: Lower end of a 95% interval for the finite number of rows on both sides; what the method itself gets wrong
            is not in it.
        high: Upper end.
    """

    baseline: float
    window: float
    low: float
    high: float


def confidence_of(profile: Profile) -> Confidence | None:
    """The threshold of a labelled profile; None without labels, classes or rows enough.

    Example:
        >>> confidence_of(Profile()) is None
        True
    """
    data = profile.rows.data if profile.rows is not None else {}
    group = profile.groups.get("outputs")
    if (
        group is None
        or CONFIDENCE not in group.streams
        or not {"labels", "outputs/top_class", "outputs"} <= data.keys()
    ):
        return None
    unsure = data["outputs"][:, group.streams.index(CONFIDENCE)]
    labels, classes = data["labels"], data["outputs/top_class"]
    if labels.shape[1] != 1:
        return None
    known = np.isfinite(unsure) & np.isfinite(labels[:, 0]) & (classes[:, 0] >= 0)
    if known.sum() < _FEWEST:
        return None
    return _threshold(unsure[known], labels[known, 0] == classes[known, 0])


def _threshold(unsure: NDArray[Any], right: NDArray[np.bool_]) -> Confidence:
    rows, count = len(right), int(right.sum())
    threshold = np.sort(unsure)[max(count, 1) - 1]
    below, tied = unsure < threshold, unsure == threshold
    share = float(count - below.sum()) / float(tied.sum())
    wrong = float(np.mean((below + share * tied - right) ** 2))
    return Confidence(float(threshold), count / rows, rows, share, wrong)


def estimate_accuracy(confidence: Confidence, window: Profile) -> AccuracyEstimate | None:
    """What it probably is on a window; None if that has no outputs."""
    group = window.groups.get("outputs")
    if group is None or group.bank is None or not group.n or CONFIDENCE not in group.streams:
        return None
    place = group.streams.index(CONFIDENCE)
    threshold = np.float32(confidence.threshold)
    below, within = group.bank.cdf([np.nextafter(threshold, np.float32(-np.inf)), threshold])[place].tolist()
    share = below + confidence.tied * (within - below)
    low, high = _wilson(share, group.n)
    own = _NORMAL_95 * np.hypot((confidence.wrong / confidence.rows) ** 0.5, rank_spread(group))
    less, more = np.hypot(share - low, own), np.hypot(high - share, own)
    return AccuracyEstimate(confidence.accuracy, share, max(share - float(less), 0.0), min(share + float(more), 1.0))


def _wilson(share: float, n: int) -> tuple[float, float]:
    """The 95% interval of a share of n rows (E. B. Wilson, 1927)."""
    squared = _NORMAL_95**2
    middle = (share + squared / (2 * n)) / (1 + squared / n)
    half = _NORMAL_95 / (1 + squared / n) * (share * (1 - share) / n + squared / (4 * n * n)) ** 0.5
    return middle - half, middle + half
