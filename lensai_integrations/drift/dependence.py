"""Rows that depend on each other: as how many independent ones a window's count.

The mean of m independent rows is off by the variance of a row over m. Of successive frames of a scene, of a burst, or
of an hour with its own mix of classes it is off by F times as much, so that the window tells no more than m / F
independent rows would. F is the inflation of a stream here, and of a feature of whole rows; statistics of a window are
made smaller by the root of (1/m + 1/n) / (F/m + 1/n), n being the baseline's rows, and only then held against those of
independent rows.

F is learned from clean windows (`learning.py`), which is the only way to know of what lasts longer than a window.
Without them it is looked for in the window itself: where successive rows resemble each other by more than chance, with
a correlation r, their mean is off by (1 + r) / (1 - r) times as much, as that of an autoregressive process is (G. E. P.
Box, G. M. Jenkins, Time Series Analysis, 1970; the correlation by J. von Neumann's ratio, Distribution of the ratio of
the mean square successive difference to the variance, 1941, which a shift of all rows leaves as it is).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from lensai_integrations.drift.calibration import Calibration, Part, group_of, is_top_class, measured
from lensai_integrations.drift.features import ClassShares, Distributions, Floats
from lensai_integrations.drift.result import GroupDrift
from lensai_integrations.profiles.names import is_labels
from lensai_integrations.profiles.profile import AS_STORED, ORDER, Profile

#: Correlations of successive rows this many standard errors away from 0 are no chance: 1 in 740.
_VISIBLE = 3.0
#: Columns of a group that are looked at to see whether successive rows resemble each other.
_LOOKED_AT = 32
#: With fewer pairs of successive rows no correlation can be that far away.
_FEWEST_PAIRS = 10
#: A correlation is at most this.
_LARGEST = 1 - 1e-6
#: p-values are at least this where they are turned into distances of a normal distribution.
_SMALLEST = 1e-300


@dataclass(frozen=True)
class Inflation:
    """By how much more the means of a window are off than those of as many independent rows.

    Attributes:
        blocks: By name of the rows and kind of block: of each stream of its single streams, or of each of its features
            of whole rows, float `[D]` or `[F]`; what is not in it, is not inflated.
        streams: By full name of a stream, for p-values by formulas; by the name of a group, for its rows as wholes.
        known: How it is known, a sentence.

    Example:
        >>> round(float(Inflation.ratio(4.0, m=100, n=10**9)), 3)
        0.5
    """

    blocks: Mapping[tuple[str, str], Floats] = field(default_factory=dict)
    streams: Mapping[str, float] = field(default_factory=dict)
    known: str = ""

    @staticmethod
    def ratio(inflation: Floats | float, m: int, n: int) -> Floats | float:
        """What deviations of a window's means are multiplied by, so that they are as those of independent rows.

        Args:
            inflation: Of any shape, 1 or more.
            m: Rows of the window.
            n: Rows of the baseline.
        """
        ratio: Floats | float = ((1 / m + 1 / n) / (inflation / m + 1 / n)) ** 0.5
        return ratio

    def of(self, part: Part, m: int) -> Floats | None:
        """That of a block, `[D]` or `[F]`; None if it is not inflated."""
        inflation = self.blocks.get(key_of(part))
        return None if inflation is None else np.asarray(self.ratio(inflation, m, part.n), np.float32)

    def widened(self, group: GroupDrift) -> GroupDrift:
        """A group with p-values by formulas as those of fewer rows would be; nothing is decided yet."""
        streams = tuple(
            replace(each, raw_p_value=self._p(each.raw_p_value, each.stream, group)) for each in group.streams
        )
        vectors = group.vectors
        if vectors is not None and vectors.test is not None:
            test = replace(vectors.test, p_value=self._p(vectors.test.p_value, group.name, group))
            vectors = replace(vectors, test=test)
        return replace(group, streams=streams, vectors=vectors)

    def _p(self, p_value: float, name: str, group: GroupDrift) -> float:
        inflation = self.streams.get(name)
        if inflation is None or math.isnan(p_value) or not (group.n_window and group.n_baseline):
            return p_value
        ratio = float(self.ratio(inflation, group.n_window, group.n_baseline))
        return p_of_distance(distance_of_p(p_value) * ratio)

    def effective_rows(self, m: int) -> float:
        """As how many independent rows a window of m counts, in the mean of the streams of the group that has least."""
        by_group: dict[str, list[float]] = {}
        for (name, kind), inflation in self.blocks.items():
            if kind == Distributions.kind:
                by_group[name] = np.minimum(inflation, m).tolist()
        for name, each in self.streams.items():
            by_group.setdefault(name, []).append(min(each, m))
        return m * min((float(np.mean(1 / np.array(of_group))) for of_group in by_group.values()), default=1.0)


def distance_of_p(p_value: float) -> float:
    """How far out in a normal distribution a two-sided p-value is.

    Example:
        >>> round(distance_of_p(0.05), 2), round(p_of_distance(1.96), 2)
        (1.96, 0.05)
    """
    return -float(ndtri(max(min(p_value, 1.0), _SMALLEST) / 2))


def p_of_distance(distance: float) -> float:
    """The p-value that is so far out."""
    return math.erfc(max(distance, 0.0) / 2**0.5)


def visible(window: Profile, calibration: Calibration | None = None) -> Inflation | None:
    """What successive rows of a window show that resemble each other by more than chance; None if none do.

    Labels are not looked at. Neither are the rows of a data set that was profiled as it is stored, which may be sorted.

    Args:
        window: With the sample of its rows.
        calibration: The baseline's, for its blocks of whole rows.

    Example:
        >>> from lensai_integrations import Profiler
        >>> rng, (still, moving) = np.random.default_rng(0), (Profiler(seed=0), Profiler(seed=0))
        >>> still.update(outputs=np.repeat(rng.normal(size=(20, 3)), 10, axis=0))
        >>> moving.update(outputs=rng.normal(size=(200, 3)))
        >>> visible(moving.profile()) is None, round(visible(still.profile()).effective_rows(200))
        (True, 10)
    """
    sample = window.rows
    if sample is None or window.info.get(ORDER) == AS_STORED:
        return None
    pairs = sample.successive()
    if len(pairs[0]) < _FEWEST_PAIRS:
        return None
    found: dict[str, tuple[Floats, _Pairs]] = {}
    for name, rows in sample.data.items():
        if not is_labels(name) and rows.shape[1] and (seen := _correlations(name, rows, pairs)) is not None:
            found[name] = seen
    if not found:
        return None
    blocks: dict[tuple[str, str], Floats] = {}
    streams: dict[str, float] = {}
    means = {name: float(np.nanmean(correlations)) for name, (correlations, _) in found.items()}
    for name in (name for name in sample.data if is_top_class(name)):  # a scene may have one class alone
        least = max(means.get(name, 0.0), means.get(group_of(name), 0.0))
        if least > 0:
            streams[name] = float(np.minimum(inflation_of(np.array([least])), window.n)[0])
            blocks[name, ClassShares.kind] = np.array(streams[name])
    for name, (correlations, of_rows) in found.items():
        if is_top_class(name):
            continue
        blocks[name, Distributions.kind] = each = np.minimum(inflation_of(correlations), window.n)
        streams |= _named(window, name, each)
        for part in calibration.parts if calibration is not None else ():
            if part.rows == name and not isinstance(part.block, Distributions):
                blocks[key_of(part)] = np.minimum(_of_features(part, of_rows, means[name]), window.n)
    largest = max(means.values())
    known = (
        f"successive rows resemble each other in {', '.join(found)} (correlation {largest:.2f}), and the verdict allows"
        " for that; `learn` from clean windows, to know how much they vary"
    )
    return Inflation(blocks, streams, known)


#: Rows of measurements, and which of them come directly after one another.
_Pairs = tuple[Floats, NDArray[np.intp], NDArray[np.intp]]


def _named(window: Profile, name: str, inflation: Floats) -> Iterator[tuple[str, float]]:
    group = window.groups.get(name)
    if group is not None and len(group.streams) == len(inflation):
        yield from ((f"{name}/{stream}", float(each)) for stream, each in zip(group.streams, inflation, strict=True))
        yield name, float(np.mean(inflation))


def _correlations(
    name: str, rows: Floats, pairs: tuple[NDArray[np.intp], NDArray[np.intp]]
) -> tuple[Floats, _Pairs] | None:
    """Correlations of successive rows `[D]`, if they are no chance in the mean of the columns that vary."""
    usable = measured(name, rows)
    both = usable[pairs[0]] & usable[pairs[1]]
    earlier, later = pairs[0][both], pairs[1][both]
    if len(earlier) < _FEWEST_PAIRS:
        return None
    if is_top_class(name):
        classes = np.unique(rows[usable], return_inverse=True)[1].ravel()
        together = np.zeros(len(rows), np.intp)
        together[usable] = classes
        shares = np.bincount(classes) / len(classes)
        unlike = 1 - float(np.sum(shares**2))
        same = float(np.mean(together[earlier] == together[later]))
        looked_at = correlations = np.array([1 - (1 - same) / unlike if unlike > 0 else 0.0])
    else:
        step = max(-(-rows.shape[1] // _LOOKED_AT), 1)
        looked_at = correlation(rows[:, ::step], usable, earlier, later)
    varying = looked_at[~np.isnan(looked_at)]
    if not varying.size or float(varying.mean()) <= _VISIBLE / len(earlier) ** 0.5:
        return None
    if not is_top_class(name):
        correlations = correlation(rows, usable, earlier, later)
    return correlations, (rows, earlier, later)


def correlation(
    rows: Floats, usable: NDArray[np.bool_], earlier: NDArray[np.intp], later: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The correlation of successive rows, by columns: 1 less half of von Neumann's ratio, `[D]`; NaN of constant ones.

    Args:
        rows: `[n, D]`.
        usable: Which are finite, `[n]`.
        earlier: Places of rows, `[p]`.
        later: Of those that follow them, `[p]`.

    Example:
        >>> rows = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
        >>> correlation(rows, np.ones(4, bool), np.arange(3), np.arange(1, 4)).tolist()
        [-1.0, nan]
    """
    kept = rows[usable].astype(np.float64)
    largest = np.abs(kept).max(axis=0, initial=1e-30)
    differences = (rows[later].astype(np.float64) - rows[earlier]) / largest
    variance = (kept / largest).var(axis=0)
    result = np.full(rows.shape[1], np.nan)
    np.divide(np.square(differences).mean(axis=0) / 2, variance, out=result, where=variance > 1e-12)
    return 1 - result


