"""What the store knows of sensors and their hours; what pages, answers and metrics are made of."""

from __future__ import annotations

from dataclasses import dataclass
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
    """

    name: str
    uploads: int
    first: int
    last: int
    received: float
    problems: tuple[str, ...] = ()
    hours: tuple[HourDrift, ...] = ()
    run_url: str = ""


def hour_of(timestamp: int) -> int:
    """The hour a timestamp is in.

    Args:
        timestamp: Unix time in seconds.

    Example:
        >>> hour_of(1719393854)
        1719392400
    """
    return timestamp - timestamp % HOUR
