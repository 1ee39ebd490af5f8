"""Rows that depend on each other: as how many independent ones a window's count.

The mean of m independent rows is off by the variance of a row over m. Of successive frames of a scene, of a burst, or
of an hour with its own mix of classes it is off by F times as much, so that the window tells no more than m / F
independent rows would. F is the inflation of a stream here, and of a feature of whole rows; statistics of a window are
made smaller by the root of (1/m + 1/n) / (F/m + 1/n), n being the baseline's rows, and only then held against those of
independent rows.

F is learned from clean windows (`learning.py`), which is the only way to know of what lasts longer than a window.
Without them it is looked for in the window itself: where successive rows resemble each other by more than chance, with
a correlation r, their mean is off by (1 + r) / (1 - r) times as much, as that of an autoregressive process is (G. E. P.
Box, G. M. Jenkins, Time Series Analysis, 1970). The correlation is by J. von Neumann's ratio (Distribution of the ratio
of the mean square successive difference to the variance, 1941), which a shift of all rows leaves as it is. Independent
rows differ from the ones before them as much as rows of the baseline do, whatever happens between them: so the variance
is at most the baseline's, and what begins or ends within a window is no dependence. Of scenes, which stay alike for
long, the correlations of rows further apart are summed. Rows of a data set may be sorted, which is no dependence
either: so only a window whose rows came as time went by, as a monitor's do, is held against fewer rows; of others it is
said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.calibration import Calibration, Part, group_of, is_top_class, measured
from lensai_integrations.drift.features import ClassShares, Distributions, Floats, Kernel, Principal
from lensai_integrations.profiles.names import is_labels
from lensai_integrations.profiles.profile import IN_TIME, ORDER, Profile
from lensai_integrations.sketches.rows import RowSample

#: Correlations of successive rows this many times 1 / sqrt(pairs) away from 0 are no chance: about 1 in 600.
_VISIBLE: Final = 3.5
#: Of the largest of 32 columns, as of brightness where all else is noise.
_VISIBLE_ALONE: Final = 5.5
#: Columns of a group that are looked at to see whether successive rows resemble each other.
_LOOKED_AT: Final = 32
#: With fewer pairs in all no correlation can be that far away.
_FEWEST_PAIRS: Final = 15
#: A correlation is at most this.
_LARGEST: Final = 1 - 1e-6
#: Rows this far apart are not looked at, nor more rows than these where that takes long.
_FARTHEST, _MOST_ROWS = 250, 500
#: More classes in a window than these are not looked at.
_MOST_CLASSES: Final = 256
#: How it is said that clean windows taught something.
_LEARNED: Final = "learned from "


@dataclass(frozen=True)
class Inflation:
    """By how much more the means of a window are off, squared, than those of as many independent rows.

    Attributes:
        rows: Of the window.
        blocks: By name of the rows and kind of block: of each stream of its single streams, or of each of its features
            of whole rows, float `[D]` or `[F]`; what is not in it, is not inflated.
        streams: By full name of a stream, for p-values by formulas; by the name of a group, for its rows as wholes.
        others: Of all other streams.
        known: How it is known, words.
        inside: Whether the baseline is of such rows itself.

    Example:
        >>> Inflation(100, streams={"labels": 4.0}).of_stream("labels", 100), INDEPENDENT.of_stream("labels", 100)
        (4.0, 1.0)
    """

    rows: int = 0
    blocks: Mapping[tuple[str, str], Floats] = field(default_factory=dict)
    streams: Mapping[str, float] = field(default_factory=dict)
    others: float = 1.0
    known: str = ""
    inside: bool = False

    def of(self, part: Part, m: int) -> Floats | None:
        """What a block's deviations are multiplied by to be as those of independent rows, `[D]` or `[F]`; None for 1.

        Args:
            part: The block.
            m: Rows of the window that it has. If these are a sample, they are further apart and depend on each other
                less than successive ones.
        """
        inflation = self.blocks.get(key_of(part))
        if inflation is None:
            return None
        fewer = np.clip(1 + (inflation - 1) * min(m / max(self.rows, 1), 1.0), 1.0, m)
        own = fewer if self.inside else 1.0
        ratio: Floats = (((1 / m + 1 / part.n) / (fewer / m + own / part.n)) ** 0.5).astype(np.float32)
        return ratio

    def of_stream(self, name: str, m: int) -> float:
        """As how many times fewer rows the m of a stream count that is judged by a formula, or of a group as wholes."""
        return float(min(max(self.streams.get(name, self.others), 1.0), max(m, 1)))

    def effective_rows(self, m: int) -> float:
        """As how many independent rows a window of m counts, in the mean of the streams of those that have fewest."""
        groups = [each for (_, kind), each in self.blocks.items() if kind in (Distributions.kind, ClassShares.kind)]
        return m * min((float(np.mean(1 / np.clip(each, 1.0, m))) for each in groups), default=1.0)


#: Of rows that do not depend on each other.
INDEPENDENT: Final = Inflation()


def visible(
    window: Profile, calibration: Calibration | None = None, before: Mapping[str, Floats] | None = None
) -> Inflation:
    """What successive rows of a window show that resemble each other by more than chance; `INDEPENDENT` if none do.

    Labels are not looked at; what depends on each other otherwise may in them as well, and they count as little.

    Args:
        window: With the sample of its rows.
        calibration: The baseline's, for its blocks of whole rows.
        before: Rows of the baseline by name: independent ones differ as much, whatever else has changed.

    Example:
        >>> from lensai_integrations import Profiler
        >>> rng, (still, moving) = np.random.default_rng(0), (Profiler(seed=0), Profiler(seed=0))
        >>> still.update(outputs=np.repeat(rng.normal(size=(20, 3)), 10, axis=0))
        >>> moving.update(outputs=rng.normal(size=(200, 3)))
        >>> visible(moving.profile()) is INDEPENDENT, round(visible(still.profile()).effective_rows(200))
        (True, 11)
    """
    if window.rows is None:
        return INDEPENDENT
    series = _Series.of(window.rows)
    if series.pairs < _FEWEST_PAIRS:
        return INDEPENDENT
    data, known = window.rows.data, {} if before is None else before
    found: dict[str, _Found] = {}
    for name, rows in data.items():
        if not is_labels(name) and rows.shape[1]:
            seen = _found(name, rows, series, known.get(name))
            if seen is not None:
                found[name] = seen
    blocks: dict[tuple[str, str], Floats] = {}
    streams: dict[str, float] = {}
    for name, of_name in found.items():
        if is_top_class(name):
            continue
        blocks[name, Distributions.kind] = each = of_name.inflation()
        streams |= _named(window, name, each)
        for part in calibration.parts if calibration is not None else ():
            if part.rows == name and not isinstance(part.block, Distributions):
                blocks[key_of(part)] = of_name.of_features(part, float(np.mean(each)))
    for name in (name for name in data if is_top_class(name)):  # a scene may have one class alone
        own = found[name].inflation() if name in found else np.ones(1)
        least = max(float(own[0]), streams.get(group_of(name), 1.0))
        if least > 1:
            streams[name], blocks[name, ClassShares.kind] = least, np.array(least)
    if not streams:
        return INDEPENDENT
    largest = max(float(np.nanmean(each.correlations)) for each in found.values())
    told = f"successive rows resemble each other in {', '.join(found)} (correlation {largest:.2f})"
    return Inflation(window.n, blocks, streams, max(streams.values()), told)


@dataclass(frozen=True)
class _Series:
    """Rows in the order in which they came.

    Attributes:
        order: Their places in the sample, `[n]`.
        follows: Which came directly after the one before, `[n]`.
    """

    order: NDArray[np.intp]
    follows: NDArray[np.bool_]

    @classmethod
    def of(cls, sample: RowSample) -> _Series:
        numbers = sample.numbers
        order = np.argsort(numbers)
        steps = np.diff(numbers[order])
        if not steps.all():  # samples of one seed were merged, and no number tells of which of them a row is
            steps = np.zeros_like(steps)
        return cls(order, np.concatenate([[False], steps == 1])[: len(order)])

    @property
    def pairs(self) -> int:
        return int(self.follows.sum())

    def only(self, usable: NDArray[np.bool_]) -> _Series:
        """The same of some rows, by their places in the sample."""
        kept = usable[self.order]
        before = np.concatenate([[False], kept[:-1]])
        return _Series(self.order[kept], (self.follows & before)[kept])


def _named(profile: Profile, name: str, inflation: Floats) -> Iterator[tuple[str, float]]:
    group = profile.groups.get(name)
    if group is not None and len(group.streams) == len(inflation):
        yield from ((f"{name}/{stream}", float(each)) for stream, each in zip(group.streams, inflation, strict=True))
        yield name, float(np.mean(inflation))


@dataclass(frozen=True)
class _Found:
    """Rows that resemble the ones before them.

    Attributes:
        correlations: Of successive rows, by columns; NaN of those that do not vary.
        rows: In the order in which they came, `[n, D]`, of which so far apart as is looked at.
        most: The variance of the baseline's rows, by columns; None if that is not known.
        lags: Up to which distance they resemble each other by more than chance; 0 if that is not known.
        together: Whether columns are the classes of one stream.
    """

    correlations: NDArray[np.float64]
    rows: Floats
    most: NDArray[np.float64] | None
    lags: int
    together: bool

    def inflation(self) -> Floats:
        """By how much more the mean of each stream is off, `[D]`, or of all classes `[1]`."""
        return np.maximum(inflation_of(self.correlations), self._summed(self.rows, self.most, self.together))

    def of_features(self, part: Part, least: float) -> Floats:
        """The inflation of a block's features of whole rows, `[F]`: of components each, of waves all together."""
        features, waves = part.block.features(self.rows), isinstance(part.block, Kernel)
        most = np.ones(part.block.width) if isinstance(part.block, Principal) else None
        summed = self._summed(features, most, waves)
        return np.maximum(np.broadcast_to(summed, part.block.width), least)

    def _summed(self, rows: Floats, most: NDArray[np.float64] | None, together: bool) -> NDArray[np.float64]:
        """1 and twice the correlations up to a distance: what stays alike for long, as scenes do, has them all.

        Source: C. J. Geyer, Practical Markov chain Monte Carlo, 1992. A column has at least the mean of all.
        """
        total = np.zeros(1 if together else rows.shape[1])
        if self.lags:
            kept, variance = _in_units(rows, most)
            for lag in range(1, min(self.lags, len(kept) - 1) + 1):
                total += np.nan_to_num(_of_differences(kept[lag:] - kept[:-lag], variance, together))
        return np.asarray(1 + 2 * np.maximum(total, max(float(total.mean()), 0.0)))