def inflation_of(correlations: Floats, least: float = 0.0) -> Floats:
    """By how much more the mean of rows is off whose successive ones are correlated.

    A stream has at least the mean correlation of all, for what changes more slowly than the window lasts does not show
    in it; one that does not vary at all in the window changes more slowly still.

    Args:
        correlations: Of any shape; NaN of what does not vary.
        least: Correlation that each has at the least.

    Example:
        >>> inflation_of(np.array([0.4, 0.5, 0.6])).round(1).tolist()
        [3.0, 3.0, 4.0]
    """
    mean = float(np.nanmean(correlations)) if not np.isnan(correlations).all() else _LARGEST
    bounded = np.clip(np.nan_to_num(correlations, nan=_LARGEST), np.clip(mean, least, _LARGEST), _LARGEST)
    inflation: Floats = (1 + bounded) / (1 - bounded)
    return inflation


def _of_features(part: Part, of_rows: _Pairs, least: float) -> Floats:
    """The inflation of a block's features of whole rows, `[F]`: of components each, of others all together."""
    rows, earlier, later = of_rows
    features = part.block.features(np.where(np.isfinite(rows), rows, 0).astype(np.float32))
    everything = np.ones(len(rows), bool)
    if pooled(part):
        total = features.var(axis=0, dtype=np.float64).sum()
        apart = np.square(features[later] - features[earlier]).mean(axis=0, dtype=np.float64).sum() / 2
        return inflation_of(np.full(part.block.width, 1 - apart / total if total > 0 else np.nan), least)
    return inflation_of(correlation(features, everything, earlier, later), least)


