"""An embedding in one picture: the quantiles of all its dimensions, sorted, as a fan.

Nobody reads 512 histograms. Sorted by median, the dimensions show at one glance whether a layer is dead, one-sided,
saturated, or ruled by a few of its dimensions; the numbers beside it count those cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from lensai_integrations.profiles.groups import Group
from lensai_integrations.report.plots import bands_svg
from lensai_integrations.report.streams import SourceShare
from lensai_integrations.report.words import count, interval, listing, number, significant_decimals

Floats = NDArray[np.float64]

#: Points across a fan; wider embeddings are drawn as means of neighbouring dimensions.
MOST_POINTS = 160
HEIGHT = 130.0
_RANKS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_CONSTANT = "Dimensions that had the same value for every row: they carry nothing."
_SPREAD = "Distance from the 5% to the 95% quantile: the narrowest, the widest and the median dimension."
_EFFECTIVE = "Participation ratio of the covariance C, (tr C)² / tr C²: how many dimensions share the variance."
_LOWEST, _LOW, _QUARTER, _MIDDLE, _THREE_QUARTERS, _HIGH, _HIGHEST = range(7)


@dataclass(frozen=True)
class FanFact:
    """A number beside a fan, and on hovering what it means."""

    term: str
    text: str
    title: str = ""


@dataclass(frozen=True)
class Fan:
    """The overview of one layer.

    Attributes:
        name: The layer.
        read: How its output was read, in words.
        chart: The fan, or None when there are no rows.
        low, high: Ends of the y axis.
        caption: What the x axis is.
        facts: What can be counted, e.g. constant dimensions.
    """

    name: str
    read: str
    chart: Markup | None
    low: str
    high: str
    caption: str
    facts: tuple[FanFact, ...]


def fan(parts: Sequence[SourceShare]) -> Fan:
    """The overview of one layer, from its group in every source that has it. The dimensions are sorted by the first."""
    group = parts[0].group
    name = str(group.info.get("layer") or group.name.removeprefix("embeddings/"))
    if group.bank is None or group.bank.n == 0:
        return Fan(name, reading(group), None, "", "", "", (FanFact("rows", "no rows"),))
    quantiles = _quantiles(group)
    order = np.argsort(quantiles[:, _MIDDLE], kind="stable")
    others = [_quantiles(part.group)[order] for part in parts[1:] if _matches(part.group, group)]
    low, high = _axis([quantiles, *others])
    decimals = significant_decimals(high - low)
    width = group.bank.dim
    caption = f"{count(width, 'dimension')}, sorted by median" + _averaged(width)
    return Fan(
        name=name,
        read=reading(group),
        chart=_draw(quantiles[order], others, low, high, f"Quantiles of {caption}: {name}"),
        low=number(low, decimals),
        high=number(high, decimals),
        caption=caption,
        facts=tuple(_facts(parts, quantiles)),
    )


def reading(group: Group) -> str:
    """How a layer's output became rows, in words.

    Example:
        >>> reading(Group("embeddings/conv", info={"width": 512, "reduce": "mean", "axes": 4}))
        '512 wide, reduced by mean'
    """
    info = group.info
    texts = [f"{count(int(info['width']))} wide"] if info.get("width") else []
    texts += [f"reduced by {info['reduce']}"] if info.get("reduce") and info.get("axes") != 2 else []
    if info.get("projected_from"):
        texts.append(f"projected at random from {count(int(info['projected_from']))}, seed {info.get('seed')}")
    return ", ".join(texts)


def _quantiles(group: Group) -> Floats:
    assert group.bank is not None
    return np.asarray(group.bank.quantiles(np.array(_RANKS)), np.float64)


def _matches(group: Group, first: Group) -> bool:
    bank = group.bank
    return bank is not None and bank.n > 0 and group.streams == first.streams


def _averaged(width: int) -> str:
    per_point = -(-width // MOST_POINTS)
    return f"; each point is the mean of {per_point}" if per_point > 1 else ""


def _axis(all_quantiles: Sequence[Floats]) -> tuple[float, float]:
    """Ends of the y axis: dimensions a hundred times as wide as the others are cut off, not the others flattened."""
    low = min(float(np.quantile(q[:, _LOW], 0.01)) for q in all_quantiles)
    high = max(float(np.quantile(q[:, _HIGH], 0.99)) for q in all_quantiles)
    if not high > low:
        return low - 0.5, high + 0.5
    margin = 0.04 * (high - low)
    return (0.0 if 0 <= low < high / 4 else low - margin), high + margin


def _draw(quantiles: Floats, others: Sequence[Floats], low: float, high: float, title: str) -> Markup:
    ys = (_thinned(quantiles) - low) / (high - low)
    pairs = (("f1", _LOWEST, _HIGHEST), ("f2", _LOW, _HIGH), ("f3", _QUARTER, _THREE_QUARTERS))
    bands = [(name, ys[:, a], ys[:, b]) for name, a, b in pairs]
    curves = [("fm", ys[:, _MIDDLE])]
    if low < 0 < high:
        curves.insert(0, ("zero", np.full(2, -low / (high - low))))
    for other in others[:1]:
        over = (_thinned(other) - low) / (high - low)
        curves += [("s1", over[:, column]) for column in (_LOW, _MIDDLE, _HIGH)]
    return bands_svg(bands, curves, title, HEIGHT)


def _thinned(quantiles: Floats) -> Floats:
    """At most `MOST_POINTS` rows: means of neighbours."""
    per_point = -(-len(quantiles) // MOST_POINTS)
    starts = np.arange(0, len(quantiles), per_point)
    sums = np.add.reduceat(quantiles, starts, axis=0)
    return sums / np.diff([*starts, len(quantiles)])[:, None]


def _facts(parts: Sequence[SourceShare], quantiles: Floats) -> list[FanFact]:
    group = parts[0].group
    bank = group.bank
    assert bank is not None
    constant = np.flatnonzero(np.asarray(bank.min) == np.asarray(bank.max))
    named = f": {listing([group.streams[i] for i in constant], 6)}" if constant.size else ""
    spread = quantiles[:, _HIGH] - quantiles[:, _LOW]
    ends = interval(float(spread.min()), float(spread.max()))
    facts = [
        FanFact("rows", ", ".join(f"{part.source} {count(part.group.n)}" for part in parts)),
        FanFact("constant dimensions", f"{count(constant.size)} of {count(bank.dim)}{named}", _CONSTANT),
        FanFact("spread", f"{ends}, median {number(float(np.median(spread)))}", _SPREAD),
    ]
    effective = effective_dimensions(group)
    if effective is not None:
        facts.append(FanFact("effective dimensions", f"{number(effective, 1)} of {count(bank.dim)}", _EFFECTIVE))
    return facts


def effective_dimensions(group: Group) -> float | None:
    """Participation ratio of the covariance C, (tr C)^2 / tr C^2: over how many dimensions the variance is spread.

    None where no covariance is kept or nothing varies. Source: Gao et al., A theory of multineuronal dimensionality,
    dynamics and measurement, 2017, equation 3.
    """
    moments = group.moments
    covariance: Any = None if moments is None else moments.covariance
    if covariance is None or not np.isfinite(covariance).all():
        return None
    total = float(np.square(covariance).sum())
    return float(np.trace(covariance)) ** 2 / total if total > 0 else None
