"""From sketches to bars, and charts as inline SVG, without a library.

A KLL bank and exact pixel counts both come down to the same thing, values with weights, and all charts and gaps come
from that. Bars span the 0.5% to 99.5% quantiles: one outlier in a million rows must not press the other rows into a
single bar. What lies outside is counted and reported, never dropped in silence.

Every chart fills the width it is given: the drawing is stretched (`preserveAspectRatio="none"`) and strokes keep their
width, so the same few hundred bytes look right in a 650 px frame and on a wide screen. Text would be stretched too;
so axis labels are HTML, set beside the drawing by the templates. Colours are CSS classes: `s0` is the first source,
drawn filled, `s1` the second, an outline over it. Everything that goes into the markup is a number or is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from lensai_integrations.drift.distances import kolmogorov_smirnov, pool
from lensai_integrations.sketches.bank import KLLBank

#: Ranks between which the bars lie.
ROBUST = (0.005, 0.995)
#: The whole range is drawn when it is at most this many times the robust one.
NEARLY_ALL = 1.25
MIN_BARS, MAX_BARS = 8, 32
#: A stream with at most this many different values gets a bar per value.
MAX_DISCRETE = 20


@dataclass(frozen=True)
class Distribution:
    """A stream as values with weights.

    Attributes:
        values: float64 `[m]`, ascending.
        weights: float64 `[m]`: how many rows each value stands for.
        n: Rows behind it.
    """

    values: Floats
    weights: Floats
    n: int

    @property
    def empty(self) -> bool:
        """Whether there is no row."""
        return self.values.size == 0 or self.n == 0

    def quantile(self, rank: float) -> float:
        """The smallest value with at least this share of the rows at or below it; NaN when empty.

        Example:
            >>> Distribution(np.array([1.0, 2.0]), np.array([3.0, 1.0]), 4).quantile(0.75)
            1.0
        """
        if self.empty:
            return float("nan")
        reached = np.cumsum(self.weights) >= rank * self.weights.sum() * (1 - 1e-12)
        return float(self.values[int(np.argmax(reached))])


@dataclass(frozen=True)
class Histogram:
    """The bars of one stream, for several distributions over the same bins.

    Attributes:
        edges: float64 `[bars + 1]`; of a discrete stream, the `[bars]` values instead.
        shares: Per distribution float64 `[bars]`: the share of its rows in each bar; all zero when empty.
        below: Per distribution, the share of its rows left of the first bar.
        above: Per distribution, the share of its rows right of the last bar.
        discrete: Whether each bar is one value.
    """

    edges: Floats
    shares: tuple[Floats, ...]
    below: tuple[float, ...]
    above: tuple[float, ...]
    discrete: bool = False

    @property
    def span(self) -> tuple[float, float]:
        """Left and right end of the drawn axis."""
        return float(self.edges[0]), float(self.edges[-1])


def bank_distributions(bank: KLLBank, columns: Sequence[int] | None = None) -> list[Distribution]:
    """One distribution per stream of a bank, or per chosen column; empty ones if the bank is."""
    chosen = range(bank.dim) if columns is None else columns
    n = bank.n
    if n == 0:
        return [Distribution(np.empty(0), np.empty(0), 0) for _ in chosen]
    values, weights = bank.sorted_view()
    return [Distribution(values[c].astype(np.float64), weights[c].astype(np.float64), n) for c in chosen]


def count_distribution(counts: NDArray[np.int64]) -> Distribution:
    """Exact counts `[256]` of the values 0 to 255 as a distribution."""
    present = np.flatnonzero(counts)
    return Distribution(present.astype(np.float64), counts[present].astype(np.float64), int(counts.sum()))


def histogram(
    distributions: Sequence[Distribution], span: tuple[float, float] | None = None, bars: int | None = None
) -> Histogram | None:
    """Bars of several distributions over common bins, or None when all of them are empty.

    Args:
        distributions: The same stream of several profiles, the one that is drawn first at the front.
        span: Fixed ends of the axis; None takes the robust range of all distributions together.
        bars: How many bars; None decides from the number of rows (Rice's rule, 8 to 32).

    Example:
        >>> drawn = histogram([Distribution(np.array([0.0, 1.0]), np.array([3.0, 1.0]), 4)])
        >>> drawn.discrete, drawn.shares[0].tolist()
        (True, [0.75, 0.25])
    """
    present = [d for d in distributions if not d.empty]
    if not present:
        return None
    if span is None:
        values = np.unique(np.concatenate([d.values[d.weights > 0] for d in present]))
        if values.size <= max(1, min(MAX_DISCRETE, max(d.n for d in present) // 2)):
            return _discrete(distributions, values)
        span = _common_span(present)
    amount = bars or int(np.clip(2 * max(d.n for d in present) ** (1 / 3), MIN_BARS, MAX_BARS))
    edges = np.linspace(*span, amount + 1)
    parts = [_binned(d, edges) for d in distributions]
    shares, below, above = zip(*parts, strict=True)
    return Histogram(edges, shares, below, above)


def gap(a: Distribution, b: Distribution) -> float | None:
    """The Kolmogorov-Smirnov distance of two distributions, 0 to 1; None if one is empty.

    Example:
        >>> a, b = (Distribution(np.array([0.0, x]), np.ones(2), 2) for x in (1.0, 2.0))
        >>> gap(a, a), gap(a, b)
        (0.0, 0.5)
    """
    if a.empty or b.empty:
        return None
    pooled = pool((a.values[None], a.weights[None]), (b.values[None], b.weights[None]))
    return float(kolmogorov_smirnov(pooled)[0])


def _common_span(distributions: Sequence[Distribution]) -> tuple[float, float]:
    low = min(d.quantile(ROBUST[0]) for d in distributions)
    high = max(d.quantile(ROBUST[1]) for d in distributions)
    least, most = min(d.values[0] for d in distributions), max(d.values[-1] for d in distributions)
    if most - least <= NEARLY_ALL * (high - low):
        return float(least), float(most)
    return (low, high) if high > low else (float(least), float(most))


def _binned(d: Distribution, edges: Floats) -> tuple[Floats, float, float]:
    """Shares per bar; the first bar includes its left edge."""
    if d.empty:
        return np.zeros(len(edges) - 1), 0.0, 0.0
    total = d.weights.sum()
    counts = np.histogram(d.values, edges, weights=d.weights)[0]
    below, above = d.weights[d.values < edges[0]].sum(), d.weights[d.values > edges[-1]].sum()
    return counts / total, float(below / total), float(above / total)


def _discrete(distributions: Sequence[Distribution], values: Floats) -> Histogram:
    shares = []
    for d in distributions:
        places: NDArray[Any] = np.searchsorted(values, d.values)
        kept = d.weights > 0
        totals = np.bincount(places[kept], d.weights[kept], minlength=len(values))
        shares.append(totals / max(totals.sum(), 1))
    none = (0.0,) * len(distributions)
    return Histogram(values, tuple(shares), none, none, discrete=True)


Floats = NDArray[np.float64]

#: Drawing units of a small histogram; stretched to the cell it stands in.
WIDTH, HEIGHT = 320.0, 40.0
#: Widest bar of a discrete stream, in drawing units.
_WIDEST = 26.0


def histogram_svg(
    drawn: Histogram, title: str, sources: Sequence[int], height: float = HEIGHT, top: float = 0.0
) -> Markup:
    """A histogram: the first source filled, the second as an outline over it.

    Args:
        drawn: The bars.
        title: What is seen, in words; read aloud and shown on hovering.
        sources: Number of the source of each distribution, for its colour.
        height: Drawing units.
        top: Share at the top of the y axis; higher bars are cut off there. 0 takes the tallest of all sources.

    Example:
        >>> bars = Histogram(np.array([0.0, 1.0, 2.0]), (np.array([0.5, 0.5]),), (0.0,), (0.0,))
        >>> "<title>a &lt; b</title>" in histogram_svg(bars, "a < b", [0])
        True
    """
    top = top or max(float(shares.max()) for shares in drawn.shares)
    lefts, rights = _places(drawn)
    parts = []
    for shares, source in zip(drawn.shares, sources, strict=True):
        if shares.sum() > 0:
            ys = height - (height - 2) * np.minimum(shares / top, 1.0)
            path = _bars_path(lefts, rights, ys, height) if drawn.discrete else _steps_path(lefts, rights, ys, height)
            parts.append(Markup('<path class="s{}" d="{}"/>').format(source, path))
    return _svg(parts, title, WIDTH, height)


def bands_svg(
    bands: Sequence[tuple[str, Floats, Floats]], curves: Sequence[tuple[str, Floats]], title: str, height: float
) -> Markup:
    """Filled areas between two curves each, and curves over them; y is 0 at the bottom and 1 at the top.

    Example:
        >>> flat = np.array([0.5, 0.5])
        >>> "M0 5L" in bands_svg([("wide", flat - 0.5, flat)], [], "a band", 10)
        True
    """
    parts = [_band(name, low, high, height) for name, low, high in bands]
    parts += [_curve(name, ys, height) for name, ys in curves]
    return _svg(parts, title, WIDTH, height)


def bar_svg(
    share: float,
    marks: Sequence[tuple[int, float]],
    top: float,
    title: str,
    colour: int = 0,
    ranges: Sequence[tuple[int, float, float]] = (),
) -> Markup:
    """One horizontal bar with marks across it, and lines along it.

    Args:
        share: Length of the bar.
        marks: Source number and place of each mark.
        top: The share that fills the width.
        title: What is seen, in words.
        colour: Source number of the bar.
        ranges: Source number and both ends of each line.

    Example:
        >>> 'width="160"' in bar_svg(0.5, [(1, 0.4)], 1.0, "half")
        True
    """
    scale = WIDTH / top if top > 0 else 0.0
    parts = [Markup('<rect class="s{}" y="2" height="10" width="{}"/>').format(colour, _short(scale * share))]
    for source, low, high in ranges:
        ends = [_short(min(max(scale * end, 0.0), WIDTH)) for end in (low, high)]
        parts.append(Markup('<path class="s{} range" d="M{} 7H{}"/>').format(source, *ends))
    for source, value in marks:
        x = _short(min(max(scale * value, 1.0), WIDTH - 1))
        parts.append(Markup('<path class="s{} mark" d="M{} 0V14"/>').format(source, x))
    return _svg(parts, title, WIDTH, 14)


def ranges_svg(
    lanes: Sequence[tuple[int, tuple[float, float, float] | None]], span: tuple[float, float], title: str
) -> Markup:
    """A range with a mark for each source, one below the other.

    Args:
        lanes: Source number, and low end, mark and high end; None leaves the lane empty.
        span: Ends of the axis.
        title: What is seen, in words.

    Example:
        >>> 'class="s0" d="M80 1H240V9H80Z"' in ranges_svg([(0, (1.0, 2.0, 3.0))], (0.0, 4.0), "1 to 3")
        True
    """
    scale = WIDTH / (span[1] - span[0]) if span[1] > span[0] else 0.0
    parts = []
    for lane, (source, ends) in enumerate(lanes):
        if ends is None:
            continue
        y = 12 * lane + 1
        low, middle, high = (scale * (end - span[0]) if scale else WIDTH / 2 for end in ends)
        low, high = max(min(low, WIDTH - 3), 0.0), min(max(high, low + 3), WIDTH)
        box = f"M{_short(low)} {y}H{_short(high)}V{y + 8}H{_short(low)}Z"
        parts.append(Markup('<path class="s{}" d="{}"/>').format(source, box))
        tick = f"M{_short(min(max(middle, 1.0), WIDTH - 1))} {y - 1}V{y + 9}"
        parts.append(Markup('<path class="{}" d="{}"/>').format("fm" if source == 0 else f"s{source} mark", tick))
    return _svg(parts, title, WIDTH, 12 * len(lanes) - 2)


def _svg(parts: Sequence[Markup], title: str, width: float, height: float) -> Markup:
    frame = Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img"><title>{}</title>{}</svg>')
    return frame.format(_short(width), _short(height), title, Markup("").join(parts))


def _places(drawn: Histogram) -> tuple[Floats, Floats]:
    """Left and right end of each bar in drawing units."""
    low, high = drawn.span
    if not drawn.discrete:
        xs = WIDTH * (drawn.edges - low) / (high - low)
        return xs[:-1], xs[1:]
    if high == low:
        return np.array([(WIDTH - _WIDEST) / 2]), np.array([(WIDTH + _WIDEST) / 2])
    nearest = float(np.diff(drawn.edges).min()) / (high - low) * WIDTH
    wide = float(np.clip(0.7 * nearest, 2.0, _WIDEST))
    lefts = (WIDTH - wide) * (drawn.edges - low) / (high - low)
    return lefts, lefts + wide


def _steps_path(lefts: Floats, rights: Floats, ys: Floats, height: float) -> str:
    """The outline of bars that touch."""
    steps = "".join(f"V{_short(y)}H{_short(right)}" for y, right in zip(ys, rights, strict=True))
    return f"M{_short(lefts[0])} {_short(height)}{steps}V{_short(height)}"


def _bars_path(lefts: Floats, rights: Floats, ys: Floats, height: float) -> str:
    """The outlines of bars that stand alone."""
    bars = zip(lefts, rights, ys, strict=True)
    return "".join(
        f"M{_short(left)} {_short(height)}V{_short(y)}H{_short(right)}V{_short(height)}"
        for left, right, y in bars
        if y < height
    )


def _points(ys: Floats, height: float) -> list[str]:
    xs = np.linspace(0, WIDTH, len(ys)) if len(ys) > 1 else np.zeros(1)
    heights = height * (1 - np.clip(ys, 0, 1))
    return [f"{_short(x)} {_short(y)}" for x, y in zip(xs, heights, strict=True)]


def _curve(name: str, ys: Floats, height: float) -> Markup:
    points = _points(ys, height)
    points += [f"{_short(WIDTH)} {points[0].split()[1]}"] if len(points) == 1 else []
    return Markup('<path class="{}" d="M{}"/>').format(name, "L".join(points))


def _band(name: str, low: Floats, high: Floats, height: float) -> Markup:
    there, back = _points(high, height), _points(low, height)[::-1]
    if len(there) == 1:
        there, back = (
            [*there, f"{_short(WIDTH)} {there[0].split()[1]}"],
            [f"{_short(WIDTH)} {back[0].split()[1]}", *back],
        )
    return Markup('<path class="{}" d="M{}Z"/>').format(name, "L".join([*there, *back]))


def _short(value: float) -> str:
    """A coordinate with one decimal at most, and no minus zero."""
    return f"{round(float(value), 1) + 0.0:g}"
