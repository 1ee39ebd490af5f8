"""What people are shown.

What is wrong is told as a page to people, as JSON to programs; HEAD and redirects.
"""

from __future__ import annotations

import re

import pytest
from receiving import HOUR, WHEN, client_of, device, form
from sensors import HOSTILE
from sqlalchemy import update
from starlette.testclient import TestClient

from lensai_integrations.errors import InputError
from lensai_integrations.server import queries
from lensai_integrations.server.app import checked_root_path
from lensai_integrations.server.pages import problem_page
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.store import HOURS, StoreError
from lensai_integrations.server.tokens import Tokens


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


BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
TOKEN, DOOR = "a" * 32, "b" * 32


@pytest.fixture
def with_an_hour(service):
    service.post("/upload/", **form())
    service.work()
    return service


def page_of(answer, status):
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert {name: answer.headers[name] for name in ("x-frame-options", "cache-control")} == {
        "x-frame-options": "DENY", "cache-control": "no-store"
    }  # fmt: skip
    assert "<script" not in answer.text
    return answer.text


def test_pages_that_are_not_there(with_an_hour):
    assert "there is no sensor &#39;none&#39;" in page_of(with_an_hour.get("/sensors/none"), 404)
    assert "has no hour 0" in page_of(with_an_hour.get("/sensors/door-3/hours/0/report"), 404)
    assert "<h1>Bad Request (400)</h1>" in page_of(with_an_hour.get("/sensors/a%00"), 400)
    assert "hour: " in page_of(with_an_hour.get("/sensors/a/hours/noon/report", headers=BROWSER), 400)
    for path in ("/none", "/sensors/none/drift", "/sensors?limit=0", "/upload"):  # not pages, opened in a browser
        page_of(with_an_hour.get(path, headers=BROWSER), {"/sensors?limit=0": 400, "/upload": 405}.get(path, 404))


def test_programs_read_json(with_an_hour):
    for path in ("/none", "/sensors/none/drift", "/sensors?limit=0", "/upload"):
        assert set(with_an_hour.get(path).json()) == {"detail"}
    assert set(with_an_hour.get("/sensors/none", headers={"Accept": "application/json"}).json()) == {"detail"}


def test_pages_without_a_token(baseline, sqlite):
    client = client_of(baseline, sqlite, tokens=Tokens([TOKEN, f"{DOOR} door-3"]))
    asked = client.get("/", headers=BROWSER)
    assert "a valid token is needed" in page_of(asked, 401)
    assert asked.headers["www-authenticate"].startswith("Basic realm=")
    assert "for uploads of one sensor only" in page_of(client.get("/", auth=("any", DOOR)), 403)


@pytest.mark.parametrize(("error", "status"), [(StoreError("it is locked"), 503), (RuntimeError("secret"), 500)])
def test_pages_while_something_is_wrong(baseline, sqlite, monkeypatch, error, status, caplog):
    def fail(*_, **__):
        raise error

    app = client_of(baseline, sqlite).app
    client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
    monkeypatch.setattr(queries, "find_sensor", fail)
    for _ in range(5):
        answer = client.get("/sensors/door-3")
        text = page_of(answer, status)
    assert 'http-equiv="refresh"' in text
    assert not {"secret", "locked"} & set(re.findall(r"\w+", text))
    assert answer.headers.get("retry-after") == ("5" if status == 503 else None)
    assert caplog.text.count("answered 503: it is locked") == (1 if status == 503 else 0)


def test_names_are_text_and_links_lead_home(with_an_hour):
    assert HOSTILE not in problem_page(404, HOSTILE, "../")
    for path in ("/none", "/sensors/none", "/sensors/none/x/", "/sensors/a%2Fb%2Fc", "/sensors/door-3/hours/0/report"):
        (home,) = re.findall(r'<a href="([./]+)">LensAI sensors', with_an_hour.get(path, headers=BROWSER).text)
        assert str(with_an_hour.get(path).url.join(home)) == "http://localhost/"


def test_heads_are_those_of_the_pages(with_an_hour):
    paths = ["/", "/sensors", "/sensors/door-3", "/sensors/door-3/drift", f"/sensors/door-3/hours/{HOUR}", "/healthz",
             f"/sensors/door-3/hours/{HOUR}/report", "/openapi.json", "/none", "/sensors/none"]  # fmt: skip
    for path in paths:
        got, head = with_an_hour.get(path), with_an_hour.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        differing = {"content-length"} if path in ("/", "/sensors/door-3") else set()  # these show what time it is
        for name in set(got.headers) - differing:
            assert head.headers[name] == got.headers[name]
        assert int(head.headers["content-length"]) > 0
    assert "content-length" in with_an_hour.head("/metrics").headers
    assert with_an_hour.head("/upload/").status_code == 405


def test_redirects_are_relative(with_an_hour):
    for path, to in (("/sensors/", "../sensors"), ("/sensors/?limit=3", "../sensors?limit=3"),
                     ("/sensors/door-3/", "../door-3"), ("//attacker.example/", None)):  # fmt: skip
        answer = with_an_hour.get(path, headers={"X-Forwarded-Host": "attacker.example"}, follow_redirects=False)
        assert answer.headers.get("location") == to
        assert to is None or with_an_hour.get(path).status_code == 200


def test_below_a_path(baseline, sqlite):
    """Whether the proxy takes it off or not."""
    client = client_of(baseline, sqlite, root_path="/lensai/")
    client.post("/upload/", **form())
    client.work()
    for path in ("", "/lensai"):
        assert client.post(f"{path}/upload/", **form()).status_code == 200
        assert client.get(f"{path}/sensors/door-3").status_code == 200
        assert client.get(f"{path}/openapi.json").json()["servers"] == [{"url": "/lensai"}]
        assert 'href="../"' in client.get(f"{path}/sensors/none").text
        assert client.get(f"{path}/sensors/", follow_redirects=False).headers["location"] == "../sensors"
        assert client.head(f"{path}/sensors").status_code == 200


@pytest.mark.parametrize("path", ["lensai", "/a b", "/a/../b?", "/sensors", "/upload/x", "//a", "/<b>"])
def test_what_is_no_path_of_a_proxy(path):
    with pytest.raises(InputError, match=r"root_path=.*e\.g\. '/lensai'"):
        checked_root_path(path)
