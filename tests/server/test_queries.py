"""Which sensors are listed of more than can be, and how all of them stand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from sensors import NOW, THIS_HOUR, evidence, make_sensor
from sqlalchemy import insert, update

from lensai_integrations.server import queries
from lensai_integrations.server.records import HOUR, standing
from lensai_integrations.server.store import EVIDENCE, HOURS, SENSORS

#: By name, in the order in which they are to be looked at: hours, seconds since its upload, evidence.
KINDS = {
    "y most": ("gd", 0, 60.0),
    "z reported": ("gg", 90_000, 50.0),
    "x failed": ("df", 0, 3.0),
    "silent": ("gg", 90_001, 2.0),
    "failed": ("f", 0, None),
    "c": ("dg", 0, 3.5),
    "b an hour": ("gd", 0, -0.1),
    "a": ("gg", 0, -0.5),
    "none": ("", 0, None),
    "waits": ("w", 0, None),
}


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
            if (evidence := sensor.evidence) is not None:
                most = {"hours": evidence.hours, "until": evidence.until, "moved": json.dumps(evidence.moved)}
                row = {"sensor": sensor.name, "log_e": evidence.log_e, "weighed": evidence.weighed}
                db.execute(insert(EVIDENCE).values(**row, **most))


@pytest.fixture
def filled(store):
    for name, (kinds, ago, log_e) in reversed(KINDS.items()):
        about = {"received": NOW - ago, "evidence": None if log_e is None else evidence(log_e, reported=log_e > 10)}
        sensor = make_sensor(name, kinds or "w", **about)
        fill(store, [sensor if kinds else replace(sensor, hours=())])
    return store


def look(store, most, now=NOW):
    return queries.sensors_to_look_at(store, now=now, most=most)


@pytest.mark.parametrize("most", [1, 3, 6, 10, 11])
def test_of_many_sensors_those_to_look_at_first_are_listed_and_all_are_counted(filled, most, monkeypatch):
    monkeypatch.setattr(queries, "_AT_ONCE", 2)
    sensors, fleet = look(filled, most)
    assert [sensor.name for sensor in sensors] == list(KINDS)[:most]
    assert fleet.verdicts == {"drift": 2, "failed": 2, "good": 4, "waiting": 2}
    assert (fleet.weighed, fleet.reported) == (7, 2)
    evidence = queries.weighed_sensors(filled, now=NOW)
    known = [replace(queries.find_sensor(filled, name), evidence=evidence.get(name)) for name in list(KINDS)[:most]]
    assert sensors == known
    assert [sensor.evidence and sensor.evidence.log_e for sensor in sensors] == [e for *_, e in KINDS.values()][:most]


def test_reported_ones_are_those_that_e_bh_rejects(filled):
    """0.05 of those reported: among 7 a single one needs e = 140, of two each 70."""
    found = {name for name, each in queries.weighed_sensors(filled, now=NOW).items() if each.reported}
    assert found == {"y most", "z reported"}
    for log_e, reported in ((math.log(46.5), set()), (math.log(46.8), {"c"})):
        with filled.writing() as db:
            db.execute(update(EVIDENCE).where(EVIDENCE.c.sensor == "c").values(log_e=log_e))
        now = {name for name, each in queries.weighed_sensors(filled, now=NOW).items() if each.reported}
        assert now == found | reported


def test_whoever_was_not_heard_of_for_a_week_is_not_weighed(filled):
    """By what was heard last, and not later than now: a clock that is wrong takes nobody away."""
    gone = make_sensor("gone", "gd", received=NOW - 7 * 86_400 - 5, evidence=evidence(70.0, reported=True))
    fill(filled, [gone])
    for now in (NOW, NOW + 90 * 86_400):
        sensors, fleet = look(filled, 99, now)
        assert next(sensor for sensor in sensors if sensor.name == "gone").evidence is None
        assert (fleet.weighed, fleet.reported) == (7, 2)
    with filled.writing() as db:
        db.execute(update(SENSORS).where(SENSORS.c.name == "waits").values(received=NOW + 90 * 86_400.0))
    assert len(queries.weighed_sensors(filled, now=NOW)) == 7


def test_sensors_are_counted_as_they_are_shown(filled):
    old = make_sensor("old drift", "d", end=THIS_HOUR - 8 * 24 * HOUR, last=THIS_HOUR)
    ahead = make_sensor("ahead", "gd", end=THIS_HOUR + 30 * 24 * HOUR)
    fill(filled, [old, ahead])
    sensors, fleet = look(filled, 99)
    found = [standing(sensor, NOW).verdict for sensor in sensors]
    assert fleet.verdicts == {each: found.count(each) for each in set(found)}
    assert (fleet.verdicts["drift"], fleet.verdicts["waiting"]) == (3, 3)


def test_a_page_of_sensors_ends_where_there_are_no_more(filled):
    assert [sensor.name for sensor in queries.list_sensors(filled, most=2)] == ["a", "b an hour"]
    assert [len(sensor.hours) for sensor in queries.list_sensors(filled, most=2, after="b an hour")] == [2, 1]
