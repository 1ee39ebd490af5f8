"""What the store is asked: sensors, their hours, reports, counts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Select, func, select, update

from lensai_integrations.edge.uploads import Sketches, unpack_sketches
from lensai_integrations.server.records import HOUR, HourDrift, Sensor
from lensai_integrations.server.store import Store
from lensai_integrations.server.tables import HOURS, META, SENSORS, UPLOADS

_VERDICT = (
    HOURS.c.sensor, HOURS.c.hour, HOURS.c.uploads, HOURS.c.rows, HOURS.c.drift, HOURS.c.effect, HOURS.c.moved,
    HOURS.c.judged, HOURS.c.problem,
)  # fmt: skip


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


def list_sensors(store: Store, *, most: int, after: str = "", recent: int = 48) -> list[Sensor]:
    """Sensors by name, each with its last hours.

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
        sensors = [_sensor(row) for row in db.execute(named)]
        if not sensors:
            return []
        within = (SENSORS.c.name > after) & (SENSORS.c.name <= sensors[-1].name)
        hours = (
            select(*_VERDICT)
            .join(SENSORS, SENSORS.c.name == HOURS.c.sensor)
            .where(within, HOURS.c.hour > SENSORS.c.last - recent * HOUR)
            .order_by(HOURS.c.sensor, HOURS.c.hour)
        )
        by_sensor = _by_sensor(db.execute(hours))
    return [replace(sensor, hours=tuple(by_sensor.get(sensor.name, ()))) for sensor in sensors]


def find_sensor(store: Store, name: str, *, recent: int = 168) -> Sensor | None:
    """A sensor with its last hours; None if there is none of that name.

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
    wanted: Select[Any] = select(*_VERDICT).where(HOURS.c.sensor == sensor)
    if start is not None:
        wanted = wanted.where(HOURS.c.hour > start - HOUR)
    if end is not None:
        wanted = wanted.where(HOURS.c.hour < end)
    with store.reading() as db:
        rows = list(db.execute(wanted.order_by(HOURS.c.hour.desc()).limit(most)))
    return [_hour(row) for row in reversed(rows)]


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
        wanted = select(*_VERDICT, HOURS.c.report).where(HOURS.c.sensor == sensor, HOURS.c.hour == hour)
        row = db.execute(wanted).first()
    if row is None:
        return None
    return _hour(row), (None if row.report is None else json.loads(row.report))


def latest(store: Store, *, since: float, most: int) -> list[HourDrift]:
    """The newest judged hour of each sensor that has sent something lately.

    Args:
        store: Where from.
        since: Unix time in seconds after which something came.
        most: How many sensors at most.
    """
    newest = select(func.max(HOURS.c.hour)).where(HOURS.c.sensor == SENSORS.c.name, HOURS.c.judged.is_not(None))
    wanted = (
        select(*_VERDICT)
        .join(SENSORS, SENSORS.c.name == HOURS.c.sensor)
        .where(SENSORS.c.received >= since, HOURS.c.hour == newest.correlate(SENSORS).scalar_subquery())
        .order_by(HOURS.c.sensor)
        .limit(most)
    )
    with store.reading() as db:
        return [_hour(row) for row in db.execute(wanted)]


def counts(store: Store) -> Counts:
    """How much is in the store."""
    pending = select(func.count()).select_from(UPLOADS).where(UPLOADS.c.payload.is_not(None))
    due = select(func.count()).select_from(HOURS).where(HOURS.c.judged_version < HOURS.c.version)
    with store.reading() as db:
        found = [db.scalar(each) or 0 for each in (select(func.count()).select_from(SENSORS), pending, due)]
    return Counts(*found)


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


def _sensor(row: Any) -> Sensor:
    return Sensor(
        row.name, row.uploads, row.first, row.last, row.received, tuple(json.loads(row.problems)), run_url=row.run_url
    )


def _hour(row: Any) -> HourDrift:
    drift = None if row.drift is None else bool(row.drift)
    moved = tuple(json.loads(row.moved))
    return HourDrift(row.sensor, row.hour, row.uploads, row.rows, drift, row.effect, moved, row.judged, row.problem)


def _by_sensor(rows: Iterable[Any]) -> dict[str, list[HourDrift]]:
    found: dict[str, list[HourDrift]] = {}
    for row in rows:
        found.setdefault(row.sensor, []).append(_hour(row))
    return found
