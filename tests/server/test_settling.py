"""The worker: what goes wrong with one hour stays there, and everything else is judged."""

from __future__ import annotations

import threading
import time

import pytest
from receiving import HOUR, WHEN, client_of, device, form
from sqlalchemy import update

from lensai_integrations import Baseline, compare, edge
from lensai_integrations.server import hours, queries, settling
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.store import StoreError
from lensai_integrations.server.tables import HOURS


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
    assert "inputs/brightness" in found.moved


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


def test_a_damaged_hour_is_left_alone_and_others_are_merged(service, caplog):
    send(service)
    service.work(now=0.0)
    with service.service.store.writing() as db:
        db.execute(update(HOURS).values(sketches=b"damaged"))
    send(service, timestamp=WHEN + 1)
    send(service, "fine")
    service.work(now=10.0)
    service.work(now=20.0)
    assert hour(service, "fine").drift is True
    assert failures(service, "settle") == 1
    assert hours.pending(service.service.store) == [("door-3", HOUR)]
    service.work(now=1000.0)  # tried again later
    assert failures(service, "settle") == 2
    assert "the stored sketches are damaged" in caplog.text
    assert "the stored sketches are damaged" in hour(service).problem


def test_an_hour_that_the_store_refuses_is_left_alone_and_others_are_judged(service, monkeypatch, caplog):
    """E.g. because it is too large for a row: the store itself is fine."""
    put = hours.put

    def refusing(store, batch, *rest):
        if batch.sensor == "door-3":
            raise StoreError("string or blob too big")
        return put(store, batch, *rest)

    send(service)
    service.work(now=0.0)
    monkeypatch.setattr(hours, "put", refusing)
    send(service, timestamp=WHEN + 1)
    send(service, "fine")
    for now in (10.0, 20.0):
        service.work(now)
    assert hour(service, "fine").drift is True
    assert failures(service, "settle") == 1
    assert "too big" in hour(service).problem
    monkeypatch.undo()
    service.work(now=50.0)
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


def test_old_hours_are_forgotten(baseline, sqlite):
    client = client_of(baseline, sqlite, Settings(keep_days=1))
    send(client)
    client.work(1000.0)
    client.work(1000.0 + 2 * 86_400)
    assert queries.list_hours(sqlite, "door-3", most=9) == []


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
