"""The worker: what goes wrong with one hour stays there, and everything else is judged.

What is old by the newest data is forgotten, whatever a clock says, and so much at once.
"""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from receiving import HOUR, WHEN, client_of, device, form
from sqlalchemy import func, insert, select, update

from lensai_integrations import Baseline, compare, edge
from lensai_integrations.edge.uploads import pack_sketches
from lensai_integrations.server import hours, queries, settling
from lensai_integrations.server import settling as retention
from lensai_integrations.server.ledger import Received, add_uploads
from lensai_integrations.server.records import HOUR as AN_HOUR
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.store import HOURS, SENSORS, UPLOADS, StoreError


class Clock:
    """Steady seconds, that pass when they are told to."""

    def __init__(self):
        self.seconds = 1e6

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock(service):
    service.service.settler._steady = steady = Clock()
    service.service.settler._cleaned = steady.seconds
    return steady


def send(client, sensor="door-3", timestamp=WHEN, **more):
    response = client.post("/upload/", **form(sensor, timestamp, **more))
    assert response.status_code == 201, response.text


def failures(client, topic):
    return client.service.metrics.registry.get_sample_value("lensai_failures_total", {"topic": topic})


def hour(client, sensor="door-3"):
    (found,) = queries.list_hours(client.service.store, sensor, most=9)
    return found


def test_an_hour_is_merged_and_judged(service):
    send(service)
    send(service, timestamp=WHEN + 60, content=device(1))
    service.work(now=1000.0)
    found = hour(service)
    assert (found.uploads, found.rows, found.drift, found.judged, found.problem) == (2, 100, True, 1000.0, "")
    assert found.effect == pytest.approx(1.0, abs=0.05)
    assert "inputs/lensai-edge/brightness" in found.moved


def test_real_devices_against_the_real_reference(sqlite, data_dir):
    """What the server finds of an hour is what `compare` finds of the folder."""
    devices = data_dir / "lensai_edge"
    reference, found, expected = edge.read_stats(devices / "reference"), [], []
    client = client_of(Baseline(reference), sqlite)
    for sensor in ("sensor1", "sensor2"):
        for folder in sorted((devices / sensor).iterdir()):
            content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.bin")}
            send(client, sensor, folder.name, content=content)
            window = edge.read_stats(folder)
            report = compare(reference, window)
            expected.append((window.n, report.drift, [stream.stream for stream in report.moved]))
    client.work()
    for sensor in ("sensor1", "sensor2"):
        found += [(each.rows, each.drift, list(each.moved)) for each in queries.list_hours(sqlite, sensor, most=9)]
    assert found == expected
    assert [drift for _, drift, _ in found] == [True, False, False, False]


def test_an_hour_that_cannot_be_judged_says_why(service):
    send(service, content={"custom/own.bin": device()["imgstats/noise.bin"]})
    send(service, "fine")
    service.work()
    found = hour(service)
    assert found.drift is None
    assert "nothing to compare" in found.problem
    assert hour(service, "fine").drift is True
    service.work()  # it is not tried again and again
    assert failures(service, "judge") == 1


def test_a_defect_in_comparing_stops_neither_the_worker_nor_other_hours(service, monkeypatch, caplog):
    compare = settling.compare

    def broken(baseline, window, **more):
        if window.source == "door-3":
            raise ZeroDivisionError("on purpose")
        return compare(baseline, window, **more)

    monkeypatch.setattr(settling, "compare", broken)
    send(service)
    send(service, "fine")
    service.work()
    assert hour(service).problem == "ZeroDivisionError: on purpose"
    assert hour(service, "fine").drift is True
    assert "could not be judged" in caplog.text


