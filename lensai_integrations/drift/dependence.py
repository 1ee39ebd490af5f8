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
of the mean square successive difference to the variance, 1941), which a shift of all rows leaves as it is; one change
within the window is taken off first. Of scenes, which stay alike for long, the correlations of rows further apart are
summed. Rows of a data set may be sorted, which is no dependence: so only a window whose rows came as time went by, as a
monitor's do, is held against fewer rows; of others it is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.calibration import Calibration, Part, group_of, is_top_class, measured
from lensai_integrations.drift.features import ClassShares, Distributions, Floats, Principal
from lensai_integrations.profiles.names import is_labels
from lensai_integrations.profiles.profile import IN_TIME, ORDER, Profile
from lensai_integrations.sketches.rows import RowSample

#: Correlations of successive rows this many times 1 / sqrt(pairs) away from 0 are no chance: about 1 in 600.
_VISIBLE: Final = 3.5
#: Columns of a group that are looked at to see whether successive rows resemble each other.
_LOOKED_AT: Final = 32
#: With fewer pairs in all no correlation can be that far away.
_FEWEST_PAIRS: Final = 15
#: A correlation is at most this.
_LARGEST: Final = 1 - 1e-6
#: Rows this far apart are not looked at, nor more rows than these where that takes long.
_FARTHEST, _MOST_ROWS = 250, 500
#: In shorter windows no change is told from dependence.
_SHORT: Final = 40
#: More classes in a window than these are not looked at.
_MOST_CLASSES: Final = 256


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
        """As how many independent rows a window of m counts, in the mean of the streams of the group that has least."""
        groups = [each for (_, kind), each in self.blocks.items() if kind == Distributions.kind]
        return m * min((float(np.mean(1 / np.clip(each, 1.0, m))) for each in groups), default=1.0)


#: Of rows that do not depend on each other.
INDEPENDENT: Final = Inflation()


