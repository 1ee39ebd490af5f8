"""Numbers and phrases as people read them.

A report is read for orders of magnitude, so numbers keep about three figures. How many decimals a stream's
numbers get follows from how far the stream spreads, not from each number alone: a median of 118 beside a
range of 40 to 211 is comparable at a glance, 118.3 beside 40.02 and 2.1e+02 is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_MINUS = "\N{MINUS SIGN}"
_EN_DASH = "\N{EN DASH}"
#: At and above this a number is written with a power of ten.
_LARGE = 1e7


def number(value: float, decimals: int | None = None) -> str:
    """A number with thousands separators; an en dash where there is none (NaN).

    Args:
        value: Any float.
        decimals: Digits after the point; None takes three significant figures.

    Example:
        >>> number(12345.6), number(0.12345), number(118.3, 0), number(float("nan"))
        ('12,346', '0.123', '118', '–')
    """
    if math.isnan(value):
        return _EN_DASH
    size = abs(value)
    if math.isinf(value) or size >= _LARGE or (decimals is None and 0 < size < 1e-3):
        text = f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e").replace("inf", "∞")
    else:
        text = f"{value:,.{significant_decimals(size) if decimals is None else decimals}f}"
        if decimals is None and "." in text:
            text = text.rstrip("0").rstrip(".")
    if not any(digit in text for digit in "123456789∞"):
        text = text.lstrip("-")  # no minus zero
    return text.replace("-", _MINUS)


def significant_decimals(spread: float) -> int:
    """Decimals that show three figures of a spread; 0 to 4.

    Example:
        >>> significant_decimals(171.0), significant_decimals(8.2), significant_decimals(0.3), significant_decimals(0.0)
        (0, 2, 3, 0)
    """
    if not spread > 0 or math.isinf(spread):
        return 0
    return min(max(2 - math.floor(math.log10(spread)), 0), 4)


def interval(low: float, high: float, decimals: int | None = None) -> str:
    """Two numbers as a range, or the number if both are the same.

    Example:
        >>> interval(40.2, 211.0, 0), interval(3.0, 3.0), interval(-1.5, 2.0)
        ('40 – 211', '3', '−1.5 – 2')
    """
    ends = number(low, decimals), number(high, decimals)
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} {_EN_DASH} {ends[1]}"


def count(amount: int, noun: str = "", plural: str = "") -> str:
    """An amount with thousands separators, and a noun that agrees with it.

    Example:
        >>> count(6000), count(1, "image"), count(2000, "image"), count(2, "class", "classes")
        ('6,000', '1 image', '2,000 images', '2 classes')
    """
    if not noun:
        return f"{amount:,}"
    return f"{amount:,} {noun if amount == 1 else plural or noun + 's'}"


def percent(fraction: float) -> str:
    """A fraction as a percentage with one decimal, and never a false 0 or 100.

    Example:
        >>> percent(0.5), percent(0.0123), percent(0.0), percent(1e-5), percent(0.9999), percent(1.0)
        ('50.0%', '1.2%', '0%', '<0.1%', '>99.9%', '100%')
    """
    if math.isnan(fraction):
        return _EN_DASH
    points = 100 * fraction
    if 0 < points < 0.1:
        return "<0.1%"
    if 99.9 < points < 100:
        return ">99.9%"
    return f"{points:.0f}%" if points in (0, 100) else f"{points:.1f}%"


def listing(words: Sequence[str], most: int = 8) -> str:
    """Words as an English list; what goes beyond `most` is counted instead.

    Example:
        >>> listing(["a", "b", "c"]), listing(["a"]), listing(["a", "b", "c", "d"], most=2)
        ('a, b and c', 'a', 'a, b and 2 more')
    """
    shown = list(words[:most]) + ([f"{len(words) - most} more"] if len(words) > most else [])
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)
