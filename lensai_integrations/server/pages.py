"""The pages a person opens: all sensors at a glance, and one sensor hour by hour.

They are the server's own words put into the look of the reports: no script but one of ours, which filters and loads
the page again, no network, everything escaped, since names of sensors and streams come from devices. Links are
relative, so that the pages work below any path of a proxy. What is said is decided here; templates only arrange it.

A sensor's effect over time is inline SVG, an area per run of hours, and nothing where nothing came. A page shows
hundreds of these, so an hour is one unit wide and coordinates are whole numbers: a week takes about 2 kB. Hours that
drifted carry a flag along the top of the drawing, so that a drift of small effect is seen too, and without colours. The
drawing is stretched to the width it is given, as those of reports are; its height is the one it is made for.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import groupby
from typing import Any, Final
from urllib.parse import quote, urlsplit

from markupsafe import Markup

from lensai_integrations.drift.fleet import FALSE_SHARE, e_text, share_words
from lensai_integrations.profiles.archive import RELEASE
from lensai_integrations.report.html import REPORT, asset, environment, parts_of_page
from lensai_integrations.report.pages import Fact
from lensai_integrations.report.words import count, listing, number
from lensai_integrations.server.records import (
    DAY,
    DRIFT,
    FAILED,
    GOOD,
    HOUR,
    NO_EVIDENCE,
    OTHERS,
    REPORTED,
    TROUBLE,
    WAITING,
    Evidence,
    Fleet,
    HourDrift,
    Sensor,
    Standing,
    ago,
    duration,
    hour_of,
    look_first,
    standing,
    utc,
    verdict_of,
)

SERVER: Final = "lensai_integrations.server"
#: From so many sensors on the list has a filter.
_MANY: Final = 8
#: Pixels of the large chart below its flags, as the style sheet knows them.
_TALL: Final = 180
_FOOTER: Final = f"lensai-integrations {RELEASE}. Sketches only: no image is kept."


@dataclass(frozen=True)
class About:
    """What the pages say of the server itself.

    Attributes:
        baseline: Name of the baseline, as it was given: `"models:/digits@champion"`.
        baseline_rows: Its images.
        false_alarm_rate: Chance that an hour is called drift where there is none.
        now: Unix time in seconds.
        problems: What is wrong with the server: a tracking server that does not answer.
        cut: Whether there are more sensors or hours than are shown.
        address: Where this server is reached, for the commands shown while nothing was uploaded.
    """

    baseline: str
    baseline_rows: int
    false_alarm_rate: float
    now: float
    problems: tuple[str, ...] = ()
    cut: bool = False
    address: str = "http://localhost:8000"


def index_page(sensors: Sequence[Sensor], about: About, fleet: Fleet | None = None) -> str:
    """Sensors as one HTML page: those that are reported, those of which something else is wrong, the others.

    In each part those with the most evidence come first, and those of which there is none last.

    Args:
        sensors: In any order, each with its hours of the last seven days.
        about: The server.
        fleet: How all sensors stand, with those that are not shown; by default all are shown.

    Example:
        >>> "How to send the first upload" in index_page([], About("models:/digits/1", 2000, 0.01, 1.8e9))
        True
    """
    stands = [(standing(sensor, about.now), sensor) for sensor in sensors]
    if fleet is None:
        known = [sensor.evidence for sensor in sensors if sensor.evidence is not None]
        verdicts = Counter(stand.verdict for stand, _ in stands)
        fleet = Fleet(verdicts, len(known), sum(each.reported for each in known))
    order = {sensor.name: _order(sensor, stand) for stand, sensor in stands}
    ordered = sorted(stands, key=lambda pair: (*order[pair[1].name], _by_name(pair[1].name)))
    parts = groupby(ordered, key=lambda pair: order[pair[1].name][0])
    rows = [(_PARTS[part], [sensor_row(sensor, stand, about.now) for stand, sensor in those]) for part, those in parts]
    return _render(
        "index.html.j2",
        about,
        headline=_headline(fleet),
        tiles=_tiles(fleet, [stand for stand, _ in stands], about.false_alarm_rate),
        total=count(fleet.sensors, "sensor"),
        shown=count(len(sensors)),
        parts_of_list=rows,
        promise=share_words(FALSE_SHARE),
        least=_least_words(fleet),
        filtered=len(sensors) > _MANY,
        address=about.address.rstrip("/"),
    )


#: What the parts of the list are called.
_PARTS: Final = {
    REPORTED: "Reported, the most evidence first",
    TROUBLE: "Could not be judged, or silent",
    OTHERS: "Not reported, the most evidence first",
    NO_EVIDENCE: "Not weighed yet",
}


def _order(sensor: Sensor, stands: Standing) -> tuple[int, float]:
    return look_first(sensor.evidence, stands.verdict == FAILED or bool(stands.silence))


def _least_words(fleet: Fleet) -> str:
    """How much evidence one more sensor needs to be reported."""
    if not fleet.weighed:
        return ""
    least = e_text(math.log(fleet.weighed / (FALSE_SHARE * min(fleet.reported + 1, fleet.weighed))))
    return f"Among {count(fleet.weighed, 'sensor')} {'one more' if fleet.reported else 'a single one'} needs {least}."


def sensor_page(sensor: Sensor, hours: Sequence[HourDrift], about: About, weighed: int = 1) -> str:
    """One sensor as an HTML page: its effect over time, and its hours, newest first.

    Args:
        sensor: The sensor; its own `hours` tell how it stands now.
        hours: The hours to show, in any order.
        about: The server.
        weighed: How many sensors were weighed against each other.

    Example:
        >>> door = Sensor("door <1>", 1, 7200, 7200, 7300.0)
        >>> "door &lt;1&gt;" in sensor_page(door, [], About("models:/digits/1", 2000, 0.01, 9000.0))
        True
    """
    ordered = sorted(hours, key=lambda hour: hour.hour)
    stands, span = standing(sensor, about.now), span_of(ordered, about.now)
    return _render(
        "sensor.html.j2",
        about,
        headline=sensor.name,
        stands=stands,
        pill=PILLS[stands.verdict],
        verdict=_verdict(stands, about),
        reported=sensor.evidence is not None and sensor.evidence.reported,
        evidence=_evidence(sensor, weighed, about.now),
        tiles=_sensor_tiles(sensor, stands, about.now),
        chart=effect_svg(ordered, span, in_words(sensor.name, ordered, span), _TALL + FLAGS, _told(ordered)),
        days=days(span),
        lead=_lead(ordered, about),
        rows=[hour_row(hour, about.now) for hour in reversed(ordered)],
        run=web_address(sensor.run_url),
    )


def problem_page(status: int | None, detail: str, home: str) -> str:
    """An error as one HTML page.

    Args:
        status: The HTTP status; None of an answer that is none.
        detail: What was wrong, and what to do.
        home: The page of all sensors, relative to this one.

    Example:
        >>> "there is no sensor &#39;door&#39;" in problem_page(404, "there is no sensor 'door'", "../")
        True
    """
    assets = parts_of_page((asset(REPORT, "style.css"), asset(SERVER, "pages.css")), "")
    headline = f"{HTTPStatus(status).phrase} ({status})" if status else "No report"
    template = environment(SERVER, REPORT).get_template("problem.html.j2")
    again = status is not None and status >= 500
    return template.render(headline=headline, detail=detail, home=home, again=again, footer=_FOOTER, **assets).lstrip()


def _by_name(name: str) -> tuple[str, str]:
    """Sort key that puts `camera 2` before `camera 10`."""
    return re.sub(r"\d+", lambda digits: digits.group().zfill(12), name.casefold()), name


def _render(template: str, about: About, **said: Any) -> str:
    styles = (asset(REPORT, "style.css"), asset(SERVER, "pages.css"))
    assets = parts_of_page(styles, asset(SERVER, "pages.js"))
    words = {
        "made": utc(about.now, "%Y-%m-%d %H:%M:%S UTC"),
        "rate": f"{number(100 * about.false_alarm_rate)}%",
        "baseline_rows": count(about.baseline_rows, "image"),
        "footer": _FOOTER,
    }
    page = environment(SERVER, REPORT).get_template(template)
    return page.render(about=about, **words, **said, **assets).lstrip()


def _headline(fleet: Fleet) -> str:
    """No sensor that was not weighed is counted as one without drift."""
    failed, waiting = (fleet.verdicts.get(verdict, 0) for verdict in (FAILED, WAITING))
    total, sensors = fleet.sensors, count(fleet.sensors, "sensor")
    if not total:
        return "No sensor has sent anything yet"
    if failed == total:
        return f"{sensors} could not be judged"
    if waiting == total:
        return f"{sensors}, not judged yet"
    if fleet.reported:
        begin = f"{count(fleet.reported)} of {sensors} drift{'s' if total == 1 else ''}"
    elif fleet.weighed:
        of = "" if fleet.weighed == total else f"{count(fleet.weighed)} of "
        begin = f"No drift reported at {of}{sensors}"
    else:
        begin = f"{sensors}, not weighed yet"
    more = [
        f"{count(failed)} could not be judged" if failed else "",
        f"{count(waiting)} not judged yet" if waiting else "",
    ]
    return ", ".join(filter(None, (begin, *more)))


def _tiles(fleet: Fleet, stands: Sequence[Standing], rate: float) -> list[tuple[str, Fact]]:
    """Key figures, each with a tone; some are known of the sensors shown only."""
    failed, drifting = (fleet.verdicts.get(verdict, 0) for verdict in (FAILED, DRIFT))
    silent, chance = sum(bool(stand.silence) for stand in stands), round(rate * fleet.sensors)
    scope = () if len(stands) == fleet.sensors else (f"of the {count(len(stands))} shown",)
    by_chance = (f"about {count(chance)} by chance",) if chance else ()
    judged = [("notice", Fact("Could not be judged", (count(failed),)))] if failed else []
    return [
        ("", Fact("Sensors", (count(fleet.sensors),))),
        ("bad" if fleet.reported else "", Fact("Reported", (count(fleet.reported),))),
        ("", Fact("Newest hour drifts", (count(drifting), *by_chance))),
        *judged,
        ("notice" if silent else "", Fact("Silent", (count(silent), *scope))),
        ("", Fact("Images, last 24 h", (count(sum(stand.images for stand in stands)), *scope))),
        ("", Fact("Uploads today, UTC", (count(sum(stand.uploads_today for stand in stands)), *scope))),
    ]


def _sensor_tiles(sensor: Sensor, stands: Standing, now: float) -> list[tuple[str, Fact]]:
    last = moment(sensor.received, now)
    return [
        ("notice" if stands.silence else "", Fact("Last upload", (last.text, last.title))),
        ("", Fact("Images, last 24 h", (count(stands.images),))),
        ("", Fact("Uploads", (count(sensor.uploads), f"{count(stands.uploads_today)} today"))),
        ("", Fact("Sends since", (utc(sensor.first, "%Y-%m-%d"), f"{duration(now - sensor.first)} ago"))),
    ]


def _verdict(stands: Standing, about: About) -> tuple[str, ...]:
    """Lines below the verdict."""
    if stands.hour is None:
        return ("No hour of the last days was held against the baseline yet.",)
    when = hour_moment(stands.hour.hour, about.now)
    named = (stands.hour.problem,) if stands.hour.problem else ()
    moved = f"{count(len(stands.hour.moved), 'stream')} moved" if stands.hour.moved else ""
    effect = "" if stands.hour.effect is None else f"effect {stands.hour.effect:.2f}"
    facts = ", ".join(filter(None, (count(stands.hour.rows, "image"), moved, effect)))
    return (*named, f"In {when.title}: {facts}.")


def _evidence(sensor: Sensor, weighed: int, now: float) -> str:
    """Whether one of many sensors is reported, and why."""
    evidence = sensor.evidence
    if evidence is None:
        return "Not weighed against other sensors: nothing of its last week was yet."
    among = f"among {count(weighed, 'sensor')}" if weighed > 1 else "of the only sensor"
    verdict = "reported" if evidence.reported else "too little to be reported"
    return f"Evidence that it drifts: {e_text(evidence.log_e)}, {verdict} {among}; {_said_most(evidence, now)}."


def _said_most(evidence: Evidence, now: float) -> str:
    """The span that says most, and what moved in it."""
    until = hour_moment(evidence.until, now).text
    span = "one hour" if evidence.hours == 1 else f"the {evidence.hours} h"
    moved = f": {moved_words(evidence.moved)}" if evidence.moved else ""
    return f"most in {span} until {until}{moved}"


def _told(hours: Sequence[HourDrift]) -> list[str]:
    """What the chart says of each hour on hovering."""
    effects = ["" if hour.effect is None else f", effect {hour.effect:.2f}" for hour in hours]
    verdicts = [PILLS[verdict_of(hour)].text for hour in hours]
    entries = zip(hours, verdicts, effects, strict=True)
    return [f"{utc(hour.hour)}: {verdict}{effect}, {count(hour.rows, 'image')}" for hour, verdict, effect in entries]


def _lead(hours: Sequence[HourDrift], about: About) -> str:
    """How many hours drifted, and how many would by chance."""
    judged = [hour for hour in hours if hour.drift is not None]
    if not judged:
        return ""
    moved, chance = sum(hour.drift is True for hour in judged), about.false_alarm_rate * len(judged)
    drifted = f"{count(moved)} of {count(len(judged), 'judged hour')} drifted"
    expected = "fewer than 0.1" if chance < 0.1 else f"about {number(chance, 0 if chance >= 10 else 1)}"
    return f"{drifted}; {expected} would be false alarms without any drift."


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
    """A line of the list of sensors: its evidence, and as `HourRow` the newest hour with a verdict."""

    name: str
    address: str
    reported: bool
    evidence: str
    said_most: str
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


def sensor_row(sensor: Sensor, stands: Standing, now: float) -> SensorRow:
    """A sensor as a line of the list."""
    week, evidence, pill = last_week(now), sensor.evidence, PILLS[stands.verdict]
    reported = evidence is not None and evidence.reported
    return SensorRow(
        name=sensor.name,
        address=sensor_address(sensor.name),
        reported=reported,
        evidence="" if evidence is None else e_text(evidence.log_e),
        said_most=_said_most(evidence, now) if evidence is not None and evidence.log_e > 0 else "",
        pill=pill if reported or stands.verdict != DRIFT else replace(pill, tone="plain"),  # an hour is no report
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
    starts = [hour.hour for hour in hours if hour.hour < now + DAY]
    if not starts:
        return week
    newest = max(starts) + HOUR
    end = max(newest, week.end) if newest > week.start else newest
    return HourSpan(end - min(max(end - min(starts), WEEK), _LONGEST), end)


def effect_svg(
    hours: Sequence[HourDrift], span: HourSpan, title: str, height: int = 38, captions: Sequence[str] = ()
) -> Markup:
    """The effect of every hour, 0 at the bottom and 1 below the flags.

    Args:
        hours: Oldest first, an hour once; those outside of `span` are left out.
        span: The time axis.
        title: What is seen, in words; read aloud and shown on hovering.
        height: Pixels, flags included.
        captions: What is said of each hour on hovering; empty to say nothing.

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
    if captions:
        parts += [
            _hit(hour, span, tall, text) for hour, text in zip(hours, captions, strict=True) if _within(hour, span)
        ]
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
    drifted = f"{name}: {count(moved)} of {count(len(judged), 'judged hour')} drifted"
    return f"{drifted}; the largest effect is {worst.effect or 0.0:.2f}, {utc(worst.hour)}"


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
        column, judged = (hour.hour - span.start) // HOUR, verdict_of(hour)
        if judged != verdict or column != first + len(levels):
            if levels:
                yield verdict, first, levels
            verdict, first, levels = judged, column, []
        levels.append(_level(hour, judged, full))
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
    outline = f"M{(hour.hour - span.start) // HOUR} 0h1v{height}h-1z"
    return Markup('<path class="hit" d="{}"><title>{}</title></path>').format(outline, text)
