"""Which sensors are listed of more than can be, and how all of them stand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sensors import NOW, THIS_HOUR, make_sensor
from sqlalchemy import insert

from lensai_integrations.server import queries
from lensai_integrations.server.records import HOUR, standing
from lensai_integrations.server.store import HOURS, SENSORS

#: By name, in the order in which they are to be looked at.
KINDS = {"y drifts": "gd", "drifted, waits": "dw", "x failed": "df", "c": "gg", "b": "dg", "a": "w", "none": ""}


def fill(store, sensors):
    """As if devices had sent this."""
    with store.writing() as db:
        for sensor in sensors:
            about = {"first": sensor.first, "last": sensor.last, "received": sensor.received, "uploads": sensor.uploads}
            db.execute(insert(SENSORS).values(name=sensor.name, problems="[]", **about))
            for hour in sensor.hours:
                found = {"drift": hour.drift, "effect": hour.effect, "problem": hour.problem, "version": 1}
                about = {"sensor": sensor.name, "hour": hour.hour, "uploads": 2, "rows": 100, "updated": 0.0}
                db.execute(insert(HOURS).values(sketches=b"", **about, **found))


@pytest.fixture
def filled(store):
    for (name, kinds), later in zip(KINDS.items(), (4, 5, 6, 0, 1, 2, 3), strict=True):  # the worst came last
        sensor = make_sensor(name, kinds or "w", received=NOW + later)
        fill(store, [sensor if kinds else replace(sensor, hours=())])
    return store


@pytest.mark.parametrize("most", [1, 2, 3, 5, 7, 8])
def test_of_many_sensors_those_to_look_at_first_are_listed_and_all_are_counted(filled, most, monkeypatch):
    monkeypatch.setattr(queries, "_AT_ONCE", 2)
    sensors, verdicts = queries.sensors_to_look_at(filled, most=most)
    assert [sensor.name for sensor in sensors] == list(KINDS)[:most]
    assert verdicts == {"drift": 2, "failed": 1, "good": 2, "waiting": 2}
    assert sensors == [queries.find_sensor(filled, sensor.name) for sensor in sensors]


def test_sensors_are_counted_as_they_are_shown(filled):
    old = make_sensor("old drift", "d", end=THIS_HOUR - 8 * 24 * HOUR, last=THIS_HOUR)
    ahead = make_sensor("ahead", "gd", end=THIS_HOUR + 30 * 24 * HOUR)
    fill(filled, [old, ahead])
    sensors, verdicts = queries.sensors_to_look_at(filled, most=99)
    found = [standing(sensor, NOW).verdict for sensor in sensors]
    assert verdicts == {each: found.count(each) for each in set(found)}
    assert (verdicts["drift"], verdicts["waiting"]) == (3, 3)


def test_a_page_of_sensors_ends_where_there_are_no_more(filled):
    assert [sensor.name for sensor in queries.list_sensors(filled, most=2)] == ["a", "b"]
    assert [len(sensor.hours) for sensor in queries.list_sensors(filled, most=2, after="b")] == [2, 2]
