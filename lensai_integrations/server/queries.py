"""What the store is asked: sensors, their hours, reports, counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Select, case, func, select, update

from lensai_integrations.edge.uploads import Sketches, unpack_sketches
from lensai_integrations.server.records import (
    DRIFT,
    FAILED,
    GOOD,
    HOUR,
    WAITING,
    Evidence,
    Fleet,
    HourDrift,
    Sensor,
    look_first,
)
from lensai_integrations.server.store import EVIDENCE, HOURS, META, SENSORS, UPLOADS, Store
from lensai_integrations.server.weighing import SPANS, evidence_of_row, fleet_of

#: Columns of a verdict.
VERDICT = (
    HOURS.c.sensor, HOURS.c.hour, HOURS.c.uploads, HOURS.c.rows, HOURS.c.drift, HOURS.c.effect, HOURS.c.moved,
    HOURS.c.judged, HOURS.c.problem,
)  # fmt: skip
#: Seconds in which a sensor was heard of to be weighed against the others: its evidence is of that time.
_WEIGHED: Final = SPANS[-1] * HOUR
#: Seconds in which a sensor was heard of lately.
_LATELY: Final = 86_400.0
#: Sensors that are named in one statement.
_AT_ONCE: Final = 5_000


@dataclass(frozen=True)
class Counts:
    """How much is in the store.

    Attributes:
        sensors: Sensors.
        pending: Uploads that are not merged yet.
        due: Hours that have changed since they were judged.
    """

    sensors: int
    pending: int
    due: int


@dataclass(frozen=True)
class Latest:
    """How sensors heard of lately stand.

    Attributes:
        hours: The newest judged hours of some of them.
        drifting: How many drift, of all.
        left_out: How many have an hour that was judged, and are not in `hours`.
        evidence: By name, of all sensors that are weighed against each other.
    """

    hours: list[HourDrift]
    drifting: int
    left_out: int
    evidence: dict[str, Evidence]


def list_sensors(store: Store, *, most: int, after: str = "", recent: int = 48) -> list[Sensor]:
    """Sensors by name, each with its last hours, without their evidence.

    Args:
        store: Where from.
        most: How many at most.
        after: Only names after this one.
        recent: Hours before a sensor's last upload from which verdicts are given.

    Example:
        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> list_sensors(store, most=10)
        []
        >>> store.close()
    """
    named = select(SENSORS).where(SENSORS.c.name > after).order_by(SENSORS.c.name).limit(most)
    with store.reading() as db:
        return _with_hours(db, [_sensor(row) for row in db.execute(named)], recent)


def weighed_sensors(store: Store, *, now: float) -> dict[str, Evidence]:
    """The evidence of all sensors that were heard of within a week before anything was, and which are reported.

    Args:
        store: Where from.
        now: Unix time in seconds, which nothing in the store is newer than.

    Example:
        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> weighed_sensors(store, now=1.8e9)
        {}
        >>> store.close()
    """
    with store.reading() as db:
        return _evidence(db, now)


def sensors_to_look_at(store: Store, *, now: float, most: int, recent: int = 168) -> tuple[list[Sensor], Fleet]:
    """The sensors to look at first, each with its last hours, and how all sensors stand.

    First are those that are reported, then those whose newest hour could not be judged or of which nothing came for a
    day; of each and of the others those with the most evidence, and last those without any.

    Args:
        store: Where from.
        now: Unix time in seconds.
        most: How many sensors at most.
        recent: Hours before a sensor's last upload from which verdicts are given, and count.

    Example:
        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> sensors_to_look_at(store, now=1.8e9, most=10)[0]
        []
        >>> store.close()
    """
    of_sensor = (HOURS.c.sensor == SENSORS.c.name) & (HOURS.c.hour > SENSORS.c.last - recent * HOUR)
    verdict = case((HOURS.c.drift.is_(True), DRIFT), (HOURS.c.problem != "", FAILED), else_=GOOD)  # as `verdict_of`
    has_verdict = of_sensor & (HOURS.c.drift.is_not(None) | (HOURS.c.problem != ""))
    newest = (
        select(verdict).where(has_verdict).order_by(HOURS.c.hour.desc()).limit(1).correlate(SENSORS).scalar_subquery()
    )
    all_sensors = select(SENSORS.c.name, newest.label("verdict"), SENSORS.c.received).order_by(SENSORS.c.name)
    with store.reading() as db:
        evidence, quiet = _evidence(db, now), _heard_since(db, now, _LATELY)
        everyone = db.execute(all_sensors).all()
        verdicts = {row.name: row.verdict or WAITING for row in everyone}
        unheard = {row.name for row in everyone if row.received < quiet}
        first = sorted(
            verdicts,
            key=lambda name: look_first(evidence.get(name), verdicts[name] == FAILED or name in unheard),
        )[:most]
        rows = [row for some in _parts(first) for row in db.execute(select(SENSORS).where(SENSORS.c.name.in_(some)))]
        # without those that were forgotten this moment
        sensors = {row.name: replace(_sensor(row), evidence=evidence.get(row.name)) for row in rows}
        listed = [sensors[name] for name in first if name in sensors]
        reported = sum(each.reported for each in evidence.values())
        return _with_hours(db, listed, recent), Fleet(Counter(verdicts.values()), len(evidence), reported)


def find_sensor(store: Store, name: str, *, recent: int = 168) -> Sensor | None:
    """A sensor with its last hours, without its evidence; None if there is none of that name.

    Args:
        store: Where from.
        name: Its name.
        recent: Hours before its last upload from which verdicts are given.
    """
    with store.reading() as db:
        row = db.execute(select(SENSORS).where(SENSORS.c.name == name)).first()
    if row is None:
        return None
    sensor = _sensor(row)
    return replace(sensor, hours=tuple(list_hours(store, name, start=sensor.last - recent * HOUR, most=recent + 1)))


def list_hours(
    store: Store, sensor: str, *, start: int | None = None, end: int | None = None, most: int
) -> list[HourDrift]:
    """Hours of a sensor, newest last; of more than `most` the newest.

    Args:
        store: Where from.
        sensor: Its name.
        start: Hours that end after this, unix time in seconds.
        end: Hours that begin before this.
        most: How many at most.
    """
    wanted: Select[Any] = select(*VERDICT).where(HOURS.c.sensor == sensor)
    if start is not None:
        wanted = wanted.where(HOURS.c.hour > start - HOUR)
    if end is not None:
        wanted = wanted.where(HOURS.c.hour < end)
    with store.reading() as db:
        rows = list(db.execute(wanted.order_by(HOURS.c.hour.desc()).limit(most)))
    return [verdict_of_row(row) for row in reversed(rows)]


def hour_sketches(store: Store, sensor: str, hour: int) -> Sketches | None:
    """What is merged of an hour; None if nothing is.

    Raises:
        FormatError: If what is stored is damaged.
        StoreError: If the store cannot be used.
    """
    with store.reading() as db:
        blob = db.scalar(select(HOURS.c.sketches).where(HOURS.c.sensor == sensor, HOURS.c.hour == hour))
    return None if blob is None else unpack_sketches(bytes(blob))


def hour_report(store: Store, sensor: str, hour: int) -> tuple[HourDrift, dict[str, Any] | None] | None:
    """What was found of an hour, and the whole report where there is one; None if there is no such hour."""
    with store.reading() as db:
        wanted = select(*VERDICT, HOURS.c.report).where(HOURS.c.sensor == sensor, HOURS.c.hour == hour)
        row = db.execute(wanted).first()
    if row is None:
        return None
    return verdict_of_row(row), (None if row.report is None else json.loads(row.report))


def latest(store: Store, *, now: float, most: int, recent: int = 168) -> Latest:
    """The newest judged hour of sensors heard of lately: those that are reported, those that drift, then by name.

    Lately is within a day before anything was heard, which is no later than now.

    Args:
        store: Where from.
        now: Unix time in seconds.
        most: How many sensors at most.
        recent: Hours before a sensor's last upload from which verdicts count.
    """
    judged = (HOURS.c.sensor == SENSORS.c.name) & HOURS.c.judged.is_not(None)
    newest = select(func.max(HOURS.c.hour)).where(judged, HOURS.c.hour > SENSORS.c.last - recent * HOUR)
    of_newest = (HOURS.c.sensor == SENSORS.c.name) & (HOURS.c.hour == newest.correlate(SENSORS).scalar_subquery())
    with store.reading() as db:
        heard = select(*VERDICT).join(SENSORS, of_newest).where(SENSORS.c.received >= _heard_since(db, now, _LATELY))
        rows = db.execute(heard.order_by(SENSORS.c.name)).all()
        evidence = _evidence(db, now)
    reported = {name for name, each in evidence.items() if each.reported}
    ordered = sorted(rows, key=lambda row: (row.sensor not in reported, not row.drift))
    listed = [verdict_of_row(row) for row in ordered[:most]]
    return Latest(listed, sum(bool(row.drift) for row in rows), len(rows) - len(listed), evidence)


def counts(store: Store) -> Counts:
    """How much is in the store."""
    pending = select(func.count()).select_from(UPLOADS).where(UPLOADS.c.payload.is_not(None))
    due = select(func.count()).select_from(HOURS).where(HOURS.c.judged_version < HOURS.c.version)
    with store.reading() as db:
        numbers = [db.scalar(query) or 0 for query in (select(func.count()).select_from(SENSORS), pending, due)]
    return Counts(*numbers)


def ping(store: Store) -> None:
    """Ask the store something.

    Raises:
        StoreError: If it does not answer.
    """
    with store.reading() as db:
        db.execute(select(META.c.value).limit(1)).first()


def run_of(store: Store, sensor: str) -> str:
    """Id of a sensor's MLflow run; empty if there is none."""
    with store.reading() as db:
        return db.scalar(select(SENSORS.c.run_id).where(SENSORS.c.name == sensor)) or ""


