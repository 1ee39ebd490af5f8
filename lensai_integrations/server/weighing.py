"""How much evidence there is that a sensor drifts, so that a thousand sensors can be asked about at once.

Of a thousand clean sensors ten have an hour below 1% every hour, and nearly all have one within a month. So what is
held over the fleet is the share of false ones among the sensors that are reported, and that is decided by e-values
(`drift.significance`): of each sensor the mean of four, for a drift may be strong and short or weak and lasting.

- Its hours of the last day, each by itself: the mean of their e-values.
- The last 6, 24 and 168 hours, each merged into one profile, since sketches merge, and compared as one window.

A mean of e-values is one again, however they depend on each other, and these share hours and a baseline. What is not
known yet counts as 0. Which sensors are reported follows from those of all (e-BH, `fleet_of`).

A sensor is weighed when an hour of it is judged, never when somebody looks. An hour counts at once; a span is weighed
again when a sixth of the images in it are new, so the longest about once a day, and what is kept of it till then is the
evidence of what it was. Kept is one small row per sensor; the sketches merged are those of its hours.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, select, update

from lensai_integrations.drift.compare import compare
from lensai_integrations.drift.fleet import FALSE_SHARE
from lensai_integrations.drift.null import SMALLEST
from lensai_integrations.drift.result import DriftReport, p_value_of_report
from lensai_integrations.drift.significance import e_bh, log_e_value, log_mean_e
from lensai_integrations.edge.reading import profile_of_files
from lensai_integrations.edge.uploads import Sketches, merged, unpack_sketches
from lensai_integrations.errors import LensAIError
from lensai_integrations.profiles.profile import Baseline
from lensai_integrations.server.hours import Room
from lensai_integrations.server.ledger import upsert
from lensai_integrations.server.records import DAY, HOUR, Evidence, HourDrift
from lensai_integrations.server.store import EVIDENCE, HOURS, Store, StoreError, of_hour

_LOG = logging.getLogger(__name__)
#: Hours of the spans that are compared as one window, ascending.
SPANS: Final = (6, 24, 168)
#: A span is weighed again when one image in so many of it is new.
_RENEWED: Final = 6
#: Streams that are named of those that moved.
_MOST_MOVED: Final = 20


class HourRows(NamedTuple):
    """An hour: when it begins, its images, and when it was merged last, both in unix seconds."""

    hour: int
    rows: int
    updated: float


@dataclass(frozen=True)
class WeighedSpan:
    """What was found of some consecutive hours together.

    Attributes:
        until: When they end, unix time in seconds.
        weighed: When this was found, likewise.
        log_e: Natural logarithm of their e-value; None where they could not be compared.
        moved: Streams that moved, worst first.
    """

    until: int
    weighed: float
    log_e: float | None = None
    moved: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parts:
    """What the evidence of a sensor is made of.

    Attributes:
        hours: Natural logarithms of the e-values of its last day's hours, by when they begin.
        spans: What was found of spans, by their length in hours.

    Example:
        >>> parts = Parts({7200: 3.0}, {6: WeighedSpan(10_800, 0.0, 12.0, ("inputs/noise",))})
        >>> Parts.read(parts.to_json()) == parts, round(parts.log_e, 3)
        (True, 10.614)
    """

    hours: Mapping[int, float] = field(default_factory=dict)
    spans: Mapping[int, WeighedSpan] = field(default_factory=dict)

    @property
    def log_e(self) -> float | None:
        """Natural logarithm of the evidence; None where nothing is known."""
        known = [each.log_e for each in self.spans.values() if each.log_e is not None]
        return evidence_of(list(self.hours.values()), known) if known or self.hours else None

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps({"hours": self.hours, "spans": {key: asdict(span) for key, span in self.spans.items()}})

    @classmethod
    def read(cls, text: str) -> Parts:
        """Of JSON that `to_json` wrote."""
        stored = json.loads(text)
        spans = {int(key): WeighedSpan(**{**span, "moved": tuple(span["moved"])}) for key, span in
                 stored.get("spans", {}).items()}  # fmt: skip
        return cls({int(key): log_e for key, log_e in stored.get("hours", {}).items()}, spans)


def evidence_of(hours: Sequence[float], spans: Sequence[float]) -> float:
    """The evidence that a sensor drifts: the mean of the e-values of its spans and of the mean of those of its hours.

    Args:
        hours: Natural logarithms of the e-values of its last day's hours that were judged.
        spans: Of its spans, as many of `SPANS` as are known; the others count as 0.

    Returns:
        Natural logarithm of an e-value.

    Example:
        >>> round(math.exp(evidence_of([math.log(30), math.log(10)], [math.log(60), 0.0, 0.0])), 9)
        20.5
    """
    of_hours = [log_mean_e(hours)] if len(hours) else []
    return log_mean_e([*of_hours, *spans], 1 + len(SPANS))


def log_e_of(report: DriftReport) -> float:
    """Natural logarithm of the e-value of a report: of the smallest of its p-values of what moved far enough.

    Example:
        >>> round(math.exp(log_e_of(DriftReport(0.01, 0.05, 0, "validation", "production", 2000, 200))), 9)
        0.5
    """
    return float(log_e_value(math.log(max(p_value_of_report(report), SMALLEST))))


def fleet_of(log_e: Sequence[float]) -> list[bool]:
    """Which sensors are reported, so that of those at most `FALSE_SHARE` are false on average.

    Args:
        log_e: Natural logarithms of the evidence of all sensors.

    Returns:
        Whether it is, of each.

    Example:
        >>> fleet_of([0.0, 12.0, -0.5])
        [False, True, False]
    """
    return [bool(reported) for reported in e_bh(log_e, FALSE_SHARE)]


def due_spans(hours: Sequence[HourRows], spans: Mapping[int, WeighedSpan], now: float) -> list[int]:
    """The spans to weigh, ascending: those that never were, and those of which a sixth of the images are new.

    Args:
        hours: Of a sensor, in any order; one at least.
        spans: What was found before, by length in hours.
        now: Unix time in seconds, by the store's clock. What was found later than that was found by a clock that
            has been set back since, and is found again.

    Example:
        >>> hours = [HourRows(HOUR * hour, 60, HOUR * hour + 4000.0) for hour in range(24)]
        >>> due_spans(hours, {6: WeighedSpan(0, 79_000.0), 24: WeighedSpan(0, 79_000.0)}, 90_000.0)
        [6, 168]
    """
    due = []
    for length in SPANS:
        within, before = last_hours(hours, length), spans.get(length)
        if before is None or before.weighed > now:
            due.append(length)
            continue
        new = sum(each.rows for each in within if each.updated > before.weighed)
        if new and _RENEWED * new >= sum(each.rows for each in within):
            due.append(length)
    return due


def last_hours(hours: Sequence[HourRows], length: int) -> list[HourRows]:
    """Those of the last so many hours, up to and with the newest that there is."""
    newest = max(each.hour for each in hours)
    return [each for each in hours if each.hour > newest - HOUR * length]


def weigh(store: Store, baseline: Baseline, judged: HourDrift, report: DriftReport | None, now: float) -> None:
    """Take an hour's verdict into the evidence of its sensor.

    Args:
        store: Where the sensor's hours and its evidence are.
        baseline: What spans are held against.
        judged: The hour.
        report: Its report; None where it could not be judged.
        now: Unix time in seconds, by the store's clock.

    Raises:
        StoreError: If the store cannot be used.
    """
    hours = _hours(store, judged.sensor)
    if not hours or judged.hour <= max(each.hour for each in hours) - HOUR * SPANS[-1]:
        return
    with store.reading() as db:
        known = _parts(db, judged.sensor)
    due = due_spans(hours, known.spans, now)
    found = _weighed(store, baseline, judged, report, {length: last_hours(hours, length) for length in due}, now)
    log_e = {} if report is None else {judged.hour: log_e_of(report)}
    newest = max(each.hour for each in hours)
    with store.writing() as db:
        db.execute(upsert(db, EVIDENCE).values(sensor=judged.sensor).on_conflict_do_nothing())
        before = _parts(db, judged.sensor, lock=True)
        singles = {hour: e for hour, e in before.hours.items() if hour != judged.hour} | log_e
        spans = {**before.spans, **found}
        for length, span in before.spans.items():  # another process may have weighed it since
            if now >= span.weighed > spans[length].weighed:
                spans[length] = span
        parts = Parts({hour: e for hour, e in singles.items() if hour > newest - DAY}, spans)
        db.execute(update(EVIDENCE).where(EVIDENCE.c.sensor == judged.sensor).values(_row(db, judged, parts, now)))


def _hours(store: Store, sensor: str) -> list[HourRows]:
    """The sensor's hours of its longest span."""
    newest = select(HOURS.c.hour).where(HOURS.c.sensor == sensor).order_by(HOURS.c.hour.desc()).limit(1)
    since = newest.scalar_subquery() - HOUR * SPANS[-1]
    wanted = select(HOURS.c.hour, HOURS.c.rows, HOURS.c.updated).where(HOURS.c.sensor == sensor, HOURS.c.hour > since)
    with store.reading() as db:
        return [HourRows(*row) for row in db.execute(wanted.order_by(HOURS.c.hour))]


