"""A sensor's effect over time as inline SVG: an area per run of hours, nothing where nothing came.

A page shows hundreds of these, so an hour is one unit wide and coordinates are whole numbers: a week takes about 2 kB.
Hours that drifted differ in colour and in form: they carry a flag along the top of the drawing, so that a drift of
small effect is seen too, and without colours. The drawing is stretched to the width it is given, as those of reports
are; its height on the page is the one it is made for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from markupsafe import Markup

from lensai_integrations.report.words import count
from lensai_integrations.server.records import HOUR, HourDrift, hour_of
from lensai_integrations.server.standing import DAY, DRIFT, FAILED, GOOD, WAITING, verdict_of
from lensai_integrations.server.times import utc

WEEK: Final = 7 * DAY
#: The longest time that is drawn: one timestamp of 1970 must not press a month into a line.
_LONGEST: Final = 31 * DAY
#: Pixels of the flags along the top with the space below them, as style sheets know them.
FLAGS: Final = 8
#: Drawing units of a pixel of height: small effects differ by less than a pixel of a small chart.
_FINE: Final = 4
#: Units of the flags alone.
_FLAG: Final = 5 * _FINE
#: Units of an hour without a verdict, and the least of one with a verdict, so that it is seen.
_STUB: Final = {WAITING: 3 * _FINE, FAILED: 7 * _FINE}
_LEAST: Final = 8
_STYLE: Final = {GOOD: "s0", DRIFT: "moved", WAITING: "waiting", FAILED: "failed"}
_MOST_LABELS: Final = 8
#: Percent of the width from which on a date would stand over the edge: only its line is drawn.
_EDGE: Final = 95


@dataclass(frozen=True)
class HourSpan:
    """A stretch of whole hours: unix times at which the first begins and the last ends."""

    start: int
    end: int

    @property
    def hours(self) -> int:
        """How many there are."""
        return (self.end - self.start) // HOUR


@dataclass(frozen=True)
class Label:
    """A date below the time axis, and where: percent of the width."""

    text: str
    left: float


def last_week(now: float) -> HourSpan:
    """The seven days up to the end of the present hour.

    Example:
        >>> last_week(3600.0 * 200).hours
        168
    """
    end = hour_of(int(now)) + HOUR
    return HourSpan(end - WEEK, end)


def span_of(hours: Sequence[HourDrift], now: float) -> HourSpan:
    """All the hours, but at least a week and at most 31 days; up to now unless the newest is more than a week old.

    Example:
        >>> old = HourDrift("door", 0, 1, 10)
        >>> span_of([old], 1e9), span_of([], 604800.0)
        (HourSpan(start=-601200, end=3600), HourSpan(start=3600, end=608400))
    """
    week = last_week(now)
    known = [hour.hour for hour in hours if hour.hour < now + DAY]
    if not known:
        return week
    newest = max(known) + HOUR
    end = max(newest, week.end) if newest > week.start else newest
    return HourSpan(end - min(max(end - min(known), WEEK), _LONGEST), end)


def effect_svg(
    hours: Sequence[HourDrift], span: HourSpan, title: str, height: int = 38, told: Sequence[str] = ()
) -> Markup:
    """The effect of every hour, 0 at the bottom and 1 below the flags.

    Args:
        hours: Oldest first, an hour once; those outside of `span` are left out.
        span: The time axis.
        title: What is seen, in words; read aloud and shown on hovering.
        height: Pixels, flags included.
        told: What is said of each hour on hovering; empty to say nothing.

    Example:
        >>> effect_svg([HourDrift("door", 3600, 1, 10, drift=True, effect=1.0)], HourSpan(0, 7200), "a < b", 38)
        Markup('<svg ...<path class="moved" d="M1 0h1v20h-1zM1 152V32h1V152"/></svg>')
    """
    tall = _FINE * height
    paths: dict[str, list[str]] = {}
    for verdict, left, levels in _runs(hours, span, tall - FLAGS * _FINE):
        path = paths.setdefault(verdict, [])
        if verdict == DRIFT:
            path.append(f"M{left} 0h{len(levels)}v{_FLAG}h-{len(levels)}z")
        path.append(f"M{left} {tall}{_steps(levels, tall)}V{tall}")
    parts = [Markup('<path class="{}" d="{}"/>').format(_STYLE[key], "".join(d)) for key, d in paths.items()]
    if told:
        parts += [_hit(hour, span, tall, text) for hour, text in zip(hours, told, strict=True) if _within(hour, span)]
    frame = Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img"><title>{}</title>{}</svg>')
    return frame.format(span.hours, tall, title, Markup("").join(parts))


def in_words(name: str, hours: Sequence[HourDrift], span: HourSpan) -> str:
    """What a chart shows, for those who hear it.

    Example:
        >>> in_words("door", [HourDrift("door", 0, 1, 10, drift=True, effect=0.5)], HourSpan(0, 7200))
        'door: 1 of 1 judged hour drifted; the largest effect is 0.50, 1970-01-01 00:00 UTC'
    """
    judged = [hour for hour in hours if _within(hour, span) and hour.drift is not None]
    if not judged:
        return f"{name}: no hour was judged"
    moved = sum(hour.drift is True for hour in judged)
    worst = max(judged, key=lambda hour: hour.effect or 0.0)
    told = f"{name}: {count(moved)} of {count(len(judged), 'judged hour')} drifted"
    return f"{told}; the largest effect is {worst.effect or 0.0:.2f}, {utc(worst.hour)}"


def days(span: HourSpan) -> list[Label]:
    """Dates below the axis, at the midnights in UTC; every second or fourth if there are many.

    Example:
        >>> [label.text for label in days(HourSpan(3600, 4 * 86400))]
        ['2 Jan', '3 Jan', '4 Jan']
    """
    first = span.start + -span.start % DAY
    midnights = range(first, span.end, DAY)
    every = -(-len(midnights) // _MOST_LABELS)
    places = [(midnight, round(100 * (midnight - span.start) / (span.end - span.start), 2)) for midnight in midnights]
    return [Label(utc(day, "%d %b").lstrip("0") if left < _EDGE else "", left) for day, left in places[::every]]


def _within(hour: HourDrift, span: HourSpan) -> bool:
    return span.start <= hour.hour < span.end


def _runs(hours: Sequence[HourDrift], span: HourSpan, full: int) -> Iterator[tuple[str, int, list[int]]]:
    """Hours of one verdict that follow each other without a gap: the verdict, the first one's place, their levels."""
    verdict, first, levels = "", 0, list[int]()
    for hour in hours:
        if not _within(hour, span):
            continue
        place, found = (hour.hour - span.start) // HOUR, verdict_of(hour)
        if found != verdict or place != first + len(levels):
            if levels:
                yield verdict, first, levels
            verdict, first, levels = found, place, []
        levels.append(_level(hour, found, full))
    if levels:
        yield verdict, first, levels


def _steps(levels: Sequence[int], height: int) -> str:
    """The upper edge of a run; neighbours of the same height are one step."""
    return "".join(f"V{height - level}h{len(list(same))}" for level, same in groupby(levels))


def _level(hour: HourDrift, verdict: str, full: int) -> int:
    """Units above the bottom."""
    if verdict in _STUB:
        return _STUB[verdict]
    return min(max(round(full * (hour.effect or 0.0)), _LEAST), full)


def _hit(hour: HourDrift, span: HourSpan, height: int, text: str) -> Markup:
    """A column that cannot be seen, and says on hovering what the hour was."""
    place = f"M{(hour.hour - span.start) // HOUR} 0h1v{height}h-1z"
    return Markup('<path class="hit" d="{}"><title>{}</title></path>').format(place, text)
