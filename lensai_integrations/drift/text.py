"""Numbers, changes and chances in words, as reports say them.

Read in a terminal, a log file or an e-mail, so there is nothing outside ASCII. Words agree with the numbers beside
them: what is said to have risen is shown with as many figures as it takes to see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

#: Shares that differ by less are the same: what counting leaves of rounding.
_SAME = 1e-9
_MOST_DECIMALS = 6


def describe_quantiles(before: Sequence[float], after: Sequence[float]) -> str:
    """What changed between two triples of quantiles at 5%, 50% and 95%.

    Example:
        >>> describe_quantiles((40, 131, 211), (22, 71, 118))
        'fell: median 131 -> 71'
        >>> describe_quantiles((40, 131, 211), (100, 131, 160))
        'narrowed: middle 90% 40 to 211 -> 100 to 160'
    """
    if any(map(math.isnan, (*before, *after))):
        return "no values to compare"
    (low, middle, high), (low2, middle2, high2) = before, after
    values, spread, spread2 = (*before, *after), high - low, high2 - low2
    if abs(middle2 - middle) > 0.1 * max(spread, 1e-12):
        text = _telling(values, lambda shown: shown[4] - shown[1], middle2 - middle)
        return f"{'rose' if middle2 > middle else 'fell'}: median {text[1]} -> {text[4]}"
    if not 0.85 * spread <= spread2 <= 1.15 * spread:
        text = _telling(values, lambda shown: shown[5] - shown[3] - (shown[2] - shown[0]), spread2 - spread)
        word = "widened" if spread2 > spread else "narrowed"
        return f"{word}: middle 90% {text[0]} to {text[2]} -> {text[3]} to {text[5]}"
    text = _telling(values, lambda _: 0.0, 0.0)
    if tuple(before) == tuple(after):
        return f"as before: median {text[1]}"
    if text[:3] == text[3:]:
        return f"changed shape: median {text[1]} and middle 90% {text[0]} to {text[2]} as before"
    ranges = f"middle 90% {text[0]} to {text[2]} -> {text[3]} to {text[5]}"
    return f"changed shape: {ranges}, median {text[1]} -> {text[4]}"


def _telling(values: Sequence[float], change: Callable[[list[float]], float], actual: float) -> list[str]:
    """Numbers with about three figures of their range, or as many more as it takes to see a change.

    Args:
        values: The numbers.
        change: What changed, computed of the numbers as they are shown.
        actual: The same of the numbers as they are.
    """
    decimals = decimals_for(*values)
    ways: list[Callable[[float], str]] = [
        partial(number, decimals=more) for more in range(decimals, _MOST_DECIMALS + 1)
    ]
    ways += [f"{{:.{figures}g}}".format for figures in range(3, 18)]
    for way in ways:
        text = [way(value) for value in values]
        shown = change([float(figure.replace(",", "")) for figure in text])
        if (shown > 0) == (actual > 0) and (shown < 0) == (actual < 0):
            break
    return text


def number(value: float, decimals: int) -> str:
    """A number with a fixed number of decimals, in powers of ten where that would be too long.

    Example:
        >>> number(131.2, 0), number(-0.001, 2), number(1234567.0, 0), number(3e12, 0), number(math.nan, 1)
        ('131', '0.00', '1,234,567', '3e+12', '-')
    """
    if math.isnan(value):
        return "-"
    if abs(value) >= 1e7:
        return f"{value:.3g}"
    text = f"{value:,.{decimals}f}"
    return text if text.strip("-0.") else text.lstrip("-")


def decimals_for(*values: float) -> int:
    """Decimals that show about three figures of the range of some values; none for whole numbers.

    Example:
        >>> decimals_for(40, 211), decimals_for(0.1, 0.35), decimals_for(224, 224)
        (0, 3, 0)
    """
    if all(value == round(value) for value in values if math.isfinite(value)):
        return 0
    spread = max(values) - min(values)
    scale = spread if spread > 0 else abs(values[0]) or 1.0
    return min(max(2 - math.floor(math.log10(scale)), 0), _MOST_DECIMALS) if math.isfinite(scale) else 0


def percent(share: float) -> str:
    """A share of rows as a percentage.

    Example:
        >>> percent(0.31), percent(0.0312), percent(0.0)
        ('31%', '3.1%', '0%')
    """
    return f"{100 * share:.0f}%" if share >= 0.0995 or share == 0 else f"{100 * share:.2g}%"


def percents(before: float, after: float) -> tuple[str, str]:
    """Two shares as percentages, with as many figures as it takes to tell them apart.

    Example:
        >>> percents(0.1, 0.31), percents(0.502, 0.498), percents(0.5, 0.5)
        (('10%', '31%'), ('50.2%', '49.8%'), ('50%', '50%'))
    """
    texts, decimals = (percent(before), percent(after)), 0
    while texts[0] == texts[1] and abs(after - before) > _SAME and decimals < 15:
        decimals += 1
        texts = f"{100 * before:.{decimals}f}%", f"{100 * after:.{decimals}f}%"
    return texts


def p_text(p: float, windows: int = 0) -> str:
    """A p-value as people write it; of clean windows none smaller than they can show.

    Example:
        >>> p_text(0.0312), p_text(3.2e-7), p_text(1e-40), p_text(math.nan), p_text(1e-9, 1000)
        ('0.031', '3e-07', '<1e-16', '-', '<0.001')
    """
    if math.isnan(p):
        return "-"
    if windows and p * windows < 1:
        return f"<{1 / windows:.1g}"
    return "<1e-16" if p < 1e-16 else f"{p:.0e}" if p < 1e-3 else f"{p:.2g}"


def certainty(p: float, windows: int) -> str:
    """How surprising something is, in words.

    Example:
        >>> certainty(0.03, 1000), certainty(1e-9, 1000), certainty(1e-9, 0)
        ('p 0.03', 'beyond anything in 1,000 clean windows', 'p 1e-09')
    """
    return f"beyond anything in {windows:,} clean windows" if p * windows < 1 and windows else f"p {p_text(p)}"


def describe_shares(before: float, after: float) -> str:
    """How a share of rows changed.

    Example:
        >>> describe_shares(0.1, 0.31), describe_shares(0.5, 0.5)
        ('rose from 10% to 31% of rows', 'stayed at 50% of rows')
    """
    first, second = percents(before, after)
    if first == second:
        return f"stayed at {first} of rows"
    return f"{'rose' if after > before else 'fell'} from {first} to {second} of rows"


def two_decimals(value: float) -> str:
    """A number with two decimals.

    Example:
        >>> two_decimals(0.123), two_decimals(math.inf), two_decimals(math.nan)
        ('0.12', 'inf', '-')
    """
    return "-" if math.isnan(value) else "inf" if math.isinf(value) else f"{value:.2f}"