def set_run(store: Store, sensor: str, run_id: str, run_url: str) -> None:
    """Remember a sensor's MLflow run.

    Args:
        store: Where to.
        sensor: Its name.
        run_id: The run's id.
        run_url: Of its page.
    """
    with store.writing() as db:
        db.execute(update(SENSORS).where(SENSORS.c.name == sensor).values(run_id=run_id, run_url=run_url))


def _with_hours(db: Connection, sensors: list[Sensor], recent: int) -> list[Sensor]:
    """The sensors with their hours since so many before their last uploads."""
    by_sensor: dict[str, list[HourDrift]] = {}
    for some in _parts([sensor.name for sensor in sensors]):
        hours = (
            select(*VERDICT)
            .join(SENSORS, SENSORS.c.name == HOURS.c.sensor)
            .where(SENSORS.c.name.in_(some), HOURS.c.hour > SENSORS.c.last - recent * HOUR)
            .order_by(HOURS.c.sensor, HOURS.c.hour)
        )
        by_sensor |= _by_sensor(db.execute(hours))
    return [replace(sensor, hours=tuple(by_sensor.get(sensor.name, ()))) for sensor in sensors]


def _parts(names: list[str]) -> Iterator[list[str]]:
    """Databases take only so many parameters of a statement."""
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))


