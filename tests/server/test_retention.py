"""What is old by the newest data is forgotten, whatever a clock says, and so much at once."""

from __future__ import annotations

import contextlib

import pytest
from sqlalchemy import func, insert, select

from lensai_integrations.server import settling
from lensai_integrations.server.records import HOUR
from lensai_integrations.server.store import HOURS, SENSORS, UPLOADS

NOW = 1_800_000_000
DAY = 86_400.0


def fill(store, ages, sensor="a", written=None, received=NOW, last=None):
    """Hours of a sensor that began so many hours ago, each with an upload, written then or as `written` says."""
    hours = [(NOW // HOUR - age) * HOUR for age in ages]
    with store.writing() as db:
        about = {"sensor": sensor, "version": 1, "uploads": 1, "rows": 1, "sketches": b""}
        rows = [{**about, "hour": hour, "updated": hour + 900.0 if written is None else written} for hour in hours]
        db.execute(insert(HOURS), rows)
        about = {"sensor": sensor, "digest": "", "size": 1, "received": 0.0, "problems": "[]", "payload": None}
        db.execute(insert(UPLOADS), [{**about, "hour": hour, "timestamp": hour + 5} for hour in hours])
        about = {"name": sensor, "uploads": len(hours), "problems": "[]", "received": received}
        db.execute(insert(SENSORS).values(first=min(hours), last=last or max(hours) + 5, **about))


def kept(store):
    """How many hours, uploads and sensors there are."""
    with store.reading() as db:
        return tuple(db.scalar(select(func.count()).select_from(table)) for table in (HOURS, UPLOADS, SENSORS))


def test_hours_are_forgotten_with_their_uploads_and_sensors(store):
    fill(store, range(30), received=NOW - 60)
    fill(store, range(40, 50), "old", received=NOW - 40 * HOUR)
    found = settling.forget(store, NOW, DAY)
    assert (found.hours, found.sensors, found.left) == (5 + 10, 2, 0)
    assert (found.first, found.last) == ((NOW // HOUR - 49) * HOUR, (NOW // HOUR - 25) * HOUR)
    assert kept(store) == (25, 25, 1)
    assert settling.forget(store, NOW, DAY).hours == 0


@pytest.mark.parametrize("ahead", [91 * DAY, 365 * DAY, 1e12])
def test_a_clock_that_is_ahead_makes_nothing_old(store, ahead):
    fill(store, range(30))
    assert settling.forget(store, NOW + ahead, 90 * DAY).hours == 0
    fill(store, [0], "merged by that clock", written=NOW + ahead, received=NOW + ahead)
    assert settling.forget(store, NOW + ahead, 90 * DAY).hours == 0
    assert settling.forget(store, NOW, 90 * DAY).hours == 0  # set right


def test_a_clock_that_was_behind_when_hours_were_written_makes_them_no_older(store):
    fill(store, range(30), written=0.0, received=0.0)
    fill(store, [0], "written since")
    assert settling.forget(store, NOW, DAY).hours == 5
    assert settling.forget(store, 0, DAY).hours == 0  # behind again


def test_what_a_device_says_of_a_time_to_come_makes_others_no_older(store):
    fill(store, range(30))
    fill(store, [0], "ahead", last=NOW + 400 * int(DAY))
    assert settling.forget(store, NOW, 2 * DAY).hours == 0


def test_old_hours_that_came_late_are_kept_from_when_they_came(store):
    fill(store, range(0, 24))
    fill(store, range(5000, 5010), "offline for months", written=NOW - 3600.0)
    assert settling.forget(store, NOW, DAY).hours == 0


def test_devices_whose_clocks_are_years_behind_are_forgotten_too(store):
    """Their data say how much time has passed, if not what time it is."""
    fill(store, [200_000 + age for age in range(30)], written=None)
    with store.writing() as db:
        db.execute(HOURS.update().values(updated=HOURS.c.hour + 200_000.0 * HOUR))
    assert settling.forget(store, NOW, DAY).hours == 5


def test_a_store_into_which_nothing_comes_keeps_what_it_has(store):
    fill(store, range(24))
    assert settling.forget(store, NOW + 10_000 * DAY, DAY).hours == 0


@pytest.mark.parametrize(("least", "share", "at_once"), [(13, 0.05, 13), (1, 0.1, 20)])
def test_a_share_is_forgotten_at_once_and_all_in_the_end(sqlite, monkeypatch, least, share, at_once):
    monkeypatch.setattr(settling, "LEAST", least)
    monkeypatch.setattr(settling, "SHARE", share)
    monkeypatch.setattr(settling, "_BETWEEN", 0.0)
    fill(sqlite, range(100))
    fill(sqlite, range(300, 400), "old", received=NOW - 300 * HOUR)
    found = settling.forget(sqlite, NOW, 7 * DAY)
    assert (found.hours, found.left) == (at_once, 100 - at_once)
    assert found.first == (NOW // HOUR - 399) * HOUR  # the oldest
    while found.left:
        found = settling.forget(sqlite, NOW, 7 * DAY)
    assert kept(sqlite) == (100, 100, 1)


def test_hours_are_forgotten_some_at_a_time(sqlite, monkeypatch):
    """Uploads come in between: SQLite has one writer at a time."""
    monkeypatch.setattr(settling, "FORGOTTEN", 2)
    fill(sqlite, [0, 50, 51, 52, 53, 54])
    with sqlite.writing() as db:  # of a forgotten hour, and not merged
        db.execute(UPLOADS.update().where(UPLOADS.c.hour == NOW - 54 * HOUR).values(payload=b"abc"))
    deleted, writing = [], sqlite.writing

    @contextlib.contextmanager
    def counting():
        with writing() as db:
            before = db.scalar(select(func.count()).select_from(HOURS))
            yield db
            deleted.append(before - db.scalar(select(func.count()).select_from(HOURS)))

    monkeypatch.setattr(sqlite, "writing", counting)
    assert settling.forget(sqlite, NOW, DAY).hours == 5
    assert [n for n in deleted if n] == [2, 2, 1]
    assert kept(sqlite) == (1, 2, 1)


def test_an_empty_store_has_nothing_to_forget(store):
    assert settling.forget(store, NOW, DAY) == settling.Forgotten()
