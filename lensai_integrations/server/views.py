"""What the pages say of a sensor and of an hour, before it is marked up. Templates only arrange it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from markupsafe import Markup

from lensai_integrations.report.words import count, listing
from lensai_integrations.server.charts import effect_svg, in_words, last_week
from lensai_integrations.server.records import HourDrift, Sensor
from lensai_integrations.server.standing import DRIFT, FAILED, GOOD, WAITING, Standing, verdict_of
from lensai_integrations.server.times import ago, utc

#: Streams that are named in a line.
_NAMED: Final = 2


@dataclass(frozen=True)
class Pill:
    """A verdict: its tone (a CSS class), a sign that tells it without colour, its words."""

    tone: str
    sign: str
    text: str


PILLS: Final = {
    DRIFT: Pill("bad", "▲", "drift"),
    GOOD: Pill("good", "✓", "no drift"),
    FAILED: Pill("notice", "!", "could not be judged"),
    WAITING: Pill("plain", "…", "not judged yet"),
}


@dataclass(frozen=True)
class Moment:
    """A time: how long ago, exactly, and as machines read it; `iso` is empty if no calendar has it."""

    text: str
    title: str
    iso: str


@dataclass(frozen=True)
class HourRow:
    """A line of a sensor's table: texts as they are shown, and the address of the report, empty without one."""

    hour: Moment
    pill: Pill
    effect: str
    share: float
    detail: str
    images: str
    uploads: str
    report: str


@dataclass(frozen=True)
class SensorRow:
    """A line of the list of sensors: as `HourRow`, of the newest hour with a verdict."""

    name: str
    address: str
    pill: Pill
    judged: Moment | None
    detail: str
    silence: str
    doubts: tuple[str, ...]
    chart: Markup
    images: str
    last: Moment
    report: str
    run: str


def sensor_address(name: str) -> str:
    """A sensor's page, relative to the list of sensors.

    Example:
        >>> sensor_address("../door 1?")
        'sensors/..%2Fdoor%201%3F'
    """
    return f"sensors/{quote(name, safe='')}"


def report_address(name: str, hour: HourDrift | None) -> str:
    """The report of an hour, relative to the list of sensors; empty if it has none.

    Example:
        >>> report_address("door", HourDrift("door", 7200, 1, 10, drift=False))
        'sensors/door/hours/7200/report'
    """
    return "" if hour is None or hour.drift is None else f"{sensor_address(name)}/hours/{hour.hour}/report"


def web_address(url: str) -> str:
    """The address if a browser may follow it, else empty.

    Example:
        >>> web_address("https://mlflow.example/#/runs/1"), web_address("javascript:alert(1)")
        ('https://mlflow.example/#/runs/1', '')
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in ("http", "https") and parts.netloc else ""


def moment(seconds: float, now: float, about: str = "") -> Moment:
    """A time as it is shown, with a word on what it is of."""
    exact = utc(seconds, "%Y-%m-%d %H:%M:%S UTC")
    return Moment(ago(seconds, now), f"{about} {exact}".strip(), utc(seconds, "%Y-%m-%dT%H:%M:%SZ"))


def hour_moment(hour: int, now: float) -> Moment:
    """An hour: its clock time, with the date unless it is of today."""
    date = "" if utc(hour, "%Y%j") == utc(now, "%Y%j") else utc(hour, "%Y-%m-%d ")
    text = f"{date}{utc(hour, '%H:%M')}"
    return Moment(text, f"the hour from {utc(hour)}, {ago(hour, now)}", utc(hour, "%Y-%m-%dT%H:%M:%SZ"))


def sensor_row(sensor: Sensor, stands: Standing, now: float) -> SensorRow:
    """A sensor as a line of the list."""
    week = last_week(now)
    return SensorRow(
        name=sensor.name,
        address=sensor_address(sensor.name),
        pill=PILLS[stands.verdict],
        judged=hour_moment(stands.hour.hour, now) if stands.hour else None,
        detail=_detail(stands),
        silence=stands.silence,
        doubts=stands.doubts,
        chart=effect_svg(sensor.hours, week, in_words(sensor.name, sensor.hours, week)),
        images=count(stands.images),
        last=moment(sensor.received, now, "received"),
        report=report_address(sensor.name, stands.hour),
        run=web_address(sensor.run_url),
    )


def hour_row(hour: HourDrift, now: float) -> HourRow:
    """An hour as a line of a sensor's table."""
    return HourRow(
        hour=hour_moment(hour.hour, now),
        pill=PILLS[verdict_of(hour)],
        effect="" if hour.effect is None else f"{hour.effect:.2f}",
        share=min(max(hour.effect or 0.0, 0.0), 1.0),
        detail="; ".join(filter(None, (hour.problem, moved_words(hour.moved, 4)))),
        images=count(hour.rows),
        uploads=count(hour.uploads),
        report=report_address(hour.sensor, hour).removeprefix("sensors/"),
    )


def moved_words(moved: Sequence[str], most: int = _NAMED) -> str:
    """The streams that moved, worst first, the rest counted.

    Example:
        >>> moved_words(("inputs/noise", "inputs/mean/0", "inputs/mean/1"))
        'inputs/noise, inputs/mean/0 and 1 more'
    """
    return listing(moved, most)


def _detail(stands: Standing) -> str:
    """What is told below a verdict; a sensor that drifts now and then is not taken for a quiet one."""
    hour = stands.hour
    if hour is None:
        return ""
    effect = "" if hour.effect is None else f"effect {hour.effect:.2f}"
    if hour.drift:
        moved = ": ".join(filter(None, (effect, moved_words(hour.moved))))
        return "; ".join(filter(None, (hour.problem, moved)))
    lately = f"{count(stands.drifted, 'hour')} of the last day drifted" if stands.drifted else ""
    return "; ".join(filter(None, (hour.problem, effect, lately)))