def _sensor(row: Any) -> Sensor:
    return Sensor(
        row.name, row.uploads, row.first, row.last, row.received, tuple(json.loads(row.problems)), run_url=row.run_url
    )


def _heard_since(db: Connection, now: float, seconds: float) -> float:
    """So many seconds before anything was heard, which is no later than now."""
    return min(now, db.scalar(select(func.max(SENSORS.c.received))) or 0.0) - seconds


def _evidence(db: Connection, now: float) -> dict[str, Evidence]:
    """Of all sensors that are weighed against each other."""
    heard = SENSORS.c.received >= _heard_since(db, now, _WEIGHED)
    columns = [column for column in EVIDENCE.c if column.name != "parts"]
    wanted = (
        select(*columns).join(SENSORS, SENSORS.c.name == EVIDENCE.c.sensor).where(heard, EVIDENCE.c.log_e.is_not(None))
    )
    rows = db.execute(wanted).all()
    reported = fleet_of([row.log_e for row in rows])
    return {row.sensor: evidence_of_row(row, each) for row, each in zip(rows, reported, strict=True)}


def verdict_of_row(row: Any) -> HourDrift:
    """The hour of a row with the columns `VERDICT`."""
    drift = None if row.drift is None else bool(row.drift)
    moved = tuple(json.loads(row.moved)) if row.moved != "[]" else ()
    return HourDrift(row.sensor, row.hour, row.uploads, row.rows, drift, row.effect, moved, row.judged, row.problem)


def _by_sensor(rows: Iterable[Any]) -> dict[str, list[HourDrift]]:
    hours: dict[str, list[HourDrift]] = {}
    for row in rows:
        hours.setdefault(row.sensor, []).append(verdict_of_row(row))
    return hours