def visible(window: Profile, calibration: Calibration | None = None) -> Inflation:
    """What successive rows of a window show that resemble each other by more than chance; `INDEPENDENT` if none do.

    Labels are not looked at; what depends on each other otherwise may in them as well, and they count as little.

    Args:
        window: With the sample of its rows.
        calibration: The baseline's, for its blocks of whole rows.

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
    data = window.rows.data
    found: dict[str, NDArray[np.float64]] = {}
    for name, rows in data.items():
        if not is_labels(name) and rows.shape[1] and (seen := _correlations(name, rows, series)) is not None:
            found[name] = seen
    if not found:
        return INDEPENDENT
    means = {name: float(np.nanmean(correlations)) for name, correlations in found.items()}
    blocks: dict[tuple[str, str], Floats] = {}
    streams: dict[str, float] = {}
    for name in (name for name in found if not is_top_class(name)):
        of_name = series.only(measured(name, data[name]))
        level = without_change(data[name][of_name.order])
        lags = _lags(level, of_name)
        blocks[name, Distributions.kind] = each = np.maximum(inflation_of(found[name]), _summed(level, lags))
        streams |= _named(window, name, each)
        for part in calibration.parts if calibration is not None else ():
            if part.rows == name and not isinstance(part.block, Distributions):
                blocks[key_of(part)] = _of_features(part, data[name][of_name.order], lags, float(np.mean(each)))
    for name in (name for name in data if is_top_class(name)):  # a scene may have one class alone
        least = max(float(inflation_of(np.array([means.get(name, 0.0)]))[0]), streams.get(group_of(name), 1.0))
        if least > 1:
            streams[name], blocks[name, ClassShares.kind] = least, np.array(least)
    largest = max(means.values())
    known = f"successive rows resemble each other in {', '.join(found)} (correlation {largest:.2f})"
    return Inflation(window.n, blocks, streams, max(streams.values()), known)


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
        return cls(order, np.concatenate([[False], np.diff(numbers[order]) == 1])[: len(order)])

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


def _correlations(name: str, rows: Floats, series: _Series) -> NDArray[np.float64] | None:
    """Correlations of successive rows `[D]`, if they are no chance in the mean of the columns that vary."""
    series = series.only(measured(name, rows))
    if is_top_class(name):
        classes = np.unique(rows[series.order, 0])
        if len(classes) > _MOST_CLASSES:
            return None
        of_each = (rows[:, :1] == classes).astype(np.float32)
        correlations = correlation(of_each, series.order, series.follows, together=True)
    else:
        correlations = correlation(rows[:, :: -(-rows.shape[1] // _LOOKED_AT)], series.order, series.follows)
    pairs = series.pairs
    if pairs < _FEWEST_PAIRS or np.isnan(correlations).all():
        return None
    if float(np.nanmean(correlations)) <= _VISIBLE / pairs**0.5:
        return None
    if is_top_class(name) or rows.shape[1] <= _LOOKED_AT:
        return correlations
    return correlation(rows, series.order, series.follows)


def correlation(
    rows: Floats, order: NDArray[np.intp], follows: NDArray[np.bool_], *, together: bool = False
) -> NDArray[np.float64]:
    """The correlation of successive rows, by columns: 1 less half of von Neumann's ratio, `[D]`; NaN of constant ones.

    Args:
        rows: `[n, D]`.
        order: Places of rows, in the order in which they came, `[r]`; these are finite.
        follows: Which came directly after the one before, `[r]`.
        together: Of all columns together, as of one: `[1]`.

    Example:
        >>> rows = np.array([[0.0, 0.0], [1.0, 0.0]] * 4)
        >>> correlation(rows, np.arange(8), np.arange(8) > 0).round(1).tolist()
        [-0.5, nan]
    """
    if not follows.any():
        return np.full(1 if together else rows.shape[1], np.nan)
    level = without_change(rows[order])
    differences = np.square(level[follows] - level[np.flatnonzero(follows) - 1]).mean(axis=0) / 2
    variance = level.var(axis=0, ddof=2) if len(level) > 2 else np.zeros(rows.shape[1])
    if together:
        differences, variance = differences.sum(keepdims=True), variance.sum(keepdims=True)
    ratio = np.full(len(variance), np.nan)
    np.divide(differences, variance, out=ratio, where=variance > 1e-12)
    return 1 - ratio


def without_change(rows: Floats) -> NDArray[np.float64]:
    """Rows `[n, D]` less their mean before and after the one place where they change most, the largest being 1.

    What begins in a window is no dependence, and would look like one: all rows after it differ from all before it. In
    fewer than 40 rows both look alike, and their mean alone is taken off. The place is where the sum of squares between
    both parts is largest (E. S. Page, 1955), of all columns together.

    Example:
        >>> level = without_change(np.repeat([1.0, 5.0], [30, 20])[:, None])
        >>> bool(np.allclose(level, 0)), without_change(np.array([[1.0], [3.0]])).ravel().round(2).tolist()
        (True, [-0.33, 0.33])
    """
    values = rows / np.maximum(np.abs(rows).max(axis=0, initial=0.0).astype(np.float64), 1e-30)
    n, looked_at = len(values), values[:, :: -(-values.shape[1] // _LOOKED_AT)]
    least = max(n // 20, 2)
    if n < _SHORT:
        return np.asarray(values - values.mean(axis=0), np.float64)
    spread = looked_at.std(axis=0)
    sums = np.cumsum((looked_at - looked_at.mean(axis=0)) / np.where(spread > 1e-6, spread, np.inf), axis=0)
    before = np.arange(least, n - least + 1)
    between = np.square(sums[before - 1]).sum(axis=1) / (before * (n - before))
    place = int(before[np.argmax(between)])
    parts = (part - part.mean(axis=0) for part in (values[:place], values[place:]))
    return np.concatenate(list(parts)).astype(np.float64)


def _lags(level: NDArray[np.float64], series: _Series) -> int:
    """Up to which distance rows resemble each other by more than chance, in the mean of the columns; 0 if unknown.

    Args:
        level: Rows in the order in which they came, less their mean, `[n, D]`.
        series: What came after what.
    """
    n = len(level)
    if series.pairs < 0.9 * (n - 1):  # in a sample of many rows those that are near each other are few
        return 0
    looked_at = level[:, :: -(-level.shape[1] // _LOOKED_AT)]
    for lag in range(1, min(n // 2, _FARTHEST) + 1):
        if float(np.mean(_at_lag(looked_at, lag))) <= n**-0.5:
            return lag - 1
    return min(n // 2, _FARTHEST)


def _at_lag(level: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """The correlation of rows so far apart, by columns, `[D]`; 0 of constant ones."""
    variance = np.square(level).sum(axis=0)
    products = np.einsum("nd,nd->d", level[lag:], level[:-lag])
    result = np.zeros(level.shape[1])
    np.divide(products, variance, out=result, where=variance > 1e-12 * len(level))
    return result


def _summed(level: NDArray[np.float64], lags: int) -> NDArray[np.float64]:
    """By how much more the mean of rows is off, by columns, `[D]`: 1 and twice the correlations up to a distance.

    What stays alike for long, as the frames of a scene do, has them all (C. J. Geyer, Practical Markov chain Monte
    Carlo, 1992). A column has at least the mean of all.
    """
    total = np.zeros(level.shape[1])
    for lag in range(1, lags + 1):
        total += _at_lag(level, lag)
    return np.asarray(1 + 2 * np.maximum(total, max(float(total.mean()), 0.0)))


def inflation_of(correlations: Floats, least: float = 0.0) -> Floats:
    """By how much more the mean of rows is off whose successive ones are correlated.

    A stream has at least the mean correlation of all, for what changes more slowly than the window lasts does not show
    in it, and one that does not vary in it has that.

    Args:
        correlations: Of any shape; NaN of what does not vary.
        least: Correlation that each has at the least.

    Example:
        >>> inflation_of(np.array([0.4, 0.5, 0.6])).round(1).tolist()
        [3.0, 3.0, 4.0]
    """
    mean = least if np.isnan(correlations).all() else max(float(np.nanmean(correlations)), least)
    bounded = np.clip(np.nan_to_num(correlations, nan=mean), min(mean, _LARGEST), _LARGEST)
    inflation: Floats = (1 + bounded) / (1 - bounded)
    return inflation


def _of_features(part: Part, rows: Floats, lags: int, least: float) -> Floats:
    """The inflation of a block's features of whole rows, `[F]`: of components each, of waves all together.

    Args:
        part: The block.
        rows: In the order in which they came, finite, `[n, D]`.
        lags: Up to which distance they resemble each other.
        least: What each has at the least.
    """
    level = without_change(part.block.features(rows[:_MOST_ROWS]))
    if isinstance(part.block, Principal):
        return np.maximum(_summed(level, lags), least)
    total = float(np.square(level).sum())
    alike = sum(float(np.sum(level[lag:] * level[:-lag])) for lag in range(1, min(lags, len(level) - 1) + 1))
    return np.full(part.block.width, max(1 + 2 * alike / total if total > 0 else 1.0, least))


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
    told = f"learned from {known.windows} clean windows"
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
        >>> inflation = Inflation(100, {("outputs", "distributions"): np.array([4.0])}, known="so it was")
        >>> said_of(inflation, 100, allowed=True)
        '100 rows count as 25 independent ones: so it was'
    """
    effective = inflation.effective_rows(m)
    count = f"{effective:,.0f}" if effective >= 2 else f"{effective:.1f}"
    if allowed:
        return f"{m:,} rows count as {count} independent ones: {inflation.known}"
    return (
        f"{inflation.known}: they count in full, as those of a sorted data set do, but frames that came one after"
        f" another would count as {count} independent ones; a DriftMonitor allows for that"
    )