def test_a_damaged_hour_is_left_alone_and_others_are_merged(service, clock, caplog):
    send(service)
    service.work()
    with service.service.store.writing() as db:
        db.execute(update(HOURS).values(sketches=b"damaged"))
    send(service, timestamp=WHEN + 1)
    send(service, "fine")
    for now in (1e9, 2e9, 0.0):  # whatever the clock is set to
        service.work(now)
        clock.seconds += 90.0
    assert hour(service, "fine").drift is True
    assert failures(service, "settle") == 1
    assert hours.pending(service.service.store) == [("door-3", HOUR)]
    clock.seconds += 100.0
    service.work()  # tried again later
    assert failures(service, "settle") == 2
    assert "the stored sketches are damaged" in caplog.text
    assert "the stored sketches are damaged" in hour(service).problem


def test_an_hour_that_the_store_refuses_is_left_alone_and_others_are_judged(service, clock, monkeypatch, caplog):
    """E.g. because it is too large for a row: the store itself is fine."""
    put = hours.put

    def refusing(store, batch, *rest):
        if batch.sensor == "door-3":
            raise StoreError("string or blob too big")
        return put(store, batch, *rest)

    send(service)
    service.work()
    monkeypatch.setattr(hours, "put", refusing)
    send(service, timestamp=WHEN + 1)
    send(service, "fine")
    for _ in range(2):
        service.work()
        clock.seconds += 16.0
    assert hour(service, "fine").drift is True
    assert failures(service, "settle") == 1
    assert "too big" in hour(service).problem
    monkeypatch.undo()
    service.work()
    assert (hour(service).uploads, hour(service).problem) == (2, "")


def test_a_store_that_refuses_everything_is_told_apart(service, monkeypatch):
    send(service)

    def refusing(*_):
        raise StoreError("it is gone")

    monkeypatch.setattr(hours, "put", refusing)
    monkeypatch.setattr(queries, "ping", refusing)
    with pytest.raises(StoreError, match="it is gone"):
        service.work()
    monkeypatch.undo()
    service.work()  # at once, for it is not left alone
    assert hour(service).drift is True


def test_hours_that_are_due_are_not_waited_for(service, monkeypatch):
    """The worker gathers uploads before it merges them, and judges on without a pause."""
    monkeypatch.setattr(settling, "JUDGING", -1.0)  # over after the first
    monkeypatch.setattr(settling, "GATHER", 0.5)
    pauses, settler = [], service.service.settler
    wait = settler._stop.wait
    monkeypatch.setattr(settler._stop, "wait", lambda seconds: pauses.append(seconds) or wait(seconds))
    for n in range(4):
        send(service, f"door-{n}")
    store = service.service.store
    with service:
        until(lambda: (queries.counts(store).pending, queries.counts(store).due) == (0, 0))
    assert pauses[:4] == [0.5, 0.0, 0.0, 0.0]


def test_whoever_is_told_of_verdicts_may_fail(baseline, sqlite, caplog):
    told = []

    def listener(judged):
        told.append((judged.verdict.sensor, judged.report.drift, judged.window.n, judged.baseline is baseline))
        raise OSError("the tracking server is gone")

    client = client_of(baseline, sqlite, on_judged=listener)
    send(client)
    client.work()
    assert told == [("door-3", True, 50, True)]
    assert hour(client).drift is True
    assert failures(client, "report") == 1
    assert "the tracking server is gone" in caplog.text


def test_an_open_hour_is_judged_again_after_the_interval(baseline, sqlite):
    client = client_of(baseline, sqlite, Settings(judge_seconds=60))
    judged = []
    for now in (1000.0, 1030.0, 1061.0, 1062.0, 2000.0):
        send(client, timestamp=WHEN + int(now))
        client.work(now)
        judged.append(hour(client).judged)
    assert judged == [1000.0, 1000.0, 1061.0, 1061.0, 2000.0]
    assert hour(client).uploads == 5


