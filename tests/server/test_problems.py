"""What is wrong is told as a page to people, as JSON to programs; HEAD and redirects."""

from __future__ import annotations

import re

import pytest
from receiving import HOUR, client_of, form
from sensors import HOSTILE
from starlette.testclient import TestClient

from lensai_integrations.errors import InputError
from lensai_integrations.server import queries
from lensai_integrations.server.app import checked_root_path
from lensai_integrations.server.pages import problem_page
from lensai_integrations.server.store import StoreError
from lensai_integrations.server.tokens import Tokens

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
TOKEN, DOOR = "a" * 32, "b" * 32


@pytest.fixture
def filled(service):
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


def test_pages_that_are_not_there(filled):
    assert "there is no sensor &#39;none&#39;" in page_of(filled.get("/sensors/none"), 404)
    assert "has no hour 0" in page_of(filled.get("/sensors/door-3/hours/0/report"), 404)
    assert "<h1>Bad Request (400)</h1>" in page_of(filled.get("/sensors/a%00"), 400)
    assert "hour: " in page_of(filled.get("/sensors/a/hours/noon/report", headers=BROWSER), 400)
    for path in ("/none", "/sensors/none/drift", "/sensors?limit=0", "/upload"):  # not pages, opened in a browser
        page_of(filled.get(path, headers=BROWSER), {"/sensors?limit=0": 400, "/upload": 405}.get(path, 404))


def test_programs_read_json(filled):
    for path in ("/none", "/sensors/none/drift", "/sensors?limit=0", "/upload"):
        assert set(filled.get(path).json()) == {"detail"}
    assert set(filled.get("/sensors/none", headers={"Accept": "application/json"}).json()) == {"detail"}


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


def test_names_are_text_and_links_lead_home(filled):
    assert HOSTILE not in problem_page(404, HOSTILE, "../")
    for path in ("/none", "/sensors/none", "/sensors/none/x/", "/sensors/a%2Fb%2Fc", "/sensors/door-3/hours/0/report"):
        (home,) = re.findall(r'<a href="([./]+)">LensAI sensors', filled.get(path, headers=BROWSER).text)
        assert str(filled.get(path).url.join(home)) == "http://localhost/"


def test_heads_are_those_of_the_pages(filled):
    paths = ["/", "/sensors", "/sensors/door-3", "/sensors/door-3/drift", f"/sensors/door-3/hours/{HOUR}", "/healthz",
             f"/sensors/door-3/hours/{HOUR}/report", "/openapi.json", "/none", "/sensors/none"]  # fmt: skip
    for path in paths:
        got, head = filled.get(path), filled.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        differing = {"content-length"} if path in ("/", "/sensors/door-3") else set()  # these show what time it is
        for name in set(got.headers) - differing:
            assert head.headers[name] == got.headers[name]
        assert int(head.headers["content-length"]) > 0
    assert "content-length" in filled.head("/metrics").headers
    assert filled.head("/upload/").status_code == 405


def test_redirects_are_relative(filled):
    for path, to in (("/sensors/", "../sensors"), ("/sensors/?limit=3", "../sensors?limit=3"),
                     ("/sensors/door-3/", "../door-3"), ("//attacker.example/", None)):  # fmt: skip
        answer = filled.get(path, headers={"X-Forwarded-Host": "attacker.example"}, follow_redirects=False)
        assert answer.headers.get("location") == to
        assert to is None or filled.get(path).status_code == 200


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
