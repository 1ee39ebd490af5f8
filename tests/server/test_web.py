"""What people are shown."""

from __future__ import annotations

import pytest
from receiving import HOUR, WHEN, client_of, device, form
from sqlalchemy import update

from lensai_integrations.server import queries
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.store import HOURS, StoreError


@pytest.fixture
def filled(service):
    service.post("/upload/", **form())
    service.post("/upload/", **form("other", content={"custom/own.bin": device()["imgstats/noise.bin"]}))
    service.work()
    return service


@pytest.mark.parametrize("path", ["/", "/sensors/door-3", f"/sensors/door-3/hours/{HOUR}/report"])
def test_pages(filled, path):
    page = filled.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["x-frame-options"] == "DENY"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "script-src 'unsafe-inline'" not in policy
    assert "door-3" in page.text


def test_the_report_says_what_the_verdict_says(filled):
    page = filled.get(f"/sensors/door-3/hours/{HOUR}/report").text
    assert "brightness" in page
    assert "DRIFT" in page
    assert "sha256-" in filled.get(f"/sensors/door-3/hours/{HOUR}/report").headers["content-security-policy"]


def test_an_hour_that_cannot_be_judged(filled):
    page = filled.get(f"/sensors/other/hours/{HOUR}/report")
    assert page.status_code == 200
    assert "nothing to compare" in page.text
    assert WHEN // 3600 * 3600 == HOUR


def test_a_damaged_hour_is_not_shown_as_what_it_was(filled):
    with filled.service.store.writing() as db:
        db.execute(update(HOURS).where(HOURS.c.sensor == "door-3").values(sketches=b"damaged", drift=False))
    filled.post("/upload/", **form(timestamp=WHEN + 1))
    filled.work()
    for path in ("/", "/sensors/door-3"):
        page = filled.get(path).text
        assert "uploads could not be merged: the stored sketches are damaged" in page
        assert "no drift" not in page
    report = filled.get(f"/sensors/door-3/hours/{HOUR}/report")
    assert report.status_code == 200
    assert "This hour cannot be judged: the stored sketches are damaged" in report.text


def test_a_store_that_does_not_answer_is_not_taken_for_a_damaged_hour(filled, monkeypatch):
    def refuse(*_):
        raise StoreError("the store is locked")

    monkeypatch.setattr(queries, "hour_sketches", refuse)
    assert filled.get(f"/sensors/door-3/hours/{HOUR}/report").status_code == 503


@pytest.mark.parametrize(("sensors", "links"), [("abc", 1), ("ab", 0)])
def test_drift_is_seen_beyond_the_sensors_that_can_be_listed(baseline, sqlite, sensors, links):
    client = client_of(baseline, sqlite, Settings(judge_seconds=0, listed=2))
    own = {"custom/own.bin": device()["imgstats/noise.bin"]}
    for sensor in sensors:
        client.post("/upload/", **form(sensor, content=None if sensor == sensors[-1] else own))
    client.work()
    page = client.get("/").text
    assert f"<h1>1 of {len(sensors)} sensors drift, {len(sensors) - 1} could not be judged</h1>" in page
    assert page.index("sensors/" + sensors[-1]) < page.index("sensors/a")
    assert page.count("page by page") == links
    answer = client.get("/sensors").json()
    assert (len(answer["sensors"]), answer["next"]) == (2, "b" if links else None)