def test_uploads_are_merged_between_the_verdicts_of_many_hours(service, monkeypatch):
    monkeypatch.setattr(settling, "JUDGING", -1.0)  # over after the first
    for sensor in ("door-1", "door-2"):
        send(service, sensor=sensor)
    service.work(1000.0)
    assert queries.counts(service.service.store).due == 1
    send(service, sensor="door-3")
    service.work(1001.0)
    found = queries.counts(service.service.store)
    assert (found.pending, found.due) == (0, 1)
    service.work(1002.0)
    assert queries.counts(service.service.store).due == 0


class Day:
    """A server that keeps hours for a day, its store with hours of two, and its clocks."""

    def __init__(self, client):
        self.client, self.now, self.metrics = client, float(WHEN), client.service.metrics.registry
        client.service.settler._steady = self.steady = Clock()
        client.service.settler._cleaned = self.steady.seconds
        for hours_ago in (48, 30, 0):
            send(client, timestamp=WHEN - 3600 * hours_ago)
        self.work()
        with client.service.store.writing() as db:  # as if each had been merged when it came
            db.execute(update(HOURS).values(updated=HOURS.c.hour + 900.0))

    def work(self, hours_pass=0.0, set_by=0.0):
        self.steady.seconds += 3600 * hours_pass
        self.now += 3600 * hours_pass + set_by
        self.client.work(self.now)
        return [(WHEN - each.hour) // 3600 for each in queries.list_hours(self.client.service.store, "door-3", most=9)]


@pytest.fixture
def day(baseline, sqlite):
    return Day(client_of(baseline, sqlite, Settings(judge_seconds=0, keep_days=1)))


def test_old_hours_are_forgotten_an_hour_after_the_start_counted_and_said(day, caplog):
    caplog.set_level("INFO")
    assert day.work(hours_pass=0.9) == [48, 30, 0]
    assert day.work(hours_pass=0.2) == [0]
    assert day.metrics.get_sample_value("lensai_hours_forgotten_total") == 2
    assert "2 hours of 1 sensors, of 2024-06-24 09:00 UTC to 2024-06-25 03:00 UTC, were forgotten" in caplog.text


@pytest.mark.parametrize("set_by", [91 * 86_400.0, -91 * 86_400.0, 61.0])
def test_nothing_is_forgotten_where_the_clock_was_set(day, caplog, set_by):
    assert day.work(set_by=set_by) == [48, 30, 0]
    assert day.work(hours_pass=1.1) == [48, 30, 0]
    assert f"the clock was set {'forward' if set_by > 0 else 'back'} by" in caplog.text
    day.work(set_by=-set_by)
    assert day.work(hours_pass=1.1) == [48, 30, 0]
    assert day.work(hours_pass=1.1) == [0]


def test_a_clock_that_is_ahead_all_the_time_makes_nothing_old(day, caplog):
    """Months of it: nothing that came says that any time has passed."""
    caplog.set_level("INFO")
    day.work(set_by=91 * 86_400.0)
    assert [day.work(hours_pass=1.1) for _ in range(30)][-1] == [0]  # those of more than a day before the newest data
    send(day.client, timestamp=WHEN + 5)  # merged by that clock
    assert [day.work(hours_pass=1.1) for _ in range(30)][-1] == [0]


def test_so_many_hours_at_once_that_a_clock_may_be_wrong_are_left_and_said(day, monkeypatch, caplog):
    monkeypatch.setattr(retention, "LEAST", 1)
    assert day.work(hours_pass=1.1) == [30, 0]
    assert "1 more hours are as old; so many at once are due where" in caplog.text
    assert day.work(hours_pass=1.1) == [0]


def test_a_flood_of_new_hours_keeps_no_verdict_of_another_sensor_waiting(service, monkeypatch):
    """Counted in turns: each merges uploads of one hour, and judges one hour."""
    monkeypatch.setattr(settling, "MERGING", -1.0)  # over after the first
    monkeypatch.setattr(settling, "JUDGING", -1.0)
    settler, store = service.service.settler, service.service.store
    settler._merged_last = settler._judged_last = "a"
    flood = [Received("flood", WHEN - 3600 * n, "", 3, 0.0, (), pack_sketches(device(n=9))) for n in range(300)]
    add_uploads(store, flood, 9)
    for _ in range(3):
        assert service.work() is True
    with store.writing() as db:  # and many of which no verdict has come
        row = {"sensor": "flood", "version": 1, "updated": 0.0, "uploads": 1, "rows": 1, "sketches": b""}
        db.execute(insert(HOURS), [{**row, "hour": HOUR - 3600 * n} for n in range(500, 2500)])
    send(service, "other")
    turns = 0
    while not [each for each in queries.list_hours(store, "other", most=9) if each.drift is not None]:
        turns += 1
        assert turns <= 3
        service.work()
    assert queries.counts(store).pending > 290


def test_newer_hours_of_a_sensor_are_merged_before_older_ones(service, monkeypatch):
    monkeypatch.setattr(settling, "MERGING", -1.0)
    for n in (2, 0, 1):
        send(service, timestamp=WHEN - 3600 * n)
    found = []
    while service.work():
        found.append(
            [(WHEN - each.hour) // 3600 for each in queries.list_hours(service.service.store, "door-3", most=9)]
        )
    assert found == [[0], [1, 0]]


def until(reached, seconds=20):
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.01)


def test_the_worker_is_woken_outlives_a_store_that_fails_and_ends(service, monkeypatch, caplog):
    monkeypatch.setattr(settling, "GATHER", 0.0)
    broken, pending = threading.Event(), hours.pending

    def failing(store):
        if not broken.is_set():
            broken.set()
            raise StoreError("locked")
        return pending(store)

    monkeypatch.setattr(hours, "pending", failing)
    with service as client:
        send(client)
        until(broken.is_set)
        assert client.get("/healthz").json()["worker"] is True
        until(lambda: [each.drift for each in queries.list_hours(client.service.store, "door-3", most=9)] == [True])
    assert not client.service.settler.alive
    assert failures(client, "store") == 1
    assert "tried again in 1 s: locked" in caplog.text


NOW = 1_800_000_000
DAY = 86_400.0


def fill(store, ages, sensor="a", written=None, received=NOW, last=None):
    """Hours of a sensor that began so many hours ago, each with an upload, written then or as `written` says."""
    hours = [(NOW // AN_HOUR - age) * AN_HOUR for age in ages]
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
    fill(store, range(40, 50), "old", received=NOW - 40 * AN_HOUR)
    found = settling.forget(store, NOW, DAY)
    assert (found.hours, found.sensors, found.left) == (5 + 10, 2, 0)
    assert (found.first, found.last) == ((NOW // AN_HOUR - 49) * AN_HOUR, (NOW // AN_HOUR - 25) * AN_HOUR)
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
        db.execute(HOURS.update().values(updated=HOURS.c.hour + 200_000.0 * AN_HOUR))
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
    fill(sqlite, range(300, 400), "old", received=NOW - 300 * AN_HOUR)
    found = settling.forget(sqlite, NOW, 7 * DAY)
    assert (found.hours, found.left) == (at_once, 100 - at_once)
    assert found.first == (NOW // AN_HOUR - 399) * AN_HOUR  # the oldest
    while found.left:
        found = settling.forget(sqlite, NOW, 7 * DAY)
    assert kept(sqlite) == (100, 100, 1)


def test_hours_are_forgotten_some_at_a_time(sqlite, monkeypatch):
    """Uploads come in between: SQLite has one writer at a time."""
    monkeypatch.setattr(settling, "FORGOTTEN", 2)
    fill(sqlite, [0, 50, 51, 52, 53, 54])
    with sqlite.writing() as db:  # of a forgotten hour, and not merged
        db.execute(UPLOADS.update().where(UPLOADS.c.hour == NOW - 54 * AN_HOUR).values(payload=b"abc"))
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
