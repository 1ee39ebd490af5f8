"""The pages a person opens: all sensors at a glance, and one sensor hour by hour.

They are the server's own words put into the look of the reports: no script but one of ours, which filters and loads
the page again, no network, everything escaped, since names of sensors and streams come from devices. Links are
relative, so that the pages work below any path of a proxy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from lensai_integrations.report.html import REPORT, asset, environment, parts_of_page
from lensai_integrations.report.pages import Fact
from lensai_integrations.report.words import count, number
from lensai_integrations.server.charts import FLAGS, days, effect_svg, in_words, span_of
from lensai_integrations.server.records import HourDrift, Sensor
from lensai_integrations.server.standing import DRIFT, FAILED, GOOD, WAITING, Standing, standing, verdict_of
from lensai_integrations.server.times import duration, utc
from lensai_integrations.server.views import PILLS, hour_moment, hour_row, moment, sensor_row, web_address

SERVER: Final = "lensai_integrations.server"
#: From so many sensors on the list has a filter.
_MANY: Final = 8
#: Pixels of the large chart below its flags, as the style sheet knows them.
_TALL: Final = 180
_FOOTER: Final = f"lensai-integrations {version('lensai-integrations')}. Sketches only: no image is kept."


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


def index_page(sensors: Sequence[Sensor], about: About, verdicts: Mapping[str, int] | None = None) -> str:
    """Sensors as one HTML page, those to look at first at the top.

    Args:
        sensors: In any order, each with its hours of the last seven days.
        about: The server.
        verdicts: How many sensors have which verdict, with those that are not shown; by default all are shown.

    Example:
        >>> "How to send the first upload" in index_page([], About("models:/digits/1", 2000, 0.01, 1.8e9))
        True
    """
    stands = [(standing(sensor, about.now), sensor) for sensor in sensors]
    ordered = sorted(stands, key=lambda pair: (pair[0].rank, _by_name(pair[1].name)))
    found = Counter(verdicts) if verdicts is not None else Counter(stand.verdict for stand, _ in stands)
    return _render(
        "index.html.j2",
        about,
        headline=_headline(found),
        tiles=_tiles(found, [stand for stand, _ in stands]),
        total=count(found.total(), "sensor"),
        rows=[sensor_row(sensor, stand, about.now) for stand, sensor in ordered],
        filtered=len(sensors) > _MANY,
        address=about.address.rstrip("/"),
    )


def sensor_page(sensor: Sensor, hours: Sequence[HourDrift], about: About) -> str:
    """One sensor as an HTML page: its effect over time, and its hours, newest first.

    Args:
        sensor: The sensor; its own `hours` tell how it stands now.
        hours: The hours to show, in any order.
        about: The server.

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
    own = parts_of_page((asset(REPORT, "style.css"), asset(SERVER, "pages.css")), "")
    headline = f"{HTTPStatus(status).phrase} ({status})" if status else "No report"
    template = environment(SERVER, REPORT).get_template("problem.html.j2")
    again = status is not None and status >= 500
    return template.render(headline=headline, detail=detail, home=home, again=again, footer=_FOOTER, **own).lstrip()


def _by_name(name: str) -> tuple[str, str]:
    """Sort key that puts `camera 2` before `camera 10`."""
    return re.sub(r"\d+", lambda found: found.group().zfill(12), name.casefold()), name


def _render(template: str, about: About, **said: Any) -> str:
    styles = (asset(REPORT, "style.css"), asset(SERVER, "pages.css"))
    own = parts_of_page(styles, asset(SERVER, "pages.js"))
    words = {
        "made": utc(about.now, "%Y-%m-%d %H:%M:%S UTC"),
        "rate": f"{number(100 * about.false_alarm_rate)}%",
        "baseline_rows": count(about.baseline_rows, "image"),
        "footer": _FOOTER,
    }
    page = environment(SERVER, REPORT).get_template(template)
    return page.render(about=about, **words, **said, **own).lstrip()


def _headline(verdicts: Counter[str]) -> str:
    """No sensor without a verdict is counted as one without drift."""
    total, good, drifting = verdicts.total(), verdicts[GOOD], verdicts[DRIFT]
    sensors = count(total, "sensor")
    if not total:
        return "No sensor has sent anything yet"
    if verdicts[FAILED] == total:
        return f"{sensors} could not be judged"
    if verdicts[WAITING] == total:
        return f"{sensors}, not judged yet"
    if drifting:
        begin = f"{count(drifting)} of {sensors} drift{'s' if total == 1 else ''}"
    else:
        begin = f"No drift at {sensors if good == total else f'{count(good)} of {sensors}'}" if good else sensors
    failed = f"{count(verdicts[FAILED])} could not be judged" if verdicts[FAILED] else ""
    waiting = f"{count(verdicts[WAITING])} not judged yet" if verdicts[WAITING] else ""
    return ", ".join(filter(None, (begin, failed, waiting)))


def _tiles(verdicts: Counter[str], stands: Sequence[Standing]) -> list[tuple[str, Fact]]:
    """Key figures, each with a tone; some are known of the sensors shown only."""
    total, drifting, failed = verdicts.total(), verdicts[DRIFT], verdicts[FAILED]
    silent = sum(bool(stand.silence) for stand in stands)
    part = () if len(stands) == total else (f"of the {count(len(stands))} shown",)
    judged = [("notice", Fact("Could not be judged", (count(failed),)))] if failed else []
    return [
        ("", Fact("Sensors", (count(total),))),
        ("bad" if drifting else "", Fact("Drifting", (count(drifting),))),
        *judged,
        ("notice" if silent else "", Fact("Silent", (count(silent), *part))),
        ("", Fact("Images, last 24 h", (count(sum(stand.images for stand in stands)), *part))),
        ("", Fact("Uploads today, UTC", (count(sum(stand.uploads_today for stand in stands)), *part))),
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


def _told(hours: Sequence[HourDrift]) -> list[str]:
    """What the chart says of each hour on hovering."""
    effects = ["" if hour.effect is None else f", effect {hour.effect:.2f}" for hour in hours]
    verdicts = [PILLS[verdict_of(hour)].text for hour in hours]
    each = zip(hours, verdicts, effects, strict=True)
    return [f"{utc(hour.hour)}: {verdict}{effect}, {count(hour.rows, 'image')}" for hour, verdict, effect in each]


def _lead(hours: Sequence[HourDrift], about: About) -> str:
    """How many hours drifted, and how many would by chance."""
    judged = [hour for hour in hours if hour.drift is not None]
    if not judged:
        return ""
    moved, chance = sum(hour.drift is True for hour in judged), about.false_alarm_rate * len(judged)
    drifted = f"{count(moved)} of {count(len(judged), 'judged hour')} drifted"
    expected = "fewer than 0.1" if chance < 0.1 else f"about {number(chance, 0 if chance >= 10 else 1)}"
    return f"{drifted}; {expected} would be false alarms without any drift."