def key_of(part: Part) -> tuple[str, str]:
    """What a block's inflation is found by."""
    return part.rows, part.block.kind


def pooled(part: Part) -> bool:
    """Whether the features of a block say little one by one: waves, and classes that may be rare."""
    return part.block.kind == "kernel" or isinstance(part.block, ClassShares)


def learned(calibration: Calibration, reference: Profile, m: int) -> Inflation | None:
    """The inflation of a window of m rows, as clean windows have taught it; None without any.

    Between the sizes that were learned of it is interpolated. Smaller windows have that of the smallest, and larger
    ones one that grows as if nothing averaged out any more between windows: more than what it will be in either case.

    Args:
        calibration: The baseline's.
        reference: The baseline's profile.
        m: Rows of the window.
    """
    known = calibration.learned
    if known is None:
        return None
    logs = np.log(known.rows)
    place = float(np.interp(np.log(max(m, 1)), logs, np.arange(len(logs))))
    beyond = max(m / known.rows[-1], 1.0)

    def at(inflations: Floats) -> Floats:
        low, share = int(place), place - int(place)
        between = inflations[low] if not share else inflations[low] ** (1 - share) * inflations[low + 1] ** share
        inflation: Floats = 1 + (between - 1) * beyond
        return inflation

    blocks = {key_of(p): at(p.inflation) for p in calibration.parts if p.inflation is not None}
    streams = {name: float(at(np.array(each))) for name, each in known.streams.items()}
    for part in calibration.parts:
        if (inflation := blocks.get(key_of(part))) is not None:
            if isinstance(part.block, Distributions):
                streams |= _named(reference, part.rows, inflation)
            elif isinstance(part.block, ClassShares):
                streams[part.rows] = float(np.mean(inflation))
    return Inflation(blocks, streams, f"learned from {known.windows} clean windows")


def said_of(inflation: Inflation, m: int) -> str:
    """What a reader of a report should know of it.

    Example:
        >>> said_of(Inflation(streams={"labels": 4.0}, known="learned from 40 clean windows"), 100)
        '100 rows count as 25 independent ones: learned from 40 clean windows'
    """
    effective = inflation.effective_rows(m)
    count = f"{effective:,.0f}" if effective >= 2 else f"{effective:.1f}"
    return f"{m:,} rows count as {count} independent {'one' if count == '1' else 'ones'}: {inflation.known}"
