"""Times as people read them on a page that is loaded again every minute: how long ago, and exactly when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

#: Largest first: seconds of a unit, and how it is written.
_UNITS: Final = ((86400, "day"), (3600, "h"), (60, "min"))


def utc(seconds: float, pattern: str = "%Y-%m-%d %H:%M UTC") -> str:
    """A unix time as text, in UTC; empty if no calendar has it.

    Example:
        >>> utc(1719393854), utc(1719393854, "%H:%M"), utc(1e300)
        ('2024-06-26 09:24 UTC', '09:24', '')
    """
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime(pattern)
    except (ValueError, OverflowError, OSError):
        return ""


def duration(seconds: float) -> str:
    """A length of time in its largest whole unit.

    Example:
        >>> duration(20), duration(200), duration(7200), duration(86400), duration(200000)
        ('less than a minute', '3 min', '2 h', '1 day', '2 days')
    """
    for size, unit in _UNITS:
        if seconds >= size:
            amount = int(seconds // size)
            return f"{amount} {unit}{'s' if unit == 'day' and amount > 1 else ''}"
    return "less than a minute"


def ago(moment: float, now: float) -> str:
    """How long ago something was, or in how long it will be.

    Args:
        moment: Unix time in seconds.
        now: The same, of the present.

    Example:
        >>> ago(0, 20), ago(0, 200), ago(7200, 0)
        ('just now', '3 min ago', 'in 2 h')
    """
    if abs(now - moment) < 60:
        return "just now"
    return f"{duration(now - moment)} ago" if now > moment else f"in {duration(moment - now)}"