def _parts(db: Connection, sensor: str, lock: bool = False) -> Parts:
    """What is known of a sensor, for nobody else to change where it is locked."""
    wanted = select(EVIDENCE.c.parts).where(EVIDENCE.c.sensor == sensor)
    text = db.scalar(wanted.with_for_update() if lock else wanted)
    return Parts() if text is None else Parts.read(text)


def _weighed(
    store: Store,
    baseline: Baseline,
    judged: HourDrift,
    report: DriftReport | None,
    spans: Mapping[int, Sequence[HourRows]],
    now: float,
) -> dict[int, WeighedSpan]:
    """What is found of spans; of the same hours once, and of the judged one alone nothing that is not known."""
    found: dict[int, WeighedSpan] = {}
    known: dict[tuple[int, ...], DriftReport | None] = {(judged.hour,): report}
    for length, within in spans.items():
        key = tuple(each.hour for each in within)
        if key not in known:
            known[key] = _compared(store, baseline, judged.sensor, key)
        whole, empty = known[key], WeighedSpan(key[-1] + HOUR, now)
        found[length] = empty if whole is None else replace(empty, log_e=log_e_of(whole), moved=_moved(whole))
    return found


def _compared(store: Store, baseline: Baseline, sensor: str, hours: Sequence[int]) -> DriftReport | None:
    """The report of some hours together; None where they cannot be compared, as one of them alone."""
    try:
        return compare(baseline, profile_of_files(merged(_sketches(store, sensor, hours)), sensor, hours[-1]))
    except StoreError:
        raise
    except LensAIError as error:
        _LOG.warning("%d hours of %s could not be weighed together: %s", len(hours), sensor, error)
        return None


