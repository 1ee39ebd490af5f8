"""What the store knows of sensors and their hours, and how a sensor stands; what pages and answers are made of.

A sensor stands as its newest verdict says, unless it fell silent. Times are written as people read them on a page that
is loaded again every minute: how long ago, and exactly when.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Final

#: Seconds of a window: a sensor's uploads are merged by the hour of their timestamps.
HOUR: Final = 3600


@dataclass(frozen=True)
class HourDrift:
    """One hour of a sensor, held against the baseline.

    Attributes:
        sensor: Its name.
        hour: Unix time in seconds at which the hour begins, a multiple of 3600.
        uploads: How many uploads are merged in it.
        rows: Images, or the most values of a stream that is no image measure.
        drift: The verdict; None where it has not been judged, or could not be.
        effect: Of the stream that moved most, 0 to 1; None as above.
        moved: Streams that moved, worst first.
        judged: Unix time in seconds of the verdict; None as above.
        problem: Why it could not be judged, or why what came after the verdict is not in it; empty otherwise.
    """

    sensor: str
    hour: int
    uploads: int
    rows: int
    drift: bool | None = None
    effect: float | None = None
    moved: tuple[str, ...] = ()
    judged: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class Evidence:
    """How much there is that a sensor drifts.

    Attributes:
        log_e: Natural logarithm of an e-value: a number that is 1 or less on average where nothing moved.
        reported: Whether that is enough, among all sensors.
        hours: Length of the span that says most, in hours.
        until: When that ends, unix time in seconds.
        moved: Streams that moved in it, worst first.
        weighed: When this was found, unix time in seconds.
    """

    log_e: float
    reported: bool = False
    hours: int = 0
    until: int = 0
    moved: tuple[str, ...] = ()
    weighed: float = 0.0


@dataclass(frozen=True)
class Fleet:
    """How all sensors stand.

    Attributes:
        verdicts: How many have which verdict: `DRIFT`, `FAILED`, `WAITING`, `GOOD`.
        weighed: How many were weighed against each other.
        reported: How many of these are reported.
    """

    verdicts: Mapping[str, int]
    weighed: int = 0
    reported: int = 0

    @property
    def sensors(self) -> int:
        """How many there are."""
        return sum(self.verdicts.values())


@dataclass(frozen=True)
class Sensor:
    """A sensor, and its last hours.

    Attributes:
        name: Its name.
        uploads: How many uploads it has sent.
        first: Timestamp of the earliest, unix time in seconds.
        last: Timestamp of the latest.
        received: Unix time in seconds at which the newest arrived here.
        problems: What was wrong with the newest: empty or damaged files.
        hours: Its recent hours, oldest first.
        run_url: Page of its MLflow run; empty where reports are not logged.
        evidence: That it drifts; None while it was not weighed, or nothing came for a week.
    """

    name: str
    uploads: int
    first: int
    last: int
    received: float
    problems: tuple[str, ...] = ()
    hours: tuple[HourDrift, ...] = ()
    run_url: str = ""
    evidence: Evidence | None = None


def hour_of(timestamp: int) -> int:
    """The hour a timestamp is in.

    Args:
        timestamp: Unix time in seconds.

    Example:
        >>> hour_of(1719393854)
        1719392400
    """
    return timestamp - timestamp % HOUR


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


DAY: Final = 24 * HOUR
#: A sensor is silent when nothing came for so many times its usual gap.
_PATIENCE: Final = 3
#: The usual gap of a sensor that has sent once: it is silent after a day.
_UNKNOWN_GAP: Final = 8 * HOUR
#: What a verdict is.
DRIFT, FAILED, WAITING, GOOD = "drift", "failed", "waiting", "good"


@dataclass(frozen=True)
class Standing:
    """How a sensor stands.

    Attributes:
        verdict: Of the newest hour that has one: `"drift"`, `"good"`, `"failed"` (it could not be judged), or
            `"waiting"` where no hour has one yet.
        hour: That hour; None without.
        silence: Why it is taken to be silent; empty if it is not.
        images: Images of the last 24 hours.
        drifted: Hours of these that drifted.
        uploads_today: Uploads of the present day, in UTC.
        doubts: What may be wrong with its clock, and with its newest upload.
    """

    verdict: str
    hour: HourDrift | None
    silence: str
    images: int
    drifted: int
    uploads_today: int
    doubts: tuple[str, ...]


#: What a list of sensors has, from its top: those that are reported, those of which something else is wrong, and the
#: others, of which those without evidence come last.
REPORTED, TROUBLE, OTHERS, NO_EVIDENCE = range(4)


def look_first(evidence: Evidence | None, trouble: bool) -> tuple[int, float]:
    """Sort key of a sensor in a list: what part of it the sensor is in, and there the most evidence first.

    Args:
        evidence: That it drifts.
        trouble: Whether its newest hour could not be judged, or nothing comes any more.

    Example:
        >>> look_first(Evidence(12.0, reported=True), trouble=True) < look_first(None, trouble=True)
        True
        >>> look_first(Evidence(12.0), trouble=False) < look_first(Evidence(-0.7), trouble=False)
        True
    """
    if evidence is None:
        return TROUBLE if trouble else NO_EVIDENCE, math.inf
    part = REPORTED if evidence.reported else TROUBLE if trouble else OTHERS
    return part, -evidence.log_e


def verdict_of(hour: HourDrift) -> str:
    """`"drift"`, `"good"`, `"failed"` or `"waiting"`.

    A drift that was found stays one; that none was found says little of an hour into which something was not merged.

    Example:
        >>> verdict_of(HourDrift("door", 0, 1, 10, drift=False)), verdict_of(HourDrift("door", 0, 1, 10))
        ('good', 'waiting')
        >>> verdict_of(HourDrift("door", 0, 1, 10, drift=False, problem="uploads could not be merged: ..."))
        'failed'
    """
    if hour.drift:
        return DRIFT
    if hour.problem:
        return FAILED
    return WAITING if hour.drift is None else GOOD


def standing(sensor: Sensor, now: float) -> Standing:
    """How a sensor stands at a time, unix seconds.

    Example:
        >>> hour = HourDrift("door", 7200, 1, 60, drift=True, effect=0.5)
        >>> door = standing(Sensor("door", 1, 7300, 7300, 7310.0, hours=(hour,)), 9000.0)
        >>> door.verdict, door.images, door.silence
        ('drift', 60, '')
    """
    newest = next((hour for hour in reversed(sensor.hours) if verdict_of(hour) != WAITING), None)
    day = [hour for hour in sensor.hours if now - DAY < hour.hour <= now]
    return Standing(
        verdict=verdict_of(newest) if newest else WAITING,
        hour=newest,
        silence=_silence(sensor, now),
        images=sum(hour.rows for hour in day),
        drifted=sum(hour.drift is True for hour in day),
        uploads_today=sum(hour.uploads for hour in sensor.hours if 0 <= hour.hour - (now - now % DAY) < DAY),
        doubts=(*_clock(sensor, now), *sensor.problems),
    )


def usual_gap(sensor: Sensor) -> float:
    """Seconds that usually lie between a sensor's uploads, as far as its recent hours tell; at least 20 minutes.

    Example:
        >>> hours = tuple(HourDrift("door", hour, 1, 10) for hour in (0, 3600, 7200, 90000))
        >>> usual_gap(Sensor("door", 4, 0, 90000, 90000.0, hours=hours))
        3600
    """
    hours = [hour.hour for hour in sensor.hours]
    gaps = [after - before for before, after in pairwise(hours)]
    if not gaps:
        within = (sensor.last - sensor.first) / (sensor.uploads - 1) if sensor.uploads > 1 else _UNKNOWN_GAP
        return max(within, HOUR / _PATIENCE)
    return median(gaps)


def _silence(sensor: Sensor, now: float) -> str:
    heard = sensor.last if _is_ahead(sensor, now) else sensor.received
    passed, usual = now - heard, usual_gap(sensor)
    if passed <= _PATIENCE * usual:
        return ""
    often = f"; it used to send every {duration(usual)}" if sensor.uploads > 1 else ""
    return f"nothing came for {duration(passed)}{often}"


def _is_ahead(sensor: Sensor, now: float) -> bool:
    """Whether the clock here was ahead when the newest upload came: the device's tells more of it."""
    return sensor.received > now + HOUR


def _clock(sensor: Sensor, now: float) -> Sequence[str]:
    """A device without a network has no idea of the time, and nothing else on the page would tell."""
    if _is_ahead(sensor, now):
        return (f"when its newest upload came, the clock here was ahead by {duration(sensor.received - now)} or more",)
    ahead = sensor.last - sensor.received
    if ahead > HOUR:
        return (f"its clock is ahead by {duration(ahead)}",)
    if -ahead > DAY:
        return (f"its newest upload is {duration(-ahead)} older than its arrival",)
    return ()
