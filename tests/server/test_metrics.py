"""What Prometheus is told of more sensors than have series: those that drift, and how many there are."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, update

from lensai_integrations.server import metrics, queries
from lensai_integrations.server.metrics import ServerMetrics
from lensai_integrations.server.records import HOUR
from lensai_integrations.server.store import HOURS, SENSORS

NOW = 1_800_000_000
DAY = 86_400


def fill(store, verdicts, received=NOW):
    """Sensors by name, each with hours as letters: `g`ood, `d`rift, `w`aiting or not to be judged."""
    about = {"first": NOW, "last": NOW, "uploads": 1, "problems": "[]", "received": received}
    merged = {"version": 1, "updated": 0.0, "uploads": 1, "rows": 1, "sketches": b""}
    hours = [
        {**merged, "sensor": name, "hour": NOW + HOUR * at, "judged": None if kind == "w" else 1.0}
        | {"drift": {"g": False, "d": True, "w": None}[kind], "effect": None if kind == "w" else 0.5}
        for name, kinds in verdicts.items()
        for at, kind in enumerate(kinds)
    ]
    with store.writing() as db:
        db.execute(insert(SENSORS), [{**about, "name": name} for name in verdicts])
        db.execute(insert(HOURS), hours)


def told(store, now=NOW):
    found = queries.latest(store, now=now, most=metrics.MOST_SENSORS)
    return [hour.sensor for hour in found.hours], found.drifting, found.left_out


@pytest.mark.slow
def test_of_ten_thousand_sensors_those_that_drift_are_named_and_all_are_counted(sqlite):
    drifting = [f"cam-{n}" for n in (4, 8000, 9999)]
    fill(sqlite, {f"cam-{n}": "gd" if f"cam-{n}" in drifting else "dg" for n in range(10_000)})
    told = ServerMetrics(sqlite).registry
    assert [told.get_sample_value("lensai_sensor_drift", {"sensor": name}) for name in drifting] == [1.0, 1.0, 1.0]
    assert told.get_sample_value("lensai_sensors_drifting") == 3
    assert told.get_sample_value("lensai_sensors_left_out") == 9000
    assert told.get_sample_value("lensai_sensors") == 10_000
    (series,) = [family.samples for family in told.collect() if family.name == "lensai_sensor_drift"]
    assert (len(series), sum(sample.value for sample in series)) == (1000, 3)


def test_more_than_have_series_may_drift(store, monkeypatch):
    monkeypatch.setattr(metrics, "MOST_SENSORS", 2)
    fill(store, {"a": "g", "b": "gd", "c": "ggd", "d": "gdw", "e": "w", "f": ""} | {"g": "dg"})
    assert told(store) == (["b", "c"], 3, 3)  # a, d and g have hours that were judged, too
    monkeypatch.setattr(metrics, "MOST_SENSORS", 4)
    assert told(store) == (["b", "c", "d", "a"], 3, 1)
    monkeypatch.setattr(metrics, "MOST_SENSORS", 9)
    assert told(store) == (["b", "c", "d", "a", "g"], 3, 0)


def test_sensors_count_that_were_heard_of_within_a_day_before_anything_was(store):
    fill(store, {"gone": "d"}, received=NOW - DAY - 5)
    fill(store, {"here": "d"})
    assert told(store) == (["here"], 1, 0)


@pytest.mark.parametrize("now", [NOW + 91 * DAY, NOW - 91 * DAY, 0])
def test_a_clock_that_is_wrong_resolves_no_alarm(store, now):
    fill(store, {"a": "d", "b": "g"}, received=NOW - 60)
    assert told(store, now) == (["a", "b"], 1, 0)


def test_an_upload_that_came_in_the_future_resolves_no_alarm(store):
    """The clock here was ahead, and is right again."""
    fill(store, {"a": "d", "b": "g"})
    with store.writing() as db:
        db.execute(update(SENSORS).where(SENSORS.c.name == "b").values(received=NOW + 91.0 * DAY))
    assert told(store) == (["a", "b"], 1, 0)


def test_only_the_week_before_its_last_upload_is_looked_through(store):
    """However many hours of a sensor have no verdict yet."""
    fill(store, {"a": "g" + "w" * 167, "b": "g" + "w" * 168})
    with store.writing() as db:
        for name, hours in (("a", 167), ("b", 168)):
            db.execute(update(SENSORS).where(SENSORS.c.name == name).values(last=NOW + HOUR * hours))
    assert told(store) == (["a"], 0, 0)


def test_nothing_is_said_of_an_empty_store(store):
    assert told(store) == ([], 0, 0)