def _sketches(store: Store, sensor: str, hours: Sequence[int]) -> Iterator[Sketches]:
    """Of each hour, one at a time, as far as there is room for all of them merged."""
    room = Room()
    for hour in hours:
        with store.reading() as db:
            packed = db.scalar(select(HOURS.c.sketches).where(of_hour(sensor, hour)))
        if packed is not None:
            yield room.fitting(unpack_sketches(bytes(packed)))


def _moved(report: DriftReport) -> tuple[str, ...]:
    return tuple(stream.stream for stream in report.moved[:_MOST_MOVED])


def _row(db: Connection, judged: HourDrift, parts: Parts, now: float) -> dict[str, Any]:
    """The columns of a sensor's evidence: the sum, and what has the most of it."""
    row: dict[str, Any] = {"log_e": parts.log_e, "weighed": now, "parts": parts.to_json()}
    by_length = {length: span.log_e for length, span in parts.spans.items() if span.log_e is not None}
    by_length |= {1: log_mean_e(list(parts.hours.values()))} if parts.hours else {}
    if not by_length:
        return {**row, "hours": 0, "until": 0, "moved": "[]"}
    length = max(by_length, key=lambda each: (by_length[each], -each))
    if length > 1:
        span = parts.spans[length]
        return {**row, "hours": length, "until": span.until, "moved": json.dumps(span.moved)}
    hour = max(parts.hours, key=lambda each: (parts.hours[each], each))
    moved = json.dumps(judged.moved)
    if hour != judged.hour:
        moved = db.scalar(select(HOURS.c.moved).where(of_hour(judged.sensor, hour))) or "[]"
    return {**row, "hours": 1, "until": hour + HOUR, "moved": moved}


def evidence_of_row(row: Any, reported: bool) -> Evidence:
    """The evidence of a row of `EVIDENCE` that has some."""
    return Evidence(row.log_e, reported, row.hours, row.until, tuple(json.loads(row.moved)), row.weighed)
