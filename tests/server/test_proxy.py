"""Behind a real nginx, below a path, configured as the docs say: every link, form and command leads where it should."""

from __future__ import annotations

import re
import urllib.parse

import httpx
import pytest
from nginx import find_nginx, proxying
from receiving import HOUR, form
from serving_process import serving
from snippets import DOCS

pytestmark = pytest.mark.slow

PAGE = (DOCS / "receiver.md").read_text(encoding="utf-8")
ALL = "a" * 32
HOST = "lensai.example.org"


@pytest.fixture(scope="module")
def server(tmp_path_factory, baseline):
    """The server as the docs start it behind a proxy."""
    find_nginx()
    folder = tmp_path_factory.mktemp("proxied")
    (folder / "tokens").write_text(ALL)
    (line,) = re.findall(r"lensai serve [^\n]*(?:\\\n[^\n]*)*--root-path[^`]*", PAGE)
    options = line[line.index("--root-path") :].replace("\\\n", " ").split()
    with serving(folder, baseline.save(folder / "baseline"), "--token-file", str(folder / "tokens"), *options) as found:
        yield found


@pytest.fixture(params=["/lensai/ is left", "/lensai/ is taken off"])
def client(request, server, tmp_path):
    (location,) = re.findall(r"```nginx\n(.*?)```", PAGE, re.DOTALL)
    slash = "/" if "taken" in request.param else ""
    location, places = re.subn(r"http://127\.0\.0\.1:8080;", f"http://127.0.0.1:{server.port}{slash};", location)
    assert places == 1
    with proxying(tmp_path, location) as port:
        headers = {"Host": f"{HOST}:{port}", "Authorization": f"Bearer {ALL}"}
        with httpx.Client(
            base_url=f"https://127.0.0.1:{port}", verify=False, headers=headers, trust_env=False
        ) as client:
            client.port = port
            yield client


def links(answer):
    """Addresses that a page leads to, as a browser sees them."""
    own = urllib.parse.urlsplit(str(answer.url)).path
    found = re.findall(r'(?:href|src|action)="([^"$]*)"', answer.text)
    return {urllib.parse.urljoin(own, address) for address in found if not address.startswith(("http", "data:"))}


def test_everything_is_found_below_the_path(client, server):
    empty = client.get("/lensai/")
    if "How to send" in empty.text:  # the first of both ways
        assert f"https://{HOST}:{client.port}/lensai/upload/" in empty.text
        assert client.post("/lensai/upload/", **form()).status_code == 201
        server.wait(lambda: client.get("/lensai/sensors").json()["sensors"][0]["latest"])
    assert client.post("/lensai/upload/", **form()).status_code == 200

    seen, due = set(), {"/lensai/"}
    while due:
        path = due.pop()
        seen.add(path)
        answer = client.get(path)
        assert (path, answer.status_code) == (path, 200)
        assert client.head(path).status_code == 200
        if answer.headers["content-type"].startswith("text/html"):
            due |= links(answer) - seen
    assert seen >= {"/lensai/", "/lensai/sensors/door-3", f"/lensai/sensors/door-3/hours/{HOUR}/report"}
    assert all(path.startswith("/lensai/") for path in seen)

    described = client.get("/lensai/openapi.json").json()
    assert described["servers"] == [{"url": "/lensai"}]
    for path in described["paths"]:
        if "{" not in path and path != "/upload/":
            assert client.get(described["servers"][0]["url"] + path).status_code == 200


def test_what_is_wrong_leads_back(client):
    lost = client.get("/lensai/sensors/none/hours/0/report")
    assert (lost.status_code, links(lost)) == (404, {"/lensai/"})
    moved = client.get("/lensai/sensors/?limit=1", follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (307, "../sensors?limit=1")
    assert client.get("/lensai/sensors/?limit=1", follow_redirects=True).status_code == 200
    other = {"Host": "attacker.example", "Authorization": ""}
    assert client.get("/lensai/", headers=other).status_code == 421
    assert client.get("/lensai/healthz", headers=other).status_code == 200


def test_what_others_say_of_a_proxy_is_not_believed(server):
    """Only of the proxy itself, and only what it has seen."""
    said = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "attacker.example", "X-Forwarded-Prefix": "/evil"}
    page = server.get("/sensors/none", headers={**said, "Authorization": f"Bearer {ALL}"})
    assert not {"attacker", "evil"} & set(re.findall(r"\w+", page.text))