def _found(name: str, rows: Floats, series: _Series, before: Floats | None) -> _Found | None:
    """What rows show, if successive ones resemble each other by more than chance, in the mean of the columns or in one.

    Args:
        name: Of the rows.
        rows: `[n, D]`, by their places in the sample.
        series: How they came.
        before: The baseline's.
    """
    series = series.only(measured(name, rows))
    if series.pairs < _FEWEST_PAIRS:
        return None
    before = None if before is None or before.shape[1:] != rows.shape[1:] else before[measured(name, before)]
    together = is_top_class(name)
    if together:
        classes = np.unique(rows[series.order, 0])
        if len(classes) > _MOST_CLASSES:
            return None
        rows = (rows[:, :1] == classes).astype(np.float32)
        before = None if before is None else (before[:, :1] == classes).astype(np.float32)
    step = 1 if together else -(-rows.shape[1] // _LOOKED_AT)
    looked_at = correlation(rows[:, ::step], series.order, series.follows, _variance(before, step), together=together)
    if np.isnan(looked_at).all():
        return None
    mean, largest = float(np.nanmean(looked_at)), float(np.nanmax(looked_at))
    if mean <= _VISIBLE / series.pairs**0.5 and largest <= _VISIBLE_ALONE / series.pairs**0.5:
        return None
    most = _variance(before)
    whole = looked_at if step == 1 else correlation(rows, series.order, series.follows, most)
    complete = series.pairs >= 0.9 * (len(series.order) - 1)  # else few of those that are near each other are kept
    some = rows[series.order[:_MOST_ROWS]]
    lags = _lags(some[:, ::step], None if most is None else most[::step], together) if complete else 0
    return _Found(whole, some, most, lags, together)


def _variance(rows: Floats | None, step: int = 1) -> NDArray[np.float64] | None:
    return None if rows is None or len(rows) < 2 else rows[:, ::step].var(axis=0, ddof=1, dtype=np.float64)


def correlation(
    rows: Floats,
    order: NDArray[np.intp],
    follows: NDArray[np.bool_],
    most: NDArray[np.float64] | None = None,
    *,
    together: bool = False,
) -> NDArray[np.float64]:
    """The correlation of successive rows, by columns: 1 less half of von Neumann's ratio, `[D]`; NaN of constant ones.

    Args:
        rows: `[n, D]`.
        order: Places of rows, in the order in which they came, `[r]`; these are finite.
        follows: Which came directly after the one before, `[r]`.
        most: The largest variance to go by, `[D]`.
        together: Of all columns together, as of one: `[1]`.

    Example:
        >>> rows = np.array([[0.0, 0.0], [1.0, 0.0]] * 4)
        >>> correlation(rows, np.arange(8), np.arange(8) > 0).round(2).tolist()
        [-0.75, nan]
    """
    if not follows.any():
        return np.full(1 if together else rows.shape[1], np.nan)
    kept, variance = _in_units(rows[order], most)
    return _of_differences(kept[follows] - kept[np.flatnonzero(follows) - 1], variance, together)


def _in_units(rows: Floats, most: NDArray[np.float64] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows whose largest value is 1 in each column, and the variances to go by: 0 of constant ones."""
    units = np.maximum(np.abs(rows).max(axis=0, initial=0.0).astype(np.float64), 1e-30)
    kept = rows / units
    variance = kept.var(axis=0, ddof=1) if len(kept) > 1 else np.zeros(kept.shape[1])
    varying = variance > 1e-12
    if most is not None:
        variance = np.minimum(variance, most / units / units)
    return kept, np.where(varying, variance, 0.0)


def _of_differences(
    differences: NDArray[np.float64], variance: NDArray[np.float64], together: bool
) -> NDArray[np.float64]:
    """The correlation of rows by their differences; NaN where nothing varies."""
    squares = np.square(differences).mean(axis=0) / 2
    if together:
        squares, variance = squares.sum(keepdims=True), variance.sum(keepdims=True)
    ratio = np.full(len(variance), np.nan)
    np.divide(squares, variance, out=ratio, where=variance > 1e-12)
    return 1 - ratio


def _lags(rows: Floats, most: NDArray[np.float64] | None, together: bool) -> int:
    """Up to which distance rows `[n, D]` resemble each other by more than chance, in the mean of the columns."""
    kept, variance = _in_units(rows, most)
    farthest, least = min(len(kept) // 2, _FARTHEST), len(kept) ** -0.5
    for lag in range(1, farthest + 1):
        each = _of_differences(kept[lag:] - kept[:-lag], variance, together)
        if np.isnan(each).all() or float(np.nanmean(each)) <= least:
            return lag - 1
    return farthest


def inflation_of(correlations: Floats) -> Floats:
    """By how much more the mean of rows is off whose successive ones are correlated.

    A stream has at least the mean correlation of all, for what changes more slowly than the window lasts does not show
    in it, and one that does not vary in it has that.

    Args:
        correlations: `[D]`, NaN of what does not vary, but not all.

    Example:
        >>> inflation_of(np.array([0.4, 0.5, 0.6])).round(1).tolist()
        [3.0, 3.0, 4.0]
    """
    mean = min(max(float(np.nanmean(correlations)), 0.0), _LARGEST)
    bounded = np.clip(np.nan_to_num(correlations, nan=mean), mean, _LARGEST)
    inflation: Floats = (1 + bounded) / (1 - bounded)
    return inflation


def key_of(part: Part) -> tuple[str, str]:
    """What a block's inflation is found by."""
    return part.rows, part.block.kind


def learned(calibration: Calibration, reference: Profile, m: int) -> Inflation:
    """The inflation of a window of m rows, as clean windows have taught it; `INDEPENDENT` without any.

    Between the sizes that were learned of it is interpolated. Smaller windows have that of the smallest, and larger
    ones one that grows as if nothing averaged out any more between windows: more than what it will be in either case.

    Args:
        calibration: The baseline's.
        reference: The baseline's profile.
        m: Rows of the window.
    """
    known = calibration.learned
    if known is None:
        return INDEPENDENT
    logs = np.log(known.rows)
    place = float(np.interp(np.log(max(m, 1)), logs, np.arange(len(logs))))
    beyond = max(m / known.rows[-1], 1.0)

    def at(inflations: Floats) -> Floats:
        low, share = int(place), place - int(place)
        between = inflations[low] if not share else inflations[low] ** (1 - share) * inflations[low + 1] ** share
        inflation: Floats = 1 + (between - 1) * beyond
        return inflation

    blocks = {key_of(part): at(part.inflation) for part in calibration.parts if part.inflation is not None}
    streams = {name: float(at(np.array(each))) for name, each in known.streams.items()}
    for part in calibration.parts:
        if (inflation := blocks.get(key_of(part))) is not None:
            if isinstance(part.block, Distributions):
                streams |= _named(reference, part.rows, inflation)
            elif isinstance(part.block, ClassShares):
                streams[part.rows] = float(np.mean(inflation))
    means = (float(np.mean(each)) for (_, kind), each in blocks.items() if kind == Distributions.kind)
    told = f"{_LEARNED}{known.windows} clean windows"
    return Inflation(m, blocks, streams, max(means, default=1.0), told, known.inside)


def in_time(window: Profile) -> bool:
    """Whether a window's rows came as time went by, as a monitor's do.

    Example:
        >>> in_time(Profile(info={"order": "in time"})), in_time(Profile())
        (True, False)
    """
    return window.info.get(ORDER) == IN_TIME


def said_of(inflation: Inflation, m: int, *, allowed: bool) -> str:
    """What a reader of a report should know of it.

    Args:
        inflation: Of the window.
        m: Its rows.
        allowed: Whether the verdict is by so many rows less.

    Example:
        >>> inflation = Inflation(100, {("outputs", "distributions"): np.array([4.0])}, known="learned from 9")
        >>> said_of(inflation, 100, allowed=True)
        '100 rows count as 25 independent ones: learned from 9'
    """
    effective = inflation.effective_rows(m)
    count = f"{effective:,.0f}" if effective >= 2 else f"{effective:.1f}"
    if allowed:
        more = "" if inflation.known.startswith(_LEARNED) else "; `learn` from clean windows tells more"
        return f"{m:,} rows count as {count} independent ones: {inflation.known}{more}"
    return (
        f"{inflation.known}: they count in full, as those of a sorted data set do, but frames that came one after"
        f" another would count as {count} independent ones; a DriftMonitor allows for that"
    )
